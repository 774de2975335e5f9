"""The store in memory: for the simulator and for tests; same behaviour, no file.

Each table is a sorted sequence cut into blocks. A committed block is never changed again: a
write transaction copies the list of blocks when it first touches a table, and a block when it
first touches that, so a read transaction is nothing but a reference to the tables of its time.
Everything is deterministic; there is no hashing of keys and no clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgpack

from kvstore.storage.errors import CopyStopped, StorageError, StoreCorrupt, StoreFailed, StoreFull
from kvstore.storage.fault_points import disk_point, store_point
from kvstore.storage.limits import KEY_BYTES_MAX
from kvstore.storage.store import EngineInfo, ReadTxn, TableSpec

__all__ = ("MemoryReadTxn", "MemoryStore", "MemoryWriteTxn")

_BLOCK_RECORDS_MAX: Final = 256
_IMAGE_RECORDS: Final = 1024
"""Records per piece of an image."""
_RECORD_OVERHEAD_BYTES: Final = 16
"""What a record is taken to cost beyond its key and value, as in a page of the real store."""


class _Block:
    """A run of records; changed only by the write transaction that made it."""

    __slots__ = ("keys", "values")

    def __init__(self, keys: list[bytes], values: list[bytes]) -> None:
        self.keys = keys
        self.values = values


class _Table:
    """A sorted sequence of records; `firsts` are the blocks' first keys."""

    __slots__ = ("blocks", "count", "firsts", "size_bytes")

    def __init__(self) -> None:
        self.blocks: list[_Block] = []
        self.firsts: list[bytes] = []
        self.count = 0
        self.size_bytes = 0

    def copy(self) -> _Table:
        """Shares all blocks."""
        table = _Table()
        table.blocks = self.blocks.copy()
        table.firsts = self.firsts.copy()
        table.count = self.count
        table.size_bytes = self.size_bytes
        return table

    def find(self, key: bytes) -> tuple[int, int]:
        """(block, position) of the first record with a key >= `key`, perhaps one past a block."""
        number = max(bisect_right(self.firsts, key) - 1, 0)
        if not self.blocks:
            return 0, 0
        return number, bisect_left(self.blocks[number].keys, key)


class MemoryReadTxn:
    """A consistent view (see `store.ReadTxn`)."""

    __slots__ = ("_open", "_tables")

    def __init__(self, tables: dict[str, _Table]) -> None:
        self._tables = tables
        self._open = True

    def get(self, table: str, key: bytes) -> bytes | None:
        source = self._table(table)
        number, position = source.find(key)
        if number < len(source.blocks):
            block = source.blocks[number]
            if position < len(block.keys) and block.keys[position] == key:
                return block.values[position]
        return None

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(table, key) for key in keys]

    def seek(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        return next(self.scan(table, key), None)

    def seek_last(self, table: str, below: bytes | None = None) -> tuple[bytes, bytes] | None:
        return next(self.scan(table, stop=below, reverse=True), None)

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        source = self._table(table)
        if stop is not None and start >= stop:
            return iter(())
        return _down(source, start, stop) if reverse else _up(source, start, stop)

    def count(self, table: str) -> int:
        return self._table(table).count

    def close(self) -> None:
        self._open = False

    def _table(self, name: str) -> _Table:
        assert self._open, "the transaction has ended"
        return self._tables[name]


class MemoryWriteTxn(MemoryReadTxn):
    """The write transaction (see `store.WriteTxn`)."""

    __slots__ = ("_own_blocks", "_own_tables", "_store")

    def __init__(self, store: MemoryStore, tables: dict[str, _Table]) -> None:
        super().__init__(tables)
        self._store = store
        self._own_tables: set[str] = set()
        self._own_blocks: set[_Block] = set()

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._store.check_key(table, key)
        target = self._own_table(table)
        if not target.blocks:
            block = _Block([], [])
            self._own_blocks.add(block)
            target.blocks.append(block)
            target.firsts.append(key)
        number, position = target.find(key)
        block = self._own_block(target, number)
        if position < len(block.keys) and block.keys[position] == key:
            target.size_bytes += len(value) - len(block.values[position])
            block.values[position] = value
            return
        block.keys.insert(position, key)
        block.values.insert(position, value)
        target.firsts[number] = block.keys[0]
        target.count += 1
        target.size_bytes += len(key) + len(value) + _RECORD_OVERHEAD_BYTES
        if len(block.keys) > _BLOCK_RECORDS_MAX:
            self._split(target, number)

    def put_many(self, table: str, records: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in records:
            self.put(table, key, value)

    def delete(self, table: str, key: bytes) -> bool:
        if self.get(table, key) is None:
            return False
        target = self._own_table(table)
        number, position = target.find(key)
        block = self._own_block(target, number)
        target.count -= 1
        target.size_bytes -= len(key) + len(block.values[position]) + _RECORD_OVERHEAD_BYTES
        del block.keys[position], block.values[position]
        if block.keys:
            target.firsts[number] = block.keys[0]
        else:
            del target.blocks[number], target.firsts[number]
        return True

    def commit(self) -> None:
        assert self._open, "the transaction has ended"
        store_point("store.before_commit", "<memory>")
        self._open = False
        self._store.commit(self._tables)
        disk_point("store.after_commit", "<memory>")

    def commit_in_background(self, report: Callable[[BaseException | None], None]) -> None:
        try:
            self.commit()
        except StorageError as error:
            report(error)
        else:
            report(None)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._store.write_ended()

    def _own_table(self, name: str) -> _Table:
        table = self._table(name)
        if name not in self._own_tables:
            self._own_tables.add(name)
            table = self._tables[name] = table.copy()
        return table

    def _own_block(self, table: _Table, number: int) -> _Block:
        block = table.blocks[number]
        if block not in self._own_blocks:
            block = table.blocks[number] = _Block(block.keys.copy(), block.values.copy())
            self._own_blocks.add(block)
        return block

    def _split(self, table: _Table, number: int) -> None:
        block = table.blocks[number]
        half = len(block.keys) // 2
        upper = _Block(block.keys[half:], block.values[half:])
        del block.keys[half:], block.values[half:]
        self._own_blocks.add(upper)
        table.blocks.insert(number + 1, upper)
        table.firsts.insert(number + 1, upper.keys[0])


class MemoryStore:
    """An ordered store without a file (see `store.Store`)."""

    def __init__(self, tables: Sequence[TableSpec], *, capacity_bytes: int | None = None) -> None:
        """`capacity_bytes`: a commit that would go beyond it fails with StoreFull."""
        self._specs = {spec.name: spec for spec in tables}
        self._tables = {spec.name: _Table() for spec in tables}
        self._capacity_bytes = capacity_bytes
        self._writing = False
        self._closed = False

    @classmethod
    def from_image(cls, tables: Sequence[TableSpec], pieces: Iterable[bytes]) -> MemoryStore:
        """The store that `copy_into` wrote; raises StoreCorrupt if it is not one."""
        store = cls(tables)
        txn = store.write()
        unpacker = msgpack.Unpacker(use_list=False)
        size_bytes = read_bytes = 0
        try:
            for piece in pieces:
                unpacker.feed(piece)
                size_bytes += len(piece)
                for table, records in unpacker:
                    txn.put_many(table, records)
                    read_bytes = unpacker.tell()
        except (ValueError, TypeError, KeyError) as error:
            raise StoreCorrupt("<image>", "a piece of the image", str(error)) from error
        if read_bytes != size_bytes:
            raise StoreCorrupt("<image>", "its end", "the last piece is cut off")
        txn.commit()
        return store

    @property
    def engine(self) -> EngineInfo:
        """Which engine this is."""
        return EngineInfo("memory", "1", 0)

    def read(self) -> MemoryReadTxn:
        self._check_open()
        return MemoryReadTxn(self._tables)

    def write(self, *, long: bool = False) -> MemoryWriteTxn:
        self._check_open()
        assert not self._writing, "a write transaction is already open"
        self._writing = True
        return MemoryWriteTxn(self, self._tables.copy())

    def size_bytes(self) -> int:
        return sum(table.size_bytes for table in self._tables.values())

    def size_in_use_bytes(self) -> int:
        return self.size_bytes()

    def sync(self) -> None:
        self._check_open()
        store_point("store.before_final_sync", "<memory>")
        store_point("store.after_final_sync", "<memory>")

    def copy_into(
        self,
        txn: ReadTxn,
        write: Callable[[bytes], object],
        *,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        for name in self._specs:
            records: list[tuple[bytes, bytes]] = []
            for record in txn.scan(name):
                records.append(record)
                if len(records) == _IMAGE_RECORDS:
                    _write_piece(name, records, write, stop)
            _write_piece(name, records, write, stop)

    def copy_to(self, path: Path, *, stop: Callable[[], bool] = lambda: False) -> None:
        store_point("store.before_copy", path)
        txn = self.read()
        try:
            with path.open("xb") as file:
                self.copy_into(txn, file.write, stop=stop)
            store_point("store.after_copy", path)
        except CopyStopped:
            path.unlink(missing_ok=True)
            raise CopyStopped(path) from None
        finally:
            txn.close()

    def close(self) -> None:
        self._closed = True

    def check_key(self, table: str, key: bytes) -> None:
        """ValueError for a key that the table does not take."""
        if not key:
            raise ValueError(f"table {table} was given an empty key")
        if len(key) > KEY_BYTES_MAX and not self._specs[table].long_keys:
            raise ValueError(
                f"table {table} takes keys of up to {KEY_BYTES_MAX} bytes, not {len(key)}; "
                "declare it with long_keys"
            )

    def commit(self, tables: dict[str, _Table]) -> None:
        """Takes a write transaction's tables as the new state."""
        self._writing = False
        if self._capacity_bytes is not None:
            size_bytes = sum(table.size_bytes for table in tables.values())
            if size_bytes > max(self._capacity_bytes, self.size_bytes()):
                raise StoreFull("<memory>", f"{size_bytes} bytes of {self._capacity_bytes}")
        self._tables = tables

    def write_ended(self) -> None:
        """A write transaction was aborted."""
        self._writing = False

    def _check_open(self) -> None:
        if self._closed:
            raise StoreFailed("<memory>", "using the store", "it is closed")


def _up(table: _Table, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    number, position = table.find(start)
    while number < len(table.blocks):
        block = table.blocks[number]
        end = len(block.keys) if stop is None else bisect_left(block.keys, stop)
        yield from zip(block.keys[position:end], block.values[position:end], strict=True)
        if end < len(block.keys):
            return
        number, position = number + 1, 0


def _down(table: _Table, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    if not table.blocks:
        return
    number, end = len(table.blocks) - 1, len(table.blocks[-1].keys)
    if stop is not None:
        number, end = table.find(stop)
    while number >= 0:
        block = table.blocks[number]
        first = bisect_left(block.keys, start)
        for position in range(end - 1, first - 1, -1):
            yield block.keys[position], block.values[position]
        if first > 0:
            return
        number -= 1
        end = len(table.blocks[number].keys)


def _write_piece(
    table: str,
    records: list[tuple[bytes, bytes]],
    write: Callable[[bytes], object],
    stop: Callable[[], bool],
) -> None:
    if stop():
        raise CopyStopped("<image>")
    store_point("store.copy_piece", "<memory>")
    if records:
        write(msgpack.packb([table, records]))
        records.clear()
