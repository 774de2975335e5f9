"""The file seam: what the log and the snapshot files need of a disk, and the real one.

Rules every implementation keeps: a call that returns has happened in full; a call that raises
DiskFailed ends all trust in the file. Data is durable after `File.datasync`; that a name exists,
is gone or has moved is durable after `Disk.sync_dir` of its directory. A file that `create`
made has its whole size from the start and reads as zeros.

A disk has one queue. What is read, written or freed in bulk goes through `Disk.gently`, in small
pieces with a rest after each, or the log's next sync waits behind all of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from kvstore.storage.errors import DiskFailed
from kvstore.storage.limits import GENTLE_FREE_BYTES, GENTLE_READ_BYTES, GENTLE_WRITE_BYTES
from kvstore.storage.pace import rest_after

__all__ = ("Disk", "File", "GentleDisk", "GentleFile", "OsDisk", "OsFile", "make_directory")

_NOT_OURS: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL)
"""Why a directory may refuse a sync in which this program cannot have made anything."""


class File(Protocol):
    """One open file."""

    path: Path

    def size(self) -> int:
        """Its length in bytes."""

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """The bytes there; fewer than asked for only at the end of the file."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Writes all of `data`; the file grows if need be."""

    def datasync(self) -> None:
        """Returns when everything written before is durable (and the size with it)."""

    def drop_cache(self) -> None:
        """Asks that the next read comes from the medium, not from memory; may do nothing."""

    def close(self) -> None:
        """Releases the file. Idempotent; says nothing about durability."""


class Disk(Protocol):
    """A file system. Paths are absolute or relative to the process, as the caller likes."""

    def create(self, path: Path, size_bytes: int = 0) -> File:
        """A new file of `size_bytes` zeros, open for writing; FileExistsError if there is one."""

    def open(self, path: Path, *, writable: bool = False) -> File:
        """An existing file; FileNotFoundError if there is none."""

    def exists(self, path: Path) -> bool:
        """Whether a file or directory has this name."""

    def list(self, directory: Path) -> list[str]:
        """The names in a directory, sorted; empty if there is no such directory."""

    def make_dir(self, path: Path) -> None:
        """Creates one directory for its owner alone; nothing if it exists."""

    def rename(self, source: Path, target: Path) -> None:
        """Moves a file over whatever has the target's name, atomically."""

    def unlink(self, path: Path) -> None:
        """Removes a file; nothing if there is none."""

    def detach(self, path: Path) -> Callable[[], None]:
        """Removes a file, durably; what this returns gives its space back, slowly.

        To be called once, at any time, from any thread. Nothing if there is no file.
        """

    def sync_dir(self, path: Path) -> None:
        """Returns when all creations, renames and removals in the directory are durable."""

    def free_bytes(self, path: Path) -> int:
        """Space left for this process on the file system that holds `path`."""

    @property
    def gently(self) -> Disk:
        """The same disk for work in bulk: slower, and in nobody's way."""


def make_directory(disk: Disk, path: Path) -> None:
    """Creates a directory and its missing parents, durably."""
    missing = []
    while not disk.exists(path):
        missing.append(path)
        path = path.parent
    # The last one that is there may be the work of a process that died before it synced the name.
    try:
        disk.sync_dir(path.parent)
    except DiskFailed as error:
        if error.errno not in _NOT_OURS:
            raise
    for directory in reversed(missing):
        disk.make_dir(directory)
        disk.sync_dir(directory.parent)


class OsFile:
    """A file of the operating system, by descriptor."""

    __slots__ = ("_fd", "_sync", "path")

    def __init__(self, path: Path, fd: int, *, sync: bool = True) -> None:
        self.path = path
        self._fd = fd
        self._sync = sync

    def size(self) -> int:
        try:
            return os.fstat(self._fd).st_size
        except OSError as error:
            raise _failed("fstat", self.path, error) from error

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        pieces = []
        try:
            while size_bytes > 0:
                piece = os.pread(self._fd, size_bytes, offset)
                if not piece:
                    break
                pieces.append(piece)
                offset += len(piece)
                size_bytes -= len(piece)
        except OSError as error:
            raise _failed(f"reading at byte {offset}", self.path, error) from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write_at(self, offset: int, data: bytes) -> None:
        try:
            written = os.pwrite(self._fd, data, offset)
            while written < len(data):  # a signal, or a size beyond what one call takes
                more = os.pwrite(self._fd, memoryview(data)[written:], offset + written)
                if more == 0:
                    raise OSError(errno.EIO, "nothing was written")
                written += more
        except OSError as error:
            raise _failed(
                f"writing {len(data)} bytes at byte {offset}", self.path, error
            ) from error

    def datasync(self) -> None:
        if not self._sync:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise _failed("fdatasync", self.path, error) from error

    def drop_cache(self) -> None:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class GentleFile(OsFile):
    """The same in small pieces, each followed by as long a rest; what is written is synced."""

    __slots__ = ("_unsynced",)

    def __init__(self, path: Path, fd: int, *, sync: bool = True) -> None:
        super().__init__(path, fd, sync=sync)
        self._unsynced = 0
        if hasattr(os, "posix_fadvise"):
            # Reading ahead may be megabytes at once.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        pieces = []
        for at in range(offset, offset + size_bytes, GENTLE_READ_BYTES):
            wanted = min(GENTLE_READ_BYTES, offset + size_bytes - at)
            with rest_after():
                pieces.append(super().read_at(at, wanted))
            if len(pieces[-1]) < wanted:
                break
        return b"".join(pieces)

    def write_at(self, offset: int, data: bytes) -> None:
        for at in range(0, len(data), GENTLE_WRITE_BYTES):
            piece = data[at : at + GENTLE_WRITE_BYTES]
            super().write_at(offset + at, piece)
            self._unsynced += len(piece)
            if self._unsynced >= GENTLE_WRITE_BYTES:
                with rest_after():
                    self.datasync()
                self._unsynced = 0

    def give_back(self) -> None:
        """Cuts a file that is no longer wanted down to nothing, from its end, and closes it."""
        try:
            self._shrink()
        finally:
            self.close()

    def _shrink(self) -> None:
        for size in range(self.size() - GENTLE_FREE_BYTES, 0, -GENTLE_FREE_BYTES):
            with rest_after():
                try:
                    os.ftruncate(self._fd, size)
                except OSError as error:
                    raise _failed(f"cutting it to {size} bytes", self.path, error) from error
                self.datasync()


class OsDisk:
    """The operating system's files.

    `sync=False` is `--unsafe-no-fsync`: nothing is durable, for tests and throw-away clusters.
    """

    _file: type[OsFile] = OsFile

    def __init__(self, *, sync: bool = True) -> None:
        self._sync = sync

    @property
    def gently(self) -> Disk:
        return GentleDisk(sync=self._sync)

    def create(self, path: Path, size_bytes: int = 0) -> File:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError:
            raise
        except OSError as error:
            raise _failed("creating the file", path, error) from error
        try:
            _reserve(fd, size_bytes)
        except OSError as error:
            os.close(fd)
            raise _failed(f"reserving {size_bytes} bytes", path, error) from error
        return self._file(path, fd, sync=self._sync)

    def open(self, path: Path, *, writable: bool = False) -> File:
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
        try:
            return self._file(path, os.open(path, flags), sync=self._sync)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _failed("opening the file", path, error) from error

    def exists(self, path: Path) -> bool:
        return path.exists()

    def list(self, directory: Path) -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _failed("listing the directory", directory, error) from error

    def make_dir(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _failed("creating the directory", path, error) from error

    def rename(self, source: Path, target: Path) -> None:
        try:
            source.replace(target)
        except OSError as error:
            raise _failed(f"renaming to {target}", source, error) from error

    def unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _failed("removing the file", path, error) from error

    def detach(self, path: Path) -> Callable[[], None]:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return lambda: None
        except OSError as error:
            raise _failed("opening the file", path, error) from error
        file = GentleFile(path, fd, sync=self._sync)
        try:
            # First the name, and durably: a file that a power loss brings back is a whole one.
            self.unlink(path)
            self.sync_dir(path.parent)
        except DiskFailed:
            file.close()
            raise
        return file.give_back

    def sync_dir(self, path: Path) -> None:
        if not self._sync:
            return
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise _failed("syncing the directory", path, error) from error

    def free_bytes(self, path: Path) -> int:
        try:
            stats = os.statvfs(path)
        except OSError as error:
            raise _failed("asking for free space", path, error) from error
        return stats.f_bavail * stats.f_frsize


class GentleDisk(OsDisk):
    """Files that are read and written gently."""

    _file = GentleFile


def _reserve(fd: int, size_bytes: int) -> None:
    """Gives a new file its size and its blocks.

    Reserved at once, a full disk shows here and not in the middle of a batch, and a later
    fdatasync has no new size to write.
    """
    if not size_bytes:
        return
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        piece = bytes(1024**2)
        for offset in range(0, size_bytes, len(piece)):
            os.pwrite(fd, piece[: size_bytes - offset], offset)


def _failed(action: str, path: Path, error: OSError) -> DiskFailed:
    why = error.strerror or str(error)
    return DiskFailed(action, path, why, errno=error.errno or 0)
