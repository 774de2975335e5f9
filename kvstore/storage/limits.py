"""The bounds and sizes of the storage layer, with their units, at one place."""

from __future__ import annotations

from typing import Final

__all__ = (
    "COPY_CHUNK_BYTES",
    "COPY_PAUSE_S",
    "GENTLE_FREE_BYTES",
    "GENTLE_READ_BYTES",
    "GENTLE_WRITE_BYTES",
    "KEY_BYTES_MAX",
    "MAP_BYTES_MIN",
    "MAP_QUOTA_FACTOR",
    "READERS_MAX",
    "RECORD_BYTES_MAX",
    "SECTOR_BYTES",
    "SEGMENT_BYTES",
    "SIZE_MARK_BYTES",
    "SNAPSHOT_CHUNK_BYTES",
    "SNAPSHOT_CHUNK_BYTES_MAX",
    "SNAPSHOT_SYNC_BYTES",
    "SPARE_TXNS",
)

SECTOR_BYTES: Final = 512
"""What a disk writes whole or not at all; a batch of the log begins on such a boundary."""

SEGMENT_BYTES: Final = 64 * 1024**2
"""Size of a log segment, allocated when it is created."""

RECORD_BYTES_MAX: Final = 1024**3
"""A log batch is no longer than this; a larger length in a file is damage."""

SIZE_MARK_BYTES: Final = 256 * 1024
"""How finely the log remembers which entry stood at which byte (for the snapshot policy)."""

SNAPSHOT_CHUNK_BYTES: Final = 1024**2
"""Bytes of a snapshot's body under one checksum."""

SNAPSHOT_CHUNK_BYTES_MAX: Final = 4 * 1024**2
"""A longer chunk in a snapshot file is damage."""

GENTLE_READ_BYTES: Final = 128 * 1024
GENTLE_WRITE_BYTES: Final = 256 * 1024
GENTLE_FREE_BYTES: Final = 2 * 1024**2
"""Pieces of work in bulk on a disk: a sync of the log waits for one of them at most. Chosen by
the 99th percentile of syncs beside it (docs/performance.md)."""

SNAPSHOT_SYNC_BYTES: Final = 16 * 1024**2
"""A snapshot is synced after this many bytes, so that the log never waits behind all of it."""

KEY_BYTES_MAX: Final = 400
"""Longest key of an ordinary table, and the length of a segment of a long key.

LMDB allows 511: a segment, the 8-byte id of its node and one mark byte fit well inside."""

MAP_BYTES_MIN: Final = 64 * 1024**3
"""Smallest map size of the LMDB file: address space, not disk space."""

MAP_QUOTA_FACTOR: Final = 4
"""Map size per byte of quota, above that minimum."""

READERS_MAX: Final = 1024
"""Read transactions that may be open at once."""

SPARE_TXNS: Final = 16
"""Ended read transactions kept for reuse, so that a new one costs a fifth of a microsecond."""

COPY_CHUNK_BYTES: Final = 1024**2
"""A copy of the store travels in pieces of up to this many bytes."""

COPY_PAUSE_S: Final = 0.0005
"""Rest after each piece: bounds a copy to about 1.5 GB/s and lets the log's writes through."""
