"""The sweep: removing, a little at a time, the versions that a compaction made unreadable.

Compacting itself only moves `compact_revision`; from then on reads below it are refused, whether
or not anything has been swept. The sweep goes through the revisions from the last compaction to
this one: each of them supersedes the older versions of its key, which go, and a deletion below
the compaction goes itself. So its work is in proportion to what was written, not to what is kept.

What stays: of each key the newest version at the compaction unless that is an older deletion, and
everything *at* the compact revision, superseded or not: a watch that starts there is owed the
whole revision. It is dealt with by the next sweep, which begins at that revision.
"""

from __future__ import annotations

from kvstore.machine.meta import SweepState
from kvstore.machine.tables import (
    AFTER_ALL_STAMPS,
    KEYS,
    REVISIONS,
    TOMBSTONE_MARK,
    Version,
    ordered_key,
    revision_key,
    stamp_of,
)
from kvstore.pb.kv_pb2 import KeyValue
from kvstore.storage.store import WriteTxn

__all__ = ("retarget", "sweep_slice")

_REVISION_KEY_BYTES = 16


def retarget(sweep: SweepState, compact_revision: int) -> SweepState:
    """Where to go on when a compaction was added: at the old target, which kept everything."""
    if sweep.target == compact_revision:
        return sweep
    at = min((sweep.main, sweep.sub), (max(sweep.target, 0), 0))
    return SweepState(compact_revision, *at)


def sweep_slice(txn: WriteTxn, sweep: SweepState, max_revisions: int) -> tuple[SweepState, bool]:
    """Goes through up to `max_revisions` revisions; returns the progress and whether it is done."""
    start = revision_key(sweep.main, sweep.sub)
    stop = revision_key(sweep.target + 1, 0)
    batch = []
    for record_key, kv in txn.scan(REVISIONS, start, stop):
        batch.append((record_key, kv))
        if len(batch) == max_revisions:
            break
    for record_key, kv in batch:
        _settle(txn, record_key, KeyValue.FromString(kv).key, sweep.target)
    if len(batch) < max_revisions:
        return SweepState(sweep.target, sweep.target, 0), True
    last = batch[-1][0]
    main, sub = int.from_bytes(last[:8]), int.from_bytes(last[8:_REVISION_KEY_BYTES])
    return SweepState(sweep.target, main, sub + 1), False


def _settle(txn: WriteTxn, record_key: bytes, key: bytes, target: int) -> None:
    """Removes the versions that one revision supersedes, and itself if it is an old deletion."""
    ordered = ordered_key(key)
    stamp = stamp_of(record_key[:_REVISION_KEY_BYTES])
    older = list(txn.scan(KEYS, ordered + stamp + b"\x00", ordered + AFTER_ALL_STAMPS))
    for version_key, record in older:
        version = Version.read(version_key, record)
        if version.main < target:
            txn.delete(REVISIONS, version.key)
            txn.delete(KEYS, version_key)
    is_deletion = record_key.endswith(TOMBSTONE_MARK) and len(record_key) > _REVISION_KEY_BYTES
    if is_deletion and int.from_bytes(record_key[:8]) < target:
        txn.delete(REVISIONS, record_key)
        txn.delete(KEYS, ordered + stamp)
