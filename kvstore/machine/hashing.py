"""Hashes that members compare: etcd's HashKV over the history, and one over the whole state.

Both leave out what a compaction made unreadable, swept or not, so they do not depend on how far
the sweep has come.
"""

from __future__ import annotations

from typing import NamedTuple

from google_crc32c import extend

from kvstore import errors
from kvstore.machine.jobs import Job
from kvstore.machine.limits import SLICE_RECORDS, SLICE_VALUES
from kvstore.machine.meta import load_hashed
from kvstore.machine.mvcc import newest_any, walk
from kvstore.machine.tables import (
    ALARMS,
    JOURNAL,
    KEYS,
    LEASE_KEYS,
    LEASES,
    MEMBERS,
    REMOVED,
    REVISIONS,
    STAMP_BYTES,
    Version,
    floor_of,
    revision_key,
)
from kvstore.pb.kv_pb2 import KeyValue
from kvstore.storage.store import ReadTxn

__all__ = ("HashAnswer", "hash_kv", "hash_state")

_REVISION_KEY_BYTES = 16

_KEPT_CHECK_COST = 4
"""Looking up whether a revision still counts takes as long as hashing this many."""


class HashAnswer(NamedTuple):
    """A CRC-32C, and what it was taken of."""

    hash: int
    compact_revision: int
    hash_revision: int


def hash_kv(txn: ReadTxn, current: int, compact: int, revision: int) -> Job[HashAnswer]:
    """etcd's HashKV at `revision` (0: the current one).

    Revisions above the compact revision all count. Of those at or below it, only the version of
    a key that is newest at the *hashed* revision counts (etcd's "keep" set), except that, when no
    key is live there, those count that are newest at the compact revision.
    """
    if revision > current:
        raise errors.FUTURE_REVISION
    if 0 < revision < compact:
        raise errors.COMPACTED
    revision = revision if revision > 0 else current
    keep_at = compact
    if compact >= 0 and (yield from _any_live(txn, revision)):
        keep_at = revision
    crc: int = extend(0, b"key")
    position: bytes | None = b""
    stop = revision_key(revision + 1, 0)
    while position is not None:
        position, parts = _hashed_slice(txn, (position, stop), compact, keep_at)
        crc = extend(crc, b"".join(parts))
        if position is not None:
            yield
    return HashAnswer(crc, compact, revision)


def _any_live(txn: ReadTxn, revision: int) -> Job[bool]:
    floor = floor_of(revision)
    position: bytes | None = b""
    while position is not None:
        part = walk(txn, position, None, floor=floor, want=1, records=SLICE_RECORDS)
        if part.found:
            return True
        position = part.resume
        if position is not None:
            yield
    return False


def _hashed_slice(
    txn: ReadTxn, span: tuple[bytes, bytes], compact: int, keep_at: int
) -> tuple[bytes | None, list[bytes]]:
    """The bytes that a slice of the revisions adds, and where the next slice starts."""
    parts: list[bytes] = []
    left = SLICE_RECORDS
    for record_key, kv in txn.scan(REVISIONS, span[0], span[1]):
        main = int.from_bytes(record_key[:8])
        if main > compact or _is_kept(txn, record_key, kv, keep_at):
            parts += (record_key[:8], b"_", record_key[8:], kv)
        left -= 1 if main > compact else _KEPT_CHECK_COST
        if left <= 0:
            return record_key + b"\x00", parts
    return None, parts


def _is_kept(txn: ReadTxn, record_key: bytes, kv: bytes, keep_at: int) -> bool:
    """Whether a revision at or below the compact revision still counts."""
    if len(record_key) > _REVISION_KEY_BYTES:
        return False
    version = newest_any(txn, KeyValue.FromString(kv).key, keep_at)
    return version is not None and version.key == record_key


def hash_state(txn: ReadTxn, compact: int) -> Job[int]:
    """A CRC-32C over the applied state: every table, without what the sweep will remove."""
    crc: int = extend(0, load_hashed(txn))
    for table in (LEASES, LEASE_KEYS, MEMBERS, REMOVED, ALARMS, JOURNAL):
        parts: list[bytes] = [table.encode()]
        slice_records = SLICE_VALUES if table == JOURNAL else SLICE_RECORDS
        for key, record in txn.scan(table):
            parts += (key, record)
            if len(parts) > 2 * slice_records:
                crc = extend(crc, b"".join(parts))
                parts = []
                yield
        crc = extend(crc, b"".join(parts))
    return (yield from _hash_versions(txn, compact, crc))


def _hash_versions(txn: ReadTxn, compact: int, crc: int) -> Job[int]:
    """Adds the version records with their pairs, but none that is superseded at `compact`."""
    settled = b""
    parts: list[bytes] = []
    for record_key, record in txn.scan(KEYS):
        ordered = record_key[:-STAMP_BYTES]
        if ordered == settled:
            continue
        version = Version.read(record_key, record)
        if version.main <= compact:
            settled = ordered
            if not record:
                continue
        parts += (record_key, record, txn.get(REVISIONS, version.key) or b"")
        if len(parts) > 3 * SLICE_VALUES:
            crc = extend(crc, b"".join(parts))
            parts = []
            yield
    return int(extend(crc, b"".join(parts)))
