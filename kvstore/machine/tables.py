"""The tables of the state machine and the encoding of their keys and records.

`revisions`   main (8 bytes) + sub (8 bytes), plus "t" for a deletion → encoded mvccpb.KeyValue
`keys`        ordered key + inverted (main, sub) → version record; empty for a deletion
`leases`      lease id → TTLs
`lease_keys`  lease id + key → nothing
`journal`     main + sub → what changed there, when and why (keys under one prefix, see `journal`)
`members`, `removed`, `alarms`, `meta`: small tables, see their modules

*Ordered key.* Each zero byte of a key becomes 00 ff and two zero bytes end it. The codes sort as
the keys do and none is the beginning of another, so all versions of a key stand together and
a key before its extensions.

*Inverted revision ("stamp").* The 16 bytes with every bit flipped: of a key's versions the newest
stands first, and one seek to ordered key + flipped main finds the newest version at or below it.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from kvstore.storage.store import TableSpec

__all__ = (
    "ALARMS",
    "AFTER_ALL_STAMPS",
    "JOURNAL",
    "KEYS",
    "LEASES",
    "LEASE_KEYS",
    "MEMBERS",
    "META",
    "REMOVED",
    "REVISIONS",
    "STAMP_BYTES",
    "TABLES",
    "TOMBSTONE_MARK",
    "Version",
    "floor_of",
    "key_of",
    "key_of_ordered",
    "lease_bytes",
    "lease_id",
    "member_id",
    "ordered_key",
    "prefix_end",
    "range_bounds",
    "revision_key",
    "stamp_of",
    "version_record",
)

REVISIONS: Final = "revisions"
KEYS: Final = "keys"
LEASES: Final = "leases"
LEASE_KEYS: Final = "lease_keys"
MEMBERS: Final = "members"
REMOVED: Final = "removed"
ALARMS: Final = "alarms"
META: Final = "meta"
JOURNAL: Final = "journal"

TABLES: Final[tuple[TableSpec, ...]] = (
    TableSpec(REVISIONS),
    TableSpec(KEYS, long_keys=True),
    TableSpec(LEASES),
    TableSpec(LEASE_KEYS, long_keys=True),
    TableSpec(MEMBERS),
    TableSpec(REMOVED),
    TableSpec(ALARMS),
    TableSpec(META),
    TableSpec(JOURNAL),
)

TOMBSTONE_MARK: Final = b"t"
"""Follows main and sub in `revisions` when the revision is a deletion (etcd's own mark)."""

STAMP_BYTES: Final = 16
AFTER_ALL_STAMPS: Final = b"\xff" * (STAMP_BYTES + 1)
"""Ordered key + this sorts behind every version of the key and before the next key."""

_FLIP = bytes(255 - byte for byte in range(256))
_REVISION = struct.Struct(">QQ")
_MAIN = struct.Struct(">Q")
_MAIN_MAX = (1 << 64) - 1
_LEASE_ID = struct.Struct(">q")
_MEMBER_ID = struct.Struct(">Q")
_PLAIN = struct.Struct(">QQ")
_LEASED = struct.Struct(">QQq")

revision_key = _REVISION.pack
"""(main, sub) → the key in `revisions` (of a put; a deletion has TOMBSTONE_MARK behind it)."""

lease_id = _LEASE_ID.pack
member_id = _MEMBER_ID.pack


class Version(NamedTuple):
    """One version of a key, as its record in `keys` tells it."""

    main: int
    sub: int
    create: int
    version: int
    lease: int

    @classmethod
    def read(cls, record_key: bytes, record: bytes) -> Version:
        """From a record of `keys`; a deletion has version 0."""
        main, sub = _REVISION.unpack(record_key[-STAMP_BYTES:].translate(_FLIP))
        if len(record) == _PLAIN.size:
            create, version = _PLAIN.unpack(record)
            return cls(main, sub, create, version, 0)
        if not record:
            return cls(main, sub, 0, 0, 0)
        create, version, lease = _LEASED.unpack(record)
        return cls(main, sub, create, version, lease)

    @property
    def key(self) -> bytes:
        """The key of this version in `revisions`."""
        base = revision_key(self.main, self.sub)
        return base if self.version else base + TOMBSTONE_MARK


def version_record(create: int, version: int, lease: int) -> bytes:
    """The record in `keys` of a put."""
    if lease:
        return _LEASED.pack(create, version, lease)
    return _PLAIN.pack(create, version)


def lease_bytes(record: bytes) -> bytes:
    """The id of the lease in a record of `keys`, packed as in `lease_keys`; empty for none."""
    return record[_PLAIN.size :]


def ordered_key(key: bytes) -> bytes:
    """The code of a key in `keys` (without the stamp)."""
    return key.replace(b"\x00", b"\x00\xff") + b"\x00\x00"


def key_of(record_key: bytes) -> bytes:
    """The key whose version stands under `record_key` in `keys`."""
    return key_of_ordered(record_key[:-STAMP_BYTES])


def key_of_ordered(ordered: bytes) -> bytes:
    """The key whose code this is."""
    return ordered[:-2].replace(b"\x00\xff", b"\x00")


def stamp_of(stored: bytes) -> bytes:
    """Flips a 16-byte revision key into its stamp, or a stamp into its revision key."""
    return stored.translate(_FLIP)


def floor_of(main: int) -> bytes:
    """Stamps of revisions at or below `main` compare >= this, later ones below it."""
    return _MAIN.pack(_MAIN_MAX - main)


def range_bounds(key: bytes, range_end: bytes) -> tuple[bytes, bytes | None]:
    """Start and stop in `keys` of etcd's range: one key, [key, end), or from key on (end 00)."""
    start = ordered_key(key)
    if not range_end:
        return start, start + AFTER_ALL_STAMPS
    if range_end == b"\x00":
        return start, None
    return start, ordered_key(range_end)


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key behind all that start with `prefix`; None when nothing can be behind them."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else None
