"""The store of a server: one LMDB file.

Rules: never `writemap` (a full disk would be a SIGBUS); commits do not sync (the log and the
snapshots are the durable truth); the map is far larger than the quota, sparse; a copy uses the
compacting form, through a pipe, in the copy thread, and closing waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NoReturn, cast

import lmdb

from kvstore.storage.errors import CopyStopped, StorageError, StoreCorrupt, StoreFailed, StoreFull
from kvstore.storage.fault_points import store_point
from kvstore.storage.limits import (
    COPY_CHUNK_BYTES,
    COPY_PAUSE_S,
    MAP_BYTES_MIN,
    MAP_QUOTA_FACTOR,
    READERS_MAX,
    SPARE_TXNS,
)
from kvstore.storage.lmdb_txn import LmdbLongTxn, LmdbReadTxn, LmdbTable, LmdbWriteTxn
from kvstore.storage.sealed import table_seed
from kvstore.storage.store import EngineInfo, ReadTxn, TableSpec

__all__ = ("LmdbStore", "tail_name")

_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.PanicError,
)
_LOW_SPACE_BYTES: Final = 16 * 1024**2
"""With less than this free, a failed commit is taken for a full disk: LMDB says only EIO."""
_META_PAGES: Final = 2
_TABLE_FLAGS_END: Final = 6
"""LMDB's record of a table begins with padding and the flags that say how its keys are ordered:
all zeros for ours."""


def tail_name(table: str) -> str:
    """The database that holds what is behind the first segment of a table's long keys."""
    return f"{table}/tail"


class LmdbStore:
    """An open LMDB file (see `store.Store`). `<path>-lock` stands beside it."""

    def __init__(
        self,
        path: Path,
        tables: Sequence[TableSpec],
        *,
        quota_bytes: int = 0,
        map_bytes: int | None = None,
        read_only: bool = False,
    ) -> None:
        """Opens the file, or creates it. Raises StoreCorrupt or StoreFailed.

        `map_bytes` replaces the map size that follows from the quota (tests of a full store).
        """
        self._path = path
        self._writing = False
        self._copies = 0
        self._copies_changed = threading.Condition()
        self._closed = False
        self._long_thread: ThreadPoolExecutor | None = None
        if map_bytes is None:
            map_bytes = max(MAP_QUOTA_FACTOR * quota_bytes, MAP_BYTES_MIN)
        store_point("store.before_open", path)
        try:
            self._env = lmdb.open(
                str(path),
                subdir=False,
                map_size=map_bytes,
                max_dbs=2 * len(tables) + 1,
                max_readers=READERS_MAX,
                max_spare_txns=SPARE_TXNS,
                sync=False,
                writemap=False,
                readonly=read_only,
                lock=not read_only,
                create=not read_only,
                mode=0o600,
            )
        except lmdb.Error as error:
            self._fail("opening", error)
        self._page_bytes: int = self._env.stat()["psize"]
        self._size_bytes = 0
        """As of the last commit, for every put asks; 0: look again."""
        self._refuse_short()
        try:
            self._tables = self._open_tables(tables, read_only)
        except lmdb.Error as error:
            self._env.close()
            self._fail("opening", error)
        except StoreCorrupt:
            self._env.close()
            raise
        store_point("store.after_open", path)

    def _refuse_short(self) -> None:
        """Raises StoreCorrupt if the file ends before the last page that it says it has.

        It is mapped: reading behind its end would be a SIGBUS, at this start and at each one
        after it. A process that was killed may leave a sound file short, if its last pages were
        free and never written; that is rare, and the store is only rebuilt then.
        """
        size_bytes, there_bytes = self.size_bytes(), self._path.stat().st_size
        if there_bytes < size_bytes:
            self._env.close()
            why = f"the file has {there_bytes} bytes of {size_bytes}"
            raise StoreCorrupt(self._path, "its page structure", why)

    def _fill_up(self) -> None:
        """Gives the file its whole length, should its last pages never have been written."""
        size_bytes = self.size_bytes()
        if self._path.stat().st_size < size_bytes:
            os.truncate(self._path, size_bytes)

    def _open_tables(self, tables: Sequence[TableSpec], read_only: bool) -> dict[str, LmdbTable]:
        # In one transaction: there are all tables, or none.
        with self._env.begin(write=not read_only) as txn:
            self._check_tables(tables, txn)
            return {spec.name: self._open_table(spec, txn, not read_only) for spec in tables}

    def _check_tables(self, tables: Sequence[TableSpec], txn: lmdb.Transaction) -> None:
        """LMDB keeps the tables in one without a name, and nothing there has a checksum.

        It would make a table anew whose name is damaged, and everything in it would be gone.
        """
        found = {bytes(name): bytes(record) for name, record in txn.cursor()}
        names = {spec.name for spec in tables}
        names |= {tail_name(spec.name) for spec in tables if spec.long_keys}
        wanted = {name.encode() for name in names}
        if found and set(found) != wanted:
            differing = ", ".join(repr(name) for name in sorted(set(found) ^ wanted))
            raise StoreCorrupt(self._path, "its table names", f"missing or unknown: {differing}")
        for name, record in found.items():
            if record[:_TABLE_FLAGS_END].strip(b"\0"):
                raise StoreCorrupt(self._path, f"the record of table {name!r}", "its flags are set")

    def _open_table(self, spec: TableSpec, txn: lmdb.Transaction, create: bool) -> LmdbTable:
        tail = None
        root = self._env.open_db(spec.name.encode(), txn, create=create)
        if spec.long_keys:
            tail = self._env.open_db(tail_name(spec.name).encode(), txn, create=create)
        return LmdbTable(
            name=spec.name,
            path=str(self._path),
            root=root,
            seed=table_seed(spec.name),
            tail=tail,
            tail_seed=table_seed(tail_name(spec.name)),
        )

    @property
    def engine(self) -> EngineInfo:
        """Which engine wrote the file, for the header of a snapshot."""
        version = ".".join(str(part) for part in lmdb.version())
        return EngineInfo("lmdb", version, self._page_bytes)

    def read(self) -> LmdbReadTxn:
        try:
            return LmdbReadTxn(self._env.begin(), self._tables, self._fail)
        except lmdb.Error as error:
            self._fail("beginning a read", error)

    def write(self, *, long: bool = False) -> LmdbWriteTxn:
        assert not self._writing, "a write transaction is already open"
        thread = self._long_writer() if long else None
        try:
            if thread is None:
                raw = self._env.begin(write=True)
            else:
                raw = thread.submit(self._env.begin, write=True).result()
        except lmdb.Error as error:
            self._fail("beginning a write", error)
        self._writing = True
        if thread is None:
            return LmdbWriteTxn(raw, self._tables, self._fail, self._write_ended)
        return LmdbLongTxn(raw, self._tables, self._fail, self._write_ended, thread)

    def _long_writer(self) -> ThreadPoolExecutor:
        """The thread that begins and ends long transactions; most stores never need it."""
        if self._long_thread is None:
            self._long_thread = ThreadPoolExecutor(1, "lmdb-commit")
        return self._long_thread

    def size_bytes(self) -> int:
        if not self._size_bytes:
            self._size_bytes = (int(self._env.info()["last_pgno"]) + 1) * self._page_bytes
        return self._size_bytes

    def size_in_use_bytes(self) -> int:
        pages = _META_PAGES + _pages(self._env.stat())
        txn = self._env.begin()
        try:
            for table in self._tables.values():
                pages += _pages(txn.stat(table.root))
                if table.tail is not None:
                    pages += _pages(txn.stat(table.tail))
        finally:
            txn.abort()
        return pages * self._page_bytes

    def sync(self) -> None:
        store_point("store.before_final_sync", self._path)
        try:
            self._fill_up()
            self._env.sync(True)
        except lmdb.Error as error:
            self._fail("syncing", error)
        except OSError as error:
            raise StoreFailed(self._path, "syncing", str(error)) from error
        store_point("store.after_final_sync", self._path)

    def copy_to(self, path: Path, *, stop: Callable[[], bool] = lambda: False) -> None:
        store_point("store.before_copy", path)
        txn = self.read()
        try:
            with open(path, "xb", buffering=0, opener=_private) as file:  # noqa: SIM117
                with contextlib.ExitStack() as undo:
                    undo.callback(path.unlink, missing_ok=True)
                    self.copy_into(txn, lambda piece: _write_all(file.fileno(), piece), stop=stop)
                    os.fdatasync(file.fileno())
                    store_point("store.after_copy", path)
                    undo.pop_all()
        except CopyStopped:
            raise CopyStopped(path) from None
        except OSError as error:
            raise StoreFailed(self._path, f"copying to {path}", str(error)) from error
        finally:
            txn.close()

    def copy_into(
        self,
        txn: ReadTxn,
        write: Callable[[bytes], object],
        *,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        assert isinstance(txn, LmdbReadTxn)
        with self._copies_changed:
            if self._closed:
                raise StoreFailed(self._path, "copying", "the store is closed")
            self._copies += 1
        try:
            self._copy(txn, write, stop)
        finally:
            with self._copies_changed:
                self._copies -= 1
                self._copies_changed.notify_all()

    def close(self) -> None:
        with self._copies_changed:
            self._closed = True
            while self._copies:
                self._copies_changed.wait()
        if self._long_thread is not None:
            self._long_thread.shutdown()
        self._env.close()

    def _copy(
        self, txn: LmdbReadTxn, write: Callable[[bytes], object], stop: Callable[[], bool]
    ) -> None:
        """Drains the pipe that LMDB, in a helper thread, fills with a compacted copy."""
        reading, writing = os.pipe()
        with contextlib.suppress(OSError):  # a larger pipe only saves trips
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, COPY_CHUNK_BYTES)
        failure: list[Exception] = []

        def fill() -> None:
            try:
                self._env.copyfd(writing, compact=True, txn=txn.raw)
            except Exception as error:  # handed to the thread that waits for it
                failure.append(error)
            finally:
                os.close(writing)

        helper = threading.Thread(target=fill, name="lmdb-copy", daemon=True)
        helper.start()
        stopped = False
        try:
            while piece := os.read(reading, COPY_CHUNK_BYTES):
                if stop():
                    stopped = True
                    break
                store_point("store.copy_piece", self._path)
                write(piece)
                time.sleep(COPY_PAUSE_S)
        finally:
            os.close(reading)  # ends the helper, should it still be writing
            helper.join()
        if stopped:
            raise CopyStopped(self._path)
        if failure:
            error = failure[0]
            if isinstance(error, lmdb.Error):
                self._fail("copying", error)
            raise StoreFailed(self._path, "copying", str(error)) from error

    def _write_ended(self) -> None:
        self._writing = False
        self._size_bytes = 0

    def _fail(self, action: str, error: lmdb.Error) -> NoReturn:
        raise self._meaning(action, error) from error

    def _meaning(self, action: str, error: lmdb.Error) -> StorageError:
        """What an engine error means; a commit on a full disk is only "Input/output error"."""
        if isinstance(error, _DAMAGE):
            return StoreCorrupt(self._path, "its page structure", f"{action}: {error}")
        if isinstance(error, lmdb.MapFullError):
            return StoreFull(self._path, f"{action}: the map of the file is used up")
        if isinstance(error, lmdb.ReadersFullError):
            return StoreFailed(self._path, action, f"{READERS_MAX} reads are open already")
        free_bytes = _free_bytes(self._path)
        free = f"{free_bytes // 1024**2} MiB are free on its file system"
        if free_bytes < _LOW_SPACE_BYTES:
            return StoreFull(self._path, f"{action}: {error}; {free}")
        return StoreFailed(self._path, action, f"{error}; {free}")


def _pages(stat: Mapping[str, object]) -> int:
    kinds = ("branch_pages", "leaf_pages", "overflow_pages")
    return sum(cast("int", stat[kind]) for kind in kinds)


def _free_bytes(path: Path) -> int:
    stats = os.statvfs(path if path.exists() else path.parent)
    return stats.f_bavail * stats.f_frsize


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_all(fd: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])
