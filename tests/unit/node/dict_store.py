"""A store in a dict, for tests of the layer above: the least that keeps the Store protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from kvstore.machine import Machine

Tables = dict[str, dict[bytes, bytes]]


class DictTxn:
    def __init__(self, store: DictStore, *, writable: bool) -> None:
        self._store = store
        self._writable = writable
        self._tables = {name: dict(rows) for name, rows in store.tables.items()}

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._tables[table].get(key)

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(table, key) for key in keys]

    def seek(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        return next(self.scan(table, key), None)

    def seek_last(self, table: str, below: bytes | None = None) -> tuple[bytes, bytes] | None:
        return next(self.scan(table, b"", below, reverse=True), None)

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        rows = self._tables[table]
        keys = sorted(k for k in rows if k >= start and (stop is None or k < stop))
        for key in reversed(keys) if reverse else keys:
            yield key, rows[key]

    def count(self, table: str) -> int:
        return len(self._tables[table])

    def put(self, table: str, key: bytes, value: bytes) -> None:
        assert self._writable
        self._tables[table][key] = value

    def put_many(self, table: str, records: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in records:
            self.put(table, key, value)

    def delete(self, table: str, key: bytes) -> bool:
        return self._tables[table].pop(key, None) is not None

    def commit(self) -> None:
        self._store.tables = self._tables

    def commit_in_background(self, report: Callable[[BaseException | None], None]) -> None:
        self.commit()
        report(None)

    def close(self) -> None:
        if self._writable:
            self._store.writing = False


class DictStore:
    def __init__(self, tables: Tables | None = None) -> None:
        self.tables: Tables = tables or {spec.name: {} for spec in Machine.TABLES}
        self.writing = False

    def read(self) -> DictTxn:
        return DictTxn(self, writable=False)

    def write(self, *, long: bool = False) -> DictTxn:
        assert not self.writing
        self.writing = True
        return DictTxn(self, writable=True)

    def image(self) -> Tables:
        return {name: dict(rows) for name, rows in self.tables.items()}

    def size_bytes(self) -> int:
        return 0

    def size_in_use_bytes(self) -> int:
        return 0

    def copy_to(self, path: Path, *, stop: Callable[[], bool] = lambda: False) -> None:
        raise AssertionError("nothing here makes copies")

    def close(self) -> None:
        pass
