"""Checking a snapshot stream: complete, and with the checksum that ends it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias

from kvstore.client.errors import SnapshotCorruptError
from kvstore.client.values import SnapshotInfo

__all__ = ("SNAPSHOT_PATH", "SnapshotCheck", "SnapshotTarget", "Target")

Target: TypeAlias = str | Path | BinaryIO
"""Where a snapshot goes: a path, or an open binary file."""

SNAPSHOT_PATH = "/etcdserverpb.Maintenance/Snapshot"

_HASH_BYTES = 32
_SECTOR_BYTES = 512


class SnapshotCheck:
    """Takes the pieces in order; the last 32 bytes are the SHA-256 of all before them."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._tail = b""
        self._version = ""
        self._remaining = -1
        self.received_bytes = 0

    def feed(self, message: Any) -> tuple[bytes, int]:
        """A SnapshotResponse; returns its bytes, and how many the server says are still to come."""
        blob: bytes = message.blob
        self.received_bytes += len(blob)
        self._remaining = message.remaining_bytes
        self._version = message.version or self._version
        data = self._tail + blob
        self._tail = data[-_HASH_BYTES:]
        self._hash.update(memoryview(data)[: -len(self._tail) or None])
        return blob, message.remaining_bytes

    def finish(self) -> SnapshotInfo:
        """The stream ended well; raises SnapshotCorruptError unless it was whole and right."""
        if self._remaining != 0 or self.received_bytes % _SECTOR_BYTES != _HASH_BYTES:
            raise SnapshotCorruptError(
                f"the snapshot ended after {self.received_bytes} bytes and is not complete;"
                " take it again"
            )
        if self._hash.digest() != self._tail:
            raise SnapshotCorruptError(
                f"the snapshot of {self.received_bytes} bytes does not match its checksum;"
                " take it again"
            )
        return SnapshotInfo(self.received_bytes, self._version, self._tail.hex())


class SnapshotTarget:
    """Where the bytes go. A path gets its file only when the snapshot is complete and on disk."""

    def __init__(self, target: Target) -> None:
        self._path = Path(target) if isinstance(target, (str, Path)) else None
        self._part = Path(f"{self._path}.part")
        self._file = target if not isinstance(target, (str, Path)) else self._part.open("wb")

    def write(self, blob: bytes) -> None:
        self._file.write(blob)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._path is None:
            return
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)
