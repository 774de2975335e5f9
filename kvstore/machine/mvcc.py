"""Finding versions: the newest of a key, or of each key of a range, at a revision.

Everything here reads one transaction, be it a pinned view or the open write transaction (which
sees its own writes), and takes the revision to read at. Whether that revision may be read at all
(compacted, future) is the caller's check.
"""

from __future__ import annotations

from typing import NamedTuple

from kvstore.machine.limits import STALE_RUN
from kvstore.machine.tables import (
    AFTER_ALL_STAMPS,
    KEYS,
    REVISIONS,
    STAMP_BYTES,
    Version,
    floor_of,
    ordered_key,
    stamp_of,
)
from kvstore.storage.errors import StoreCorrupt
from kvstore.storage.store import ReadTxn

__all__ = ("Found", "Part", "fetch", "gone", "newest", "newest_any", "stored", "walk")

Found = tuple[bytes, bytes]
"""A live version: its record key and record in `keys`."""


class Part(NamedTuple):
    """What one step of a walk found, and where the next one starts (None: the range is done)."""

    found: list[Found]
    resume: bytes | None


def newest_any(txn: ReadTxn, key: bytes, revision: int) -> Version | None:
    """The newest version of `key` at `revision`, deletion or not; None if there is none."""
    ordered = ordered_key(key)
    found = txn.seek(KEYS, ordered + floor_of(revision))
    if found is None or len(found[0]) != len(ordered) + STAMP_BYTES:
        return None
    return Version.read(*found) if found[0].startswith(ordered) else None


def newest(txn: ReadTxn, key: bytes, revision: int) -> Version | None:
    """The version of `key` that is live at `revision`; None if the key does not exist there."""
    version = newest_any(txn, key, revision)
    return version if version is not None and version.version else None


def walk(
    txn: ReadTxn,
    start: bytes,
    stop: bytes | None,
    *,
    floor: bytes,
    want: int | None,
    records: int,
) -> Part:
    """One step along `keys`: live versions in key order, at most one for each key.

    `floor` is `floor_of` the revision to read at. The step ends after `want` live versions (None:
    no limit), after about `records` version records, or at `stop`.
    """
    found: list[Found] = []
    position: bytes | None = start
    left = records
    while position is not None:
        position, left = _stretch(txn, (position, stop), floor, found, (want, left))
        if left <= 0 or (want is not None and len(found) >= want):
            break
    return Part(found, position)


def _stretch(
    txn: ReadTxn,
    span: tuple[bytes, bytes | None],
    floor: bytes,
    found: list[Found],
    bounds: tuple[int | None, int],
) -> tuple[bytes | None, int]:
    """Draws from one scan until a bound or a long run of useless versions ends it.

    Appends to `found`; returns where to go on (None: the end) and how many records are left.
    """
    want = -1 if bounds[0] is None else bounds[0]
    left = bounds[1]
    seen = b""
    stale = 0
    for item in txn.scan(KEYS, span[0], span[1]):
        record_key, record = item
        left -= 1
        ordered = record_key[:-STAMP_BYTES]
        if ordered != seen:
            if record_key[-STAMP_BYTES:] >= floor:
                seen = ordered
                stale = 0
                if record:
                    found.append(item)
                if left > 0 and len(found) != want:
                    continue
                return ordered + AFTER_ALL_STAMPS, left
            # Newer than the revision we read at.
            resume = ordered + floor
        else:
            # Superseded.
            resume = ordered + AFTER_ALL_STAMPS
        stale += 1
        if stale >= STALE_RUN or left <= 0:
            return resume, left
    return None, left


def fetch(txn: ReadTxn, found: list[Found]) -> list[bytes]:
    """The encoded pairs of live versions, in the same order."""
    keys = [stamp_of(record_key[-STAMP_BYTES:]) for record_key, _ in found]
    pairs = txn.get_many(REVISIONS, keys)
    if None in pairs:
        raise gone(keys[pairs.index(None)])
    return pairs  # type: ignore[return-value]


def stored(txn: ReadTxn, version: Version) -> bytes:
    """The encoded pair of one live version."""
    pair = txn.get(REVISIONS, version.key)
    if pair is None:
        raise gone(version.key)
    return pair


def gone(revision: bytes) -> StoreCorrupt:
    """A version record points at a revision that is not there.

    Both were written in one transaction and are swept in one, so the engine has lost the way to
    it: damage of a kind that no checksum of a record shows.
    """
    return StoreCorrupt(
        "of this member", f"table {REVISIONS}", f"revision {revision.hex()} (hex) is missing"
    )
