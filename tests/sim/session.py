"""The virtual disk as one process sees it, and as nothing but its durable part."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kvstore.storage.disk import Disk, File
from kvstore.storage.errors import DiskFailed
from kvstore.storage.limits import SECTOR_BYTES
from tests.sim.medium import Inode

if TYPE_CHECKING:
    from tests.sim.disk import Hook, VirtualDisk

__all__ = ("DiskSession", "DurableView", "ProcessDied", "SimFile")


class ProcessDied(BaseException):
    """The process that makes this call is dead; not an Exception, so nothing swallows it."""


class DiskSession:
    """The disk as one process uses it (see `kvstore.storage.disk.Disk`)."""

    def __init__(self, disk: VirtualDisk) -> None:
        self.disk = disk
        self.ended = False

    def end(self) -> None:
        """The process is dead."""
        self.ended = True

    def _call(self, hook: Hook, kind: str, path: Path) -> None:
        try:
            hook(kind, path)
        except ProcessDied:
            self.ended = True  # nothing that unwinds from here reaches the disk
            raise

    def check(self) -> None:
        """Raises ProcessDied if the process is dead."""
        if self.ended:
            raise ProcessDied

    def begin(self, kind: str, path: Path, size_bytes: int = 0) -> int:
        """Before an operation that changes something; the errno it is to fail with, or 0."""
        if self.ended:
            raise ProcessDied
        disk = self.disk
        disk.operations += 1
        disk.spend(kind, size_bytes)
        if disk.on_operation is not None:
            self._call(disk.on_operation, kind, path)
        return disk.failure_of(kind, path)

    def finish(self, kind: str, path: Path) -> None:
        """After it."""
        if self.disk.after_operation is not None:
            self._call(self.disk.after_operation, kind, path)

    def fail(self, kind: str, path: Path, number: int) -> DiskFailed:
        """The error that the process sees."""
        what = "out of space" if number == errno.ENOSPC else "EIO"
        self.disk.fired[f"{kind}: {what}"] += 1
        return DiskFailed(kind, path, f"made to fail: {errno.errorcode[number]}", errno=number)

    def create(self, path: Path, size_bytes: int = 0) -> File:
        failure = self.begin("create", path)
        if self.disk.names.exists(path):
            raise FileExistsError(errno.EEXIST, "the file exists", str(path))
        if not failure and size_bytes > self.disk.free_bytes():
            failure = errno.ENOSPC
        if failure:
            raise self.fail("create", path, failure)
        inode = self.disk.new_inode(size_bytes)
        self.disk.names.link(path, inode)
        self.finish("create", path)
        return SimFile(self, path, inode)

    def open(self, path: Path, *, writable: bool = False) -> File:
        self.check()
        inode = self.disk.names.find(path)
        if inode is None:
            raise FileNotFoundError(path)
        return SimFile(self, path, inode)

    @property
    def gently(self) -> DiskSession:
        return self

    def detach(self, path: Path) -> Callable[[], None]:
        self.unlink(path)
        self.sync_dir(path.parent)
        return lambda: None

    def exists(self, path: Path) -> bool:
        self.check()
        return self.disk.names.exists(path)

    def list(self, directory: Path) -> list[str]:
        self.check()
        return self.disk.names.list(directory)

    def make_dir(self, path: Path) -> None:
        if self.exists(path):
            return
        if failure := self.begin("make dir", path):
            raise self.fail("make dir", path, failure)
        self.disk.names.link(path, None)
        self.finish("make dir", path)

    def rename(self, source: Path, target: Path) -> None:
        failure = self.begin("rename", source)
        if not failure and self.disk.names.find(source) is None:
            failure = errno.ENOENT
        if failure:
            raise self.fail("rename", source, failure)
        self.disk.names.rename(source, target)
        self.finish("rename", source)

    def unlink(self, path: Path) -> None:
        self.check()
        if self.disk.names.find(path) is None:
            return
        if failure := self.begin("unlink", path):
            raise self.fail("unlink", path, failure)
        self.disk.names.unlink(path)
        self.finish("unlink", path)

    def sync_dir(self, path: Path) -> None:
        if failure := self.begin("sync dir", path):
            raise self.fail("sync dir", path, failure)
        self.disk.names.sync(path)
        self.disk.durable_changes += 1
        self.finish("sync dir", path)

    def free_bytes(self, path: Path) -> int:
        self.check()
        return self.disk.free_bytes()


class SimFile:
    """An open file of a session (see `kvstore.storage.disk.File`)."""

    __slots__ = ("_disk", "_inode", "_session", "path")

    def __init__(self, session: DiskSession, path: Path, inode: Inode) -> None:
        self.path = path
        self._session = session
        self._disk = session.disk
        self._inode = inode

    def size(self) -> int:
        self._session.check()
        return self._inode.size

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        self._session.check()
        self._disk.spend("read", size_bytes)
        if failure := self._disk.failure_of("read", self.path):
            raise self._session.fail("read", self.path, failure)
        return self._inode.read(offset, size_bytes)

    def write_at(self, offset: int, data: bytes) -> None:
        failure = self._session.begin("write", self.path, len(data))
        inode, disk = self._inode, self._disk
        data = bytes(data)
        growth = offset + len(data) - inode.size
        if not failure and growth > 0 and growth > disk.free_bytes():
            failure = errno.ENOSPC
        if failure:
            # A failed write may have got some of the way, to the end of any sector.
            sectors = disk.prng.below(len(data) // SECTOR_BYTES + 1)
            if sectors and failure != errno.ENOSPC:
                disk.fired["write cut short"] += 1
                inode.write(offset, data[: sectors * SECTOR_BYTES])
            raise self._session.fail("write", self.path, failure)
        inode.write(offset, data)
        self._session.finish("write", self.path)

    def datasync(self) -> None:
        failure = self._session.begin("sync", self.path)
        disk = self._disk
        disk.durable_changes += 1
        if failure:
            self._inode.sync_failed(disk.prng)
            raise self._session.fail("sync", self.path, failure)
        if not self._inode.sync():
            disk.fired["sync: pretended success"] += 1
        self._session.finish("sync", self.path)

    def drop_cache(self) -> None:
        self._session.check()
        if self._inode.drop_cache():
            self._disk.fired["lies dropped from the cache"] += 1

    def close(self) -> None:
        pass


class DurableView:
    """The durable part of a disk, to be read only: a `Disk` whose other methods fail."""

    def __init__(self, disk: VirtualDisk) -> None:
        self._disk = disk

    def open(self, path: Path, *, writable: bool = False) -> File:
        inode = self._disk.names.find(path, durable=True)
        if inode is None:
            raise FileNotFoundError(path)
        assert not writable, "a view"
        return _DurableFile(path, inode)

    def exists(self, path: Path) -> bool:
        return self._disk.names.exists(path, durable=True)

    def list(self, directory: Path) -> list[str]:
        return self._disk.names.list(directory, durable=True)

    @property
    def gently(self) -> Disk:
        raise AssertionError("a view")

    def detach(self, path: Path) -> Callable[[], None]:
        raise AssertionError("a view")

    def create(self, path: Path, size_bytes: int = 0) -> File:
        raise AssertionError("a view")

    def make_dir(self, path: Path) -> None:
        raise AssertionError("a view")

    def rename(self, source: Path, target: Path) -> None:
        raise AssertionError("a view")

    def unlink(self, path: Path) -> None:
        raise AssertionError("a view")

    def sync_dir(self, path: Path) -> None:
        raise AssertionError("a view")

    def free_bytes(self, path: Path) -> int:
        return 0


class _DurableFile:
    __slots__ = ("_inode", "path")

    def __init__(self, path: Path, inode: Inode) -> None:
        self.path = path
        self._inode = inode

    def size(self) -> int:
        return self._inode.medium_size

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        return self._inode.read(offset, size_bytes, durable=True)

    def write_at(self, offset: int, data: bytes) -> None:
        raise AssertionError("a view")

    def datasync(self) -> None:
        """There is nothing that is not durable."""

    def drop_cache(self) -> None:
        """There is no cache."""

    def close(self) -> None:
        """Nothing is open."""
