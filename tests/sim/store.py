"""The store engine of the simulator: `MemoryStore`s that live in files of a virtual disk.

They behave as LMDB's file does under this product's rules. A commit is not synced: it survives
the process, as the page cache does, and after a power loss the file is an older state, a mixture
of two, or rubbish. Damage at rest is noticed at the next read. Opening a file that holds an image
(extracted from a snapshot, or a compact copy) reads it.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kvstore.storage.errors import CopyStopped, StoreCorrupt, StoreFailed, StoreFull
from kvstore.storage.memory_store import MemoryReadTxn, MemoryStore, MemoryWriteTxn
from kvstore.storage.store import TableSpec
from tests.sim.medium import Inode
from tests.sim.prng import Prng
from tests.sim.session import DiskSession

__all__ = ("SimStore", "SimStoreEngine")


class TablesImage:
    """One committed state (see `medium.Image`): the tables, which nobody changes any more."""

    def __init__(self, tables: Mapping[str, Any]) -> None:
        self.tables = tables
        self.size_bytes: int = sum(table.size_bytes for table in tables.values())
        self._fingerprint: bytes | None = None

    def mixed_with(self, older: TablesImage | None, prng: Prng) -> TablesImage:
        if older is None:
            return self
        return TablesImage(
            {
                name: older.tables[name] if prng.chance(1, 2) else table
                for name, table in self.tables.items()
            }
        )

    def fingerprint(self) -> bytes:
        if self._fingerprint is None:
            digest = hashlib.blake2b(digest_size=16)
            for name, table in self.tables.items():
                digest.update(name.encode())
                for block in table.blocks:
                    digest.update(repr((block.keys, block.values)).encode())
            self._fingerprint = digest.digest()
        return self._fingerprint


class SimStore(MemoryStore):
    """A store in a file of the virtual disk."""

    def __init__(
        self, session: DiskSession, path: Path, inode: Inode, tables: Sequence[TableSpec]
    ) -> None:
        super().__init__(tables)
        self._session = session
        self._path = path
        self._inode = inode
        if isinstance(inode.image, TablesImage):
            self._tables = dict(inode.image.tables)
        elif inode.size:
            content = inode.read(0, inode.size)
            self._tables = MemoryStore.from_image(tables, [content])._tables
        inode.image = TablesImage(self._tables)
        if not inode.unsynced and inode.image_synced is None:
            inode.image_synced = inode.image

    @property
    def disk(self) -> DiskSession:
        """The disk that it is on."""
        return self._session

    def read(self) -> MemoryReadTxn:
        self._check_sound()
        return super().read()

    def write(self, *, long: bool = False) -> MemoryWriteTxn:
        self._check_sound()
        return super().write(long=long)

    def commit(self, tables: dict[str, Any]) -> None:
        image = TablesImage(tables)
        try:
            failure = self._session.begin("store commit", self._path)
        finally:
            self._writing = False
        growth = image.size_bytes - self._inode.footprint_bytes()
        if not failure and growth > 0 and growth > self._session.disk.free_bytes():
            failure = errno.ENOSPC
        if failure:
            why = str(self._session.fail("store commit", self._path, failure))
            if failure == errno.ENOSPC:
                raise StoreFull(self._path, why)
            raise StoreFailed(self._path, "committing", why)
        super().commit(tables)
        self._inode.image = image
        self._session.finish("store commit", self._path)

    def sync(self) -> None:
        super().sync()
        if failure := self._session.begin("store sync", self._path):
            why = str(self._session.fail("store sync", self._path, failure))
            raise StoreFailed(self._path, "syncing", why)
        self._inode.image_synced = self._inode.image
        self._session.finish("store sync", self._path)

    def copy_to(self, path: Path, *, stop: Callable[[], bool] = lambda: False) -> None:
        txn = self.read()
        file = self._session.create(path)
        position = 0

        def append(piece: bytes) -> None:
            nonlocal position
            file.write_at(position, piece)
            position += len(piece)

        try:
            self.copy_into(txn, append, stop=stop)
            file.datasync()
        except CopyStopped:
            self._session.unlink(path)
            raise CopyStopped(path) from None
        finally:
            txn.close()
            file.close()

    def _check_sound(self) -> None:
        self._session.check()
        if self._inode.image_damaged:
            raise StoreCorrupt(self._path, "a record", "its checksum is wrong")


class SimStoreEngine:
    """Opens stores for one process."""

    def __init__(self, session: DiskSession) -> None:
        self._session = session

    def open(self, path: Path, tables: Sequence[TableSpec], quota_bytes: int = 0) -> SimStore:
        """Opens the store, or creates it; StoreCorrupt if the file holds none.

        Nothing here grows with the quota, as LMDB's map does.
        """
        self._session.check()
        names = self._session.disk.names
        inode = names.find(path)
        if inode is None:
            self._session.create(path)
            inode = names.find(path)
            assert inode is not None
        if inode.image_damaged:
            raise StoreCorrupt(path, "its page structure", "not a page of a store")
        return SimStore(self._session, path, inode, tables)
