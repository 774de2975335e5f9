"""The writing end of the log: the open segment, what of it is synced, and the segments before.

Runs in the fsync thread. A new segment gets its whole size, its header and a sync before it gets
its name, and the directory is synced before the first batch goes in: whatever a crash leaves
behind either does not count (`.tmp`) or is whole. One that was found short nevertheless (`wal_scan`
says which that may be) gets its size back before anything is appended.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from kvstore.storage.disk import Disk, File
from kvstore.storage.fault_points import disk_point
from kvstore.storage.limits import SECTOR_BYTES
from kvstore.storage.wal_format import (
    HEAD,
    HEADER_BYTES,
    SegmentHeader,
    build_batch,
    decode_header,
    encode_header,
    padded,
    segment_name,
)
from kvstore.storage.wal_scan import SegmentInfo

__all__ = ("SegmentWriter",)

_ZERO_PIECE: Final = bytes(1024**2)


class _Segment(NamedTuple):
    path: Path
    first_index: int


class SegmentWriter:
    """Appends batches to the newest segment and removes the oldest ones."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self.directory = directory
        self._segments: list[_Segment] = []
        self._file: File | None = None
        self._seed = 0
        self._size = 0
        self._position = 0
        self._synced = 0
        self._marked = 0
        """Up to here a later batch in the file says that everything is synced."""
        self.sequence = 0
        """Of the segment that is written to; 0 when there is none yet."""

    def resume(self, segments: list[SegmentInfo], position: int) -> None:
        """Goes on in the last of these, at `position`; everything before that is synced."""
        self._segments = [_Segment(item.path, item.header.first_index) for item in segments]
        newest = segments[-1]
        self._file = self._disk.open(newest.path, writable=True)
        self._seed = newest.header_crc
        self._size = newest.header.size_bytes
        self._position = self._synced = position
        self._marked = HEADER_BYTES
        self.sequence = newest.header.sequence

    def begin(self, header: SegmentHeader) -> None:
        """Closes the present segment, synced, and makes a new one durable."""
        self.sync()
        path = self.directory / segment_name(header.sequence, header.first_index)
        unfinished = path.with_name(path.name + ".tmp")
        disk_point("wal.before_segment", path)
        self._disk.unlink(unfinished)
        sector = encode_header(header)
        file = self._disk.create(unfinished, header.size_bytes)
        file.write_at(0, sector)
        file.datasync()
        disk_point("wal.segment_written", unfinished)
        self._disk.rename(unfinished, path)
        disk_point("wal.segment_named", path)
        self._disk.sync_dir(self.directory)
        disk_point("wal.after_segment", path)
        if self._file is not None:
            self._file.close()
        file.path = path
        self._file = file
        self._seed = decode_header(path, sector)[1]
        self._size = header.size_bytes
        self._position = self._synced = self._marked = HEADER_BYTES
        self._segments.append(_Segment(path, header.first_index))
        self.sequence = header.sequence

    def has_room(self, record_bytes: int) -> bool:
        """Whether a batch of that many bytes of records fits into the segment."""
        return self._position + padded(HEAD.size + record_bytes) <= self._size

    def append(self, records: bytes, crc: int) -> None:
        """Writes one batch; it is durable after the next `sync`."""
        assert self._file is not None
        data = build_batch(
            records, crc=crc, seed=self._seed, position=self._position, synced=self._synced
        )
        disk_point("wal.before_write", self._file.path)
        self._file.write_at(self._position, data)
        self._marked = self._synced
        self._position += len(data)
        disk_point("wal.after_write", self._file.path)

    def sync(self) -> None:
        """Makes everything written so far durable."""
        if self._synced < self._position and self._file is not None:
            disk_point("wal.before_sync", self._file.path)
            self._file.datasync()
            self._synced = self._position
            disk_point("wal.after_sync", self._file.path)

    def erase(self, offset: int, size_bytes: int) -> None:
        """Overwrites the unfinished end of the segment with zeros, durably.

        The file keeps its size: grown by a sector, half erased, it would no longer look cut.
        """
        assert self._file is not None
        assert offset >= self._position
        assert offset % SECTOR_BYTES == 0
        self._file.write_at(offset, bytes(min(padded(size_bytes), self._file.size() - offset)))
        self._file.datasync()
        disk_point("wal.tail_erased", self._file.path)

    def refill(self) -> None:
        """Gives a file that was found short its size again, zeros at the end, durably.

        A crash may leave any size between: what the file holds means the same at each of them.
        """
        assert self._file is not None
        for at in range(self._file.size(), self._size, len(_ZERO_PIECE)):
            self._file.write_at(at, _ZERO_PIECE[: self._size - at])
        self._file.datasync()
        disk_point("wal.refilled", self._file.path)

    def remove_older(self, index: int) -> list[Callable[[], None]]:
        """Removes segments, oldest first, that hold no entry behind `index`.

        What is returned gives their space back (`Disk.detach`).
        """
        give_back = []
        disk_point("wal.before_release", self.directory)
        while len(self._segments) > 1 and self._segments[1].first_index - 1 <= index:
            # One by one, so that no crash leaves a hole between those that remain.
            give_back.append(self._disk.detach(self._segments[0].path))
            disk_point("wal.segment_removed", self._segments[0].path)
            del self._segments[0]
        disk_point("wal.after_release", self.directory)
        return give_back

    def remove_all_older(self) -> None:
        """Removes every segment but the newest, which must be one that restarts the log."""
        for segment in self._segments[:-1]:
            self._disk.unlink(segment.path)
        self._disk.sync_dir(self.directory)
        del self._segments[:-1]

    def close(self, crc: int) -> None:
        """Syncs, says in the file that all of it is synced (chain value `crc`), and closes."""
        if self._file is None:
            return
        self.sync()
        if self._marked < self._position and self.has_room(0):
            self.append(b"", crc)
            self.sync()
        self.abandon()
        disk_point("wal.closed", self.directory)

    def abandon(self) -> None:
        """Closes the file as it is."""
        if self._file is not None:
            self._file.close()
            self._file = None
