"""Snapshot files: a store's image with what Raft needs to know of it, checked in every byte.

    magic (8 bytes), frames; a frame is kind (1), length (4), CRC-32C (4), payload
    kind 1   header, msgpack; once, first
    kind 2   a piece of the image
    kind 3   trailer, msgpack [image bytes, pieces]; once, last; nothing follows

A frame's CRC covers its kind, length and payload and is chained to the frame before, so pieces
can neither be lost nor change places. The file grows under the name `….kvs.tmp`; it gets its
name after a sync, the directory is synced, and it counts only once it has been read back from
the medium. The same bytes travel to a follower as they stand.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import google_crc32c
import msgpack

from kvstore.storage.disk import Disk, File, make_directory
from kvstore.storage.errors import SnapshotCorrupt
from kvstore.storage.fault_points import disk_point
from kvstore.storage.limits import (
    SNAPSHOT_CHUNK_BYTES,
    SNAPSHOT_CHUNK_BYTES_MAX,
    SNAPSHOT_SYNC_BYTES,
)
from kvstore.storage.store import EngineInfo, ReadTxn, Store
from raft.types import ConfState

__all__ = (
    "Newest",
    "SnapshotHeader",
    "SnapshotReceiver",
    "SnapshotWriter",
    "content_bytes",
    "extract_to",
    "image",
    "newest_valid",
    "prune",
    "raw_pieces",
    "remove_unfinished",
    "snapshot_name",
    "snapshots",
    "verify",
    "write_snapshot",
)

_FORMAT: Final = 1
_MAGIC: Final = b"KVSNAP\r\n"
_FRAME: Final = struct.Struct(">BII")
_HEADER, _PIECE, _TRAILER = 1, 2, 3
_NAME: Final = re.compile(r"snap-([0-9a-f]{16})-([0-9a-f]{16})\.kvs")
_UNFINISHED: Final = ".tmp"

_extend = google_crc32c.extend


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """What a snapshot is of."""

    index: int
    """Last entry applied to the image."""
    term: int
    conf: ConfState
    cluster_id: int
    engine: EngineInfo


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest snapshot that checks out, and the newer ones that did not."""

    path: Path
    header: SnapshotHeader
    damaged: tuple[SnapshotCorrupt, ...]


def snapshot_name(index: int, term: int) -> str:
    """The file name; names sort by index."""
    return f"snap-{index:016x}-{term:016x}.kvs"


def snapshots(disk: Disk, directory: Path) -> list[Path]:
    """The snapshot files of a directory, newest first; unchecked."""
    return [directory / name for name in reversed(disk.list(directory)) if _NAME.fullmatch(name)]


def write_snapshot(
    disk: Disk,
    directory: Path,
    store: Store,
    describe: Callable[[ReadTxn], SnapshotHeader],
    *,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Makes a snapshot of the store's last committed state; for the copy thread.

    `describe` reads index, term and configuration from the very transaction that is copied, so
    they can never disagree with the image. Raises CopyStopped, DiskFailed or a store's error and
    leaves no file then.
    """
    txn = store.read()
    try:
        with SnapshotWriter(disk, directory, describe(txn)) as writer:
            store.copy_into(txn, writer.write, stop=stop)
            return writer.finish()
    finally:
        txn.close()


class _Pending:
    """A snapshot file that does not count yet; leaving the `with` unfinished removes it."""

    def __init__(self, disk: Disk, directory: Path, name: str) -> None:
        make_directory(disk, directory)
        self._disk = disk
        self._path = directory / name
        self._unfinished = directory / (name + _UNFINISHED)
        disk.unlink(self._unfinished)
        self._file: File | None = disk.create(self._unfinished)
        self._position = 0
        self._synced = 0
        disk_point("snapshot.begun", self._unfinished)

    def __enter__(self) -> _Pending:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._disk.unlink(self._unfinished)

    def _append(self, data: bytes) -> None:
        assert self._file is not None, "the snapshot is finished"
        self._file.write_at(self._position, data)
        self._position += len(data)
        disk_point("snapshot.piece", self._unfinished)
        if self._position - self._synced >= SNAPSHOT_SYNC_BYTES:
            # In small portions, so that the log's own sync never waits behind a gigabyte.
            self._file.datasync()
            self._synced = self._position

    def _publish(self) -> SnapshotHeader:
        """Makes it durable, reads it back, and only then gives it its name, durably."""
        assert self._file is not None, "the snapshot is finished"
        disk_point("snapshot.before_sync", self._unfinished)
        self._file.datasync()
        disk_point("snapshot.after_sync", self._unfinished)
        self._file.close()
        self._file = None
        try:
            header = verify(self._disk, self._unfinished)
            _check_name(self._unfinished, self._path.name, header)
        except SnapshotCorrupt:
            self._disk.unlink(self._unfinished)
            raise
        disk_point("snapshot.read_back", self._unfinished)
        self._disk.rename(self._unfinished, self._path)
        disk_point("snapshot.after_rename", self._path)
        self._disk.sync_dir(self._path.parent)
        disk_point("snapshot.after_dir_sync", self._path)
        return header


class SnapshotWriter(_Pending):
    """Writes a snapshot from a header and the pieces of an image; use it in a `with`."""

    def __init__(self, disk: Disk, directory: Path, header: SnapshotHeader) -> None:
        super().__init__(disk, directory, snapshot_name(header.index, header.term))
        self._chain = 0
        self._buffer = bytearray()
        self._image_bytes = 0
        self._pieces = 0
        self._append(_MAGIC)
        conf = header.conf
        engine = header.engine
        fields = [
            _FORMAT,
            header.index,
            header.term,
            [conf.voters, conf.learners],
            header.cluster_id,
            [engine.name, engine.version, engine.page_bytes],
        ]
        self._frame(_HEADER, msgpack.packb(fields))

    def __enter__(self) -> SnapshotWriter:
        return self

    def write(self, piece: bytes) -> None:
        """Appends to the image."""
        self._buffer += piece
        while len(self._buffer) >= SNAPSHOT_CHUNK_BYTES:
            self._piece(bytes(self._buffer[:SNAPSHOT_CHUNK_BYTES]))
            del self._buffer[:SNAPSHOT_CHUNK_BYTES]

    def finish(self) -> Path:
        """Makes the file durable, reads it back, and gives it its name.

        Raises SnapshotCorrupt if the medium gives back something else, or DiskFailed.
        """
        if self._buffer:
            self._piece(bytes(self._buffer))
            self._buffer.clear()
        self._frame(_TRAILER, msgpack.packb([self._image_bytes, self._pieces]))
        self._publish()
        return self._path

    def _piece(self, piece: bytes) -> None:
        self._frame(_PIECE, piece)
        self._image_bytes += len(piece)
        self._pieces += 1

    def _frame(self, kind: int, payload: bytes) -> None:
        start = _FRAME.pack(kind, len(payload), 0)[:5]
        self._chain = _extend(_extend(self._chain, start), payload)
        self._append(start + self._chain.to_bytes(4, "big"))
        self._append(payload)


class SnapshotReceiver(_Pending):
    """Takes the bytes of a snapshot file that another member sends; use it in a `with`."""

    def __init__(self, disk: Disk, directory: Path, *, index: int, term: int) -> None:
        super().__init__(disk, directory, snapshot_name(index, term))

    def __enter__(self) -> SnapshotReceiver:
        return self

    def write(self, raw: bytes) -> None:
        """Appends the next bytes of the file."""
        self._append(raw)

    def finish(self) -> tuple[Path, SnapshotHeader]:
        """As `SnapshotWriter.finish`; also checks that it is the announced snapshot."""
        header = self._publish()
        return self._path, header


def raw_pieces(disk: Disk, path: Path, size_bytes: int) -> Iterator[bytes]:
    """The bytes of a snapshot file as they stand, in pieces, to send them."""
    file = disk.open(path)
    try:
        offset = 0
        while piece := file.read_at(offset, size_bytes):
            yield piece
            offset += len(piece)
    finally:
        file.close()


def verify(disk: Disk, path: Path) -> SnapshotHeader:
    """Reads all of a snapshot from the medium; raises SnapshotCorrupt unless all is right."""
    frames = _frames(disk, path)
    header = _header(path, next(frames))
    for _ in frames:
        pass
    return header


def content_bytes(disk: Disk, path: Path) -> int:
    """Where the snapshot in this file ends by its frames' lengths, whatever stands behind it.

    Checks nothing else; raises SnapshotCorrupt if the frames lead out of the file.
    """
    file = disk.open(path)
    try:
        if file.read_at(0, len(_MAGIC)) != _MAGIC:
            raise SnapshotCorrupt(path, 0, "this is not a snapshot file")
        position, kind = len(_MAGIC), _HEADER
        while kind != _TRAILER:
            start = file.read_at(position, _FRAME.size)
            if len(start) < _FRAME.size:
                raise SnapshotCorrupt(path, position, "the file ends before its trailer")
            kind, length, _ = _FRAME.unpack(start)
            position += _FRAME.size + length
        return position
    finally:
        file.close()


def image(disk: Disk, path: Path) -> Iterator[bytes]:
    """The image in a snapshot, each piece checked; SnapshotCorrupt may come after many."""
    frames = _frames(disk, path)
    next(frames)
    yield from frames


def extract_to(disk: Disk, path: Path, target: Path) -> SnapshotHeader:
    """Writes the image to `target` (replaced if it exists), durable but for its name.

    Raises SnapshotCorrupt, and removes the target, if anything in the snapshot is wrong.
    """
    disk_point("rebuild.before", target)
    disk.unlink(target)
    file = disk.create(target)
    try:
        frames = _frames(disk, path)
        header = _header(path, next(frames))
        position = synced = 0
        for piece in frames:
            file.write_at(position, piece)
            position += len(piece)
            disk_point("rebuild.piece", target)
            if position - synced >= SNAPSHOT_SYNC_BYTES:
                file.datasync()
                synced = position
        file.datasync()
        disk_point("rebuild.after", target)
    except SnapshotCorrupt:
        disk.unlink(target)
        raise
    finally:
        file.close()
    return header


def newest_valid(disk: Disk, directory: Path) -> Newest | None:
    """The newest snapshot that checks out, read from its first byte to its last.

    None if there is no snapshot at all; SnapshotCorrupt if there are some and none is good.
    """
    damaged: list[SnapshotCorrupt] = []
    for path in snapshots(disk, directory):
        try:
            header = verify(disk, path)
            _check_name(path, path.name, header)
        except SnapshotCorrupt as error:
            damaged.append(error)
        else:
            return Newest(path, header, tuple(damaged))
    if damaged:
        raise damaged[0]
    return None


def prune(disk: Disk, directory: Path, keep: int) -> list[Path]:
    """Removes all but the newest `keep` snapshots; what it removed."""
    assert keep >= 1, keep
    superfluous = snapshots(disk, directory)[keep:]
    for path in superfluous:
        give_back = disk.detach(path)
        disk_point("snapshot.pruned", path)
        give_back()
    return superfluous


def remove_unfinished(disk: Disk, directory: Path) -> None:
    """Removes what an interrupted snapshot left; only at start, before any is being made."""
    for name in disk.list(directory):
        if name.endswith(".kvs" + _UNFINISHED):
            disk.unlink(directory / name)


def _frames(disk: Disk, path: Path) -> Iterator[bytes]:
    """The checked payloads: header first, then the pieces of the image."""
    file = disk.open(path)
    try:
        file.drop_cache()
        yield from _read_frames(file, path)
    finally:
        file.close()


def _read_frames(file: File, path: Path) -> Iterator[bytes]:
    if file.read_at(0, len(_MAGIC)) != _MAGIC:
        raise SnapshotCorrupt(path, 0, "this is not a snapshot file")
    position, chain = len(_MAGIC), 0
    image_bytes = pieces = 0
    expected: tuple[int, ...] = (_HEADER,)
    while True:
        start = file.read_at(position, _FRAME.size)
        if len(start) < _FRAME.size:
            raise SnapshotCorrupt(path, position, "the file ends before its trailer")
        kind, length, crc = _FRAME.unpack(start)
        if kind not in expected or length > SNAPSHOT_CHUNK_BYTES_MAX:
            raise SnapshotCorrupt(path, position, f"a frame of kind {kind}, {length} bytes")
        payload = file.read_at(position + _FRAME.size, length)
        chain = _extend(_extend(chain, start[:5]), payload)
        if len(payload) < length or chain != crc:
            raise SnapshotCorrupt(path, position, "a frame does not match its checksum")
        position += _FRAME.size + length
        if kind == _TRAILER:
            break
        expected = (_PIECE, _TRAILER)
        if kind == _PIECE:
            image_bytes += length
            pieces += 1
        yield payload
    if payload != msgpack.packb([image_bytes, pieces]) or file.size() != position:
        raise SnapshotCorrupt(path, position, "the trailer does not fit what stands before it")


def _check_name(path: Path, name: str, header: SnapshotHeader) -> None:
    if name != snapshot_name(header.index, header.term):
        raise SnapshotCorrupt(
            path, 0, f"it is of entry {header.index}, term {header.term}, and not what {name} says"
        )


def _header(path: Path, payload: bytes) -> SnapshotHeader:
    try:
        version, *fields = msgpack.unpackb(payload, use_list=False)
        if version != _FORMAT:
            raise ValueError(f"format {version}, this program reads {_FORMAT}")
        index, term, (voters, learners), cluster_id, (name, engine_version, page_bytes) = fields
        numbers = (index, term, cluster_id, page_bytes, *voters, *learners)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("a field that is not a number from 0 up")
        if type(name) is not str or type(engine_version) is not str:
            raise ValueError("the engine's name or version is no text")
        engine = EngineInfo(name, engine_version, page_bytes)
        return SnapshotHeader(index, term, ConfState(voters, learners), cluster_id, engine)
    except (ValueError, TypeError) as error:
        raise SnapshotCorrupt(path, len(_MAGIC), f"the header cannot be read: {error}") from None
