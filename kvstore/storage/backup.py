"""Backup files, as `snapshot save` writes them: a snapshot, zeros up to a sector, SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from kvstore.storage.disk import Disk
from kvstore.storage.errors import SnapshotCorrupt
from kvstore.storage.snapshot import SnapshotHeader, content_bytes, snapshot_name, verify

__all__ = ("unwrap",)

_HASH_BYTES: Final = 32
_SECTOR_BYTES: Final = 512
_PIECE_BYTES: Final = 1 << 20


def unwrap(
    disk: Disk, backup: Path, directory: Path, *, check_hash: bool = True
) -> tuple[Path, SnapshotHeader]:
    """Takes the snapshot out of a backup into `directory`, under its own name, and checks it.

    `check_hash` false allows a snapshot file as it stands in a data directory, without padding
    and SHA-256; its own checksums count always. Raises SnapshotCorrupt.
    """
    size = _size(disk, backup)
    wrapped = size % _SECTOR_BYTES == _HASH_BYTES and size > _HASH_BYTES
    if wrapped or check_hash:
        _check(disk, backup, size)
    unfinished = directory / (backup.name + ".part")
    length = content_bytes(disk, backup)
    try:
        _copy(disk, backup, unfinished, min(length, size))
        header = verify(disk, unfinished)
    except SnapshotCorrupt as error:
        disk.unlink(unfinished)
        raise SnapshotCorrupt(backup, error.offset, error.why) from None
    path = directory / snapshot_name(header.index, header.term)
    disk.rename(unfinished, path)
    disk.sync_dir(directory)
    return path, header


def _size(disk: Disk, path: Path) -> int:
    file = disk.open(path)
    try:
        return file.size()
    finally:
        file.close()


def _check(disk: Disk, backup: Path, size: int) -> None:
    if size % _SECTOR_BYTES != _HASH_BYTES:
        raise SnapshotCorrupt(
            backup, size, "it does not end with a SHA-256, so it is no complete backup"
        )
    file = disk.open(backup)
    try:
        digest, position, end = hashlib.sha256(), 0, size - _HASH_BYTES
        while position < end:
            piece = file.read_at(position, min(_PIECE_BYTES, end - position))
            digest.update(piece)
            position += len(piece)
        if file.read_at(end, _HASH_BYTES) != digest.digest():
            raise SnapshotCorrupt(backup, end, "the SHA-256 does not match")
    finally:
        file.close()


def _copy(disk: Disk, source: Path, target: Path, length: int) -> None:
    disk.unlink(target)
    reader, writer = disk.open(source), disk.create(target)
    try:
        position = 0
        while position < length:
            piece = reader.read_at(position, min(_PIECE_BYTES, length - position))
            writer.write_at(position, piece)
            position += len(piece)
        writer.datasync()
    finally:
        reader.close()
        writer.close()
