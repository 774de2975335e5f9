"""A disk in memory that loses what was not synced, tears writes, and fails when told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kvstore.storage.disk import File
from kvstore.storage.errors import DiskFailed

SECTOR_BYTES = 512

T = TypeVar("T")

Choose = Callable[[int], int]
"""n → one of 0..n-1."""


class Crashed(BaseException):
    """The machine stopped; not an Exception, so that no code under test can swallow it."""


class _Inode:
    def __init__(self, size_bytes: int) -> None:
        self.durable = bytearray()
        self.content = bytearray(size_bytes)
        self.unsynced: list[tuple[int, bytes]] = [(0, bytes(size_bytes))]


class FakeFile:
    def __init__(self, disk: FakeDisk, path: Path, inode: _Inode) -> None:
        self.path = path
        self._disk = disk
        self._inode = inode

    def size(self) -> int:
        return len(self._inode.content)

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        return bytes(self._inode.content[offset : offset + size_bytes])

    def write_at(self, offset: int, data: bytes) -> None:
        self._disk.step("write", self.path)
        content = self._inode.content
        if len(content) < offset + len(data):
            content.extend(bytes(offset + len(data) - len(content)))
        content[offset : offset + len(data)] = data
        self._inode.unsynced.append((offset, data))

    def datasync(self) -> None:
        self._disk.step("datasync", self.path)
        self._inode.durable[:] = self._inode.content
        self._inode.unsynced.clear()

    def drop_cache(self) -> None:
        pass

    def close(self) -> None:
        pass


class FakeDisk:
    """Implements `Disk`; `crash` leaves a possible state of the medium after a power loss."""

    def __init__(self) -> None:
        self._names: dict[Path, _Inode] = {}
        self._durable_names: dict[Path, _Inode] = {}
        self._unsynced_names: list[tuple[str, Path, Path | None, _Inode | None]] = []
        self._directories: set[Path] = {Path("/")}
        self.steps = 0
        self.crash_at = -1
        """The step (write, sync, create, …) before which the machine stops."""
        self.fail_at = -1
        """The step that fails with DiskFailed."""

    def step(self, action: str, path: Path) -> None:
        if self.steps == self.crash_at:
            raise Crashed
        self.steps += 1
        if self.steps - 1 == self.fail_at:
            raise DiskFailed(action, path, "made to fail")

    def create(self, path: Path, size_bytes: int = 0) -> File:
        self.step("create", path)
        if path in self._names:
            raise FileExistsError(path)
        inode = _Inode(size_bytes)
        self._change("create", path, None, inode)
        return FakeFile(self, path, inode)

    def open(self, path: Path, *, writable: bool = False) -> File:
        if path not in self._names:
            raise FileNotFoundError(path)
        return FakeFile(self, path, self._names[path])

    @property
    def gently(self) -> FakeDisk:
        return self

    def detach(self, path: Path) -> Callable[[], None]:
        self.unlink(path)
        self.sync_dir(path.parent)
        return lambda: None

    def exists(self, path: Path) -> bool:
        return path in self._names or path in self._directories

    def list(self, directory: Path) -> list[str]:
        return sorted(path.name for path in self._names if path.parent == directory)

    def make_dir(self, path: Path) -> None:
        self._directories.add(path)

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename", source)
        self._change("rename", source, target, None)

    def unlink(self, path: Path) -> None:
        if path in self._names:
            self.step("unlink", path)
            self._change("unlink", path, None, None)

    def sync_dir(self, path: Path) -> None:
        self.step("sync_dir", path)
        self._durable_names = dict(self._names)
        self._unsynced_names.clear()

    def free_bytes(self, path: Path) -> int:
        return 1 << 40

    def content(self, path: Path) -> bytearray:
        """What a file holds, to damage it."""
        return self._names[path].content

    def resize(self, path: Path, size_bytes: int) -> None:
        """Cuts a file short, or appends zeros."""
        content = self._names[path].content
        del content[size_bytes:]
        content.extend(bytes(size_bytes - len(content)))

    def crash(self, choose: Choose) -> None:
        """Loses what was not synced: all, nothing, a prefix, or any sectors of any writes."""
        self.crash_at = self.fail_at = -1
        names = dict(self._durable_names)
        for change in _kept(self._unsynced_names, choose):
            _apply(names, *change)
        for inode in {id(inode): inode for inode in names.values()}.values():
            for offset, data in _kept(inode.unsynced, choose):
                _write_some_sectors(inode.durable, offset, data, choose)
            inode.unsynced.clear()
            inode.content = bytearray(inode.durable)
        self._names = names
        self._durable_names = dict(names)
        self._unsynced_names.clear()

    def _change(self, kind: str, path: Path, target: Path | None, inode: _Inode | None) -> None:
        change = (kind, path, target, inode)
        _apply(self._names, *change)
        self._unsynced_names.append(change)


def _kept(unsynced: list[T], choose: Choose) -> list[T]:
    """Which unsynced operations reached the medium; the order among those is kept."""
    how = choose(4)
    if how == 0:
        return []
    if how == 1:
        return unsynced
    if how == 2:
        return unsynced[: choose(len(unsynced) + 1)]
    return [each for each in unsynced if choose(2)]


def _apply(
    names: dict[Path, _Inode], kind: str, path: Path, target: Path | None, inode: _Inode | None
) -> None:
    if kind == "create" and inode is not None:
        names[path] = inode
    elif kind == "unlink":
        names.pop(path, None)
    elif kind == "rename" and target is not None and path in names:
        names[target] = names.pop(path)


def _write_some_sectors(durable: bytearray, offset: int, data: bytes, choose: Choose) -> None:
    """A write of which all, or only some sectors, reached the medium."""
    if len(durable) < offset + len(data):
        durable.extend(bytes(offset + len(data) - len(durable)))
    whole = choose(2) == 0
    at = 0
    while at < len(data):
        size = min(SECTOR_BYTES - (offset + at) % SECTOR_BYTES, len(data) - at)
        if whole or choose(2) == 0:
            durable[offset + at : offset + at + size] = data[at : at + size]
        at += size
