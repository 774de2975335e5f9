"""Transactions of the LMDB store: checked reads, sealed writes, long keys.

The short-key path is the hot one: one call into LMDB, one CRC, one slice. Everything about long
keys is behind one comparison and goes through `LongKeys`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, Final, NamedTuple, NoReturn

import google_crc32c
import lmdb

from kvstore.storage.errors import StorageError, StoreCorrupt
from kvstore.storage.fault_points import disk_point, store_point
from kvstore.storage.limits import KEY_BYTES_MAX
from kvstore.storage.long_keys import LongKeys, pointer_of
from kvstore.storage.sealed import CRC_BYTES, RESIDUE, seal

__all__ = ("LmdbLongTxn", "LmdbReadTxn", "LmdbTable", "LmdbWriteTxn")

_extend = google_crc32c.extend
_CUT: Final = -CRC_BYTES

Fail = Callable[[str, lmdb.Error], NoReturn]
"""Raises what an engine error means: (what was being done, the error)."""


class LmdbTable(NamedTuple):
    """A table's databases and where their checksums start; `tail` only with long keys."""

    name: str
    path: str
    root: Any
    seed: int
    tail: Any
    tail_seed: int


class LmdbReadTxn:
    """A consistent view of the store (see `store.ReadTxn`)."""

    __slots__ = ("_cursors", "_fail", "_get", "_tables", "raw")

    def __init__(self, raw: Any, tables: Mapping[str, LmdbTable], fail: Fail) -> None:
        self.raw = raw
        """The engine's transaction; for the store's copy."""
        self._get = raw.get
        self._tables = tables
        self._fail = fail
        self._cursors: dict[int, Any] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        spec = self._tables[table]
        if not 0 < len(key) <= KEY_BYTES_MAX:
            return self._get_long(spec, key)
        try:
            stored: bytes | None = self._get(key, None, spec.root)
            if stored is None:
                _check_miss(spec, spec.seed, self._cursor(spec.root), key)
                return None
        except lmdb.Error as error:
            self._fail(f"reading table {table}", error)
        if _extend(spec.seed, key + stored) != RESIDUE:
            _damaged(spec, key)
        return stored[:_CUT]

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        spec = self._tables[table]
        get, root, seed = self._get, spec.root, spec.seed
        values: list[bytes | None] = []
        append = values.append
        try:
            for key in keys:
                if not 0 < len(key) <= KEY_BYTES_MAX:
                    append(self._get_long(spec, key))
                    continue
                stored = get(key, None, root)
                if stored is None:
                    _check_miss(spec, seed, self._cursor(root), key)
                    append(None)
                    continue
                if _extend(seed, key + stored) != RESIDUE:
                    _damaged(spec, key)
                append(stored[:_CUT])
        except lmdb.Error as error:
            self._fail(f"reading table {table}", error)
        return values

    def seek(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        spec = self._tables[table]
        if len(key) > KEY_BYTES_MAX:
            return next(self.scan(table, key), None)
        try:
            item = _check_around(spec, spec.seed, self._cursor(spec.root), key)
        except lmdb.Error as error:
            self._fail(f"reading table {table}", error)
        if item is None:
            return None
        found, stored = item
        if len(found) > KEY_BYTES_MAX:
            return next(self.scan(table, key), None)
        return found, stored[:_CUT]

    def seek_last(self, table: str, below: bytes | None = None) -> tuple[bytes, bytes] | None:
        return next(self.scan(table, stop=below, reverse=True), None)

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        spec = self._tables[table]
        if stop is not None and start >= stop:
            return iter(())
        return self._down(spec, start, stop) if reverse else self._up(spec, start, stop)

    def count(self, table: str) -> int:
        spec = self._tables[table]
        try:
            records: int = self.raw.stat(spec.root)["entries"]
            if spec.tail is not None:
                in_tail: int = self.raw.stat(spec.tail)["entries"]
                if in_tail:
                    # One of them is the count of nodes; and each node has one pointer.
                    records += in_tail - 1 - self._long(spec).nodes()
        except lmdb.Error as error:
            self._fail(f"counting table {table}", error)
        return records

    def close(self) -> None:
        self.raw.abort()

    def _up(
        self, spec: LmdbTable, start: bytes, stop: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        seed, limit = spec.seed, stop
        begin = pointer_of(start) if len(start) > KEY_BYTES_MAX else start
        if stop is not None and len(stop) > KEY_BYTES_MAX:
            limit = pointer_of(stop) + b"\0"  # the pointer itself is still in range
        try:
            cursor = self.raw.cursor(spec.root)
            if _check_around(spec, seed, cursor, begin) is None:
                return
            cursor.set_range(begin)
            for key, stored in cursor.iternext():
                if limit is not None and key >= limit:
                    return
                if _extend(seed, key + stored) != RESIDUE:
                    _damaged(spec, key)
                if key < begin:
                    _out_of_order(spec, key)
                begin = key + b"\0"
                if len(key) <= KEY_BYTES_MAX:
                    yield key, stored[:_CUT]
                    continue
                head = key[:KEY_BYTES_MAX]
                yield from self._long(spec).ascend(stored[:_CUT], head, start, stop)
        except lmdb.Error as error:
            self._fail(f"scanning table {spec.name}", error)

    def _down(
        self, spec: LmdbTable, start: bytes, stop: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        seed, limit, floor = spec.seed, stop, start
        if stop is not None and len(stop) > KEY_BYTES_MAX:
            limit = pointer_of(stop) + b"\0"
        if len(start) > KEY_BYTES_MAX:
            floor = pointer_of(start)
        try:
            cursor = self.raw.cursor(spec.root)
            if limit is not None:
                _check_around(spec, seed, cursor, limit)
            if limit is None or not cursor.set_range(limit):
                if not cursor.last():
                    return
            elif not cursor.prev():
                return
            for key, stored in cursor.iterprev():
                if key < floor:
                    return
                if _extend(seed, key + stored) != RESIDUE:
                    _damaged(spec, key)
                if limit is not None and key >= limit:
                    _out_of_order(spec, key)
                limit = key
                if len(key) <= KEY_BYTES_MAX:
                    yield key, stored[:_CUT]
                    continue
                head = key[:KEY_BYTES_MAX]
                yield from self._long(spec).descend(stored[:_CUT], head, start, stop)
        except lmdb.Error as error:
            self._fail(f"scanning table {spec.name}", error)

    def _get_long(self, spec: LmdbTable, key: bytes) -> bytes | None:
        if not key or spec.tail is None:
            return None
        try:
            return self._long(spec).get(key)
        except lmdb.Error as error:
            self._fail(f"reading table {spec.name}", error)

    def _long(self, spec: LmdbTable) -> LongKeys:
        return LongKeys(_Databases(self.raw, spec))

    def _cursor(self, database: Any) -> Any:
        cursor = self._cursors.get(id(database))
        if cursor is None:
            cursor = self._cursors[id(database)] = self.raw.cursor(database)
        return cursor


class LmdbWriteTxn(LmdbReadTxn):
    """The write transaction (see `store.WriteTxn`)."""

    __slots__ = ("_ended", "_open", "_put")

    def __init__(
        self,
        raw: Any,
        tables: Mapping[str, LmdbTable],
        fail: Fail,
        ended: Callable[[], None],
    ) -> None:
        super().__init__(raw, tables, fail)
        self._put = raw.put
        self._ended = ended
        self._open = True

    def put(self, table: str, key: bytes, value: bytes) -> None:
        spec = self._tables[table]
        try:
            if 0 < len(key) <= KEY_BYTES_MAX:
                crc = _extend(spec.seed, key + value)
                self._put(key, value + crc.to_bytes(4, "little"), True, True, False, spec.root)
            else:
                _check_long(spec, key)
                self._long(spec).put(key, value)
        except lmdb.Error as error:
            self._abort_and_fail(f"writing to table {table}", error)

    def put_many(self, table: str, records: Iterable[tuple[bytes, bytes]]) -> None:
        spec = self._tables[table]
        seed = spec.seed
        sealed = []
        for key, value in records:
            if 0 < len(key) <= KEY_BYTES_MAX:
                sealed.append((key, value + _extend(seed, key + value).to_bytes(4, "little")))
            else:
                self.put(table, key, value)
        try:
            if sealed:
                self.raw.cursor(spec.root).putmulti(sealed)
        except lmdb.Error as error:
            self._abort_and_fail(f"writing to table {table}", error)

    def delete(self, table: str, key: bytes) -> bool:
        spec = self._tables[table]
        try:
            if 0 < len(key) <= KEY_BYTES_MAX:
                return bool(self.raw.delete(key, b"", spec.root))
            return bool(key) and spec.tail is not None and self._long(spec).delete(key)
        except lmdb.Error as error:
            self._abort_and_fail(f"deleting from table {table}", error)

    def commit(self) -> None:
        try:
            self._commit_raw()
        except lmdb.Error as error:
            self._abort_and_fail("committing", error)
        self._end()

    def _commit_raw(self) -> None:
        path = next(iter(self._tables.values())).path
        store_point("store.before_commit", path)
        self.raw.commit()
        disk_point("store.after_commit", path)  # Too late to say that nothing was kept.

    def commit_in_background(self, report: Callable[[BaseException | None], None]) -> None:
        raise AssertionError("only a long transaction can be committed in the background")

    def close(self) -> None:
        self.raw.abort()
        self._end()

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._ended()

    def _abort_and_fail(self, action: str, error: lmdb.Error) -> NoReturn:
        self.close()
        self._fail(action, error)


class LmdbLongTxn(LmdbWriteTxn):
    """A write transaction that a thread of the store's began, and that only this thread can end:
    LMDB's writer lock belongs to a thread. In between it is used like any other.

    Committing 200,000 changed pages takes half a second, and LMDB can not do it in parts.
    """

    __slots__ = ("_commit", "_thread")

    def __init__(
        self,
        raw: Any,
        tables: Mapping[str, LmdbTable],
        fail: Fail,
        ended: Callable[[], None],
        thread: Executor,
    ) -> None:
        super().__init__(raw, tables, fail, ended)
        self._thread = thread
        self._commit: Future[None] | None = None

    def commit(self) -> None:
        try:
            self._thread.submit(self._commit_raw).result()
        except lmdb.Error as error:
            self._abort_and_fail("committing", error)
        self._end()

    def commit_in_background(self, report: Callable[[BaseException | None], None]) -> None:
        self._commit = self._thread.submit(self._commit_raw)
        self._commit.add_done_callback(lambda future: report(self._meaning(future.exception())))

    def _meaning(self, error: BaseException | None) -> BaseException | None:
        if not isinstance(error, lmdb.Error):
            return error
        try:
            self._fail("committing", error)
        except StorageError as meaning:
            return meaning

    def close(self) -> None:
        # A commit under way goes first: the thread does one thing after the other.
        self._thread.submit(self.raw.abort).result()
        self._end()


class _Databases:
    """A table's two databases as `LongKeys` sees them."""

    __slots__ = ("_raw", "_spec")

    def __init__(self, raw: Any, spec: LmdbTable) -> None:
        self._raw = raw
        self._spec = spec

    def get(self, tail: bool, key: bytes) -> bytes | None:
        database, seed = self._choose(tail)
        stored: bytes | None = self._raw.get(key, None, database)
        if stored is None:
            with self._raw.cursor(database) as cursor:
                _check_miss(self._spec, seed, cursor, key)
            return None
        if _extend(seed, key + stored) != RESIDUE:
            _damaged(self._spec, key)
        return stored[:_CUT]

    def at_or_after(self, tail: bool, key: bytes) -> tuple[bytes, bytes] | None:
        item = self._around(tail, key)
        return None if item is None else (item[0], item[1][:_CUT])

    def before(self, tail: bool, key: bytes | None) -> tuple[bytes, bytes] | None:
        database, seed = self._choose(tail)
        if key is not None:
            self._around(tail, key)
        with self._raw.cursor(database) as cursor:
            if key is not None and cursor.set_range(key):
                inside = cursor.prev()
            else:
                inside = cursor.last()
            if not inside:
                return None
            found, stored = cursor.item()
        if _extend(seed, found + stored) != RESIDUE:
            _damaged(self._spec, found)
        return found, stored[:_CUT]

    def put(self, tail: bool, key: bytes, value: bytes) -> None:
        database, seed = self._choose(tail)
        self._raw.put(key, seal(seed, key, value), db=database)

    def delete(self, tail: bool, key: bytes) -> bool:
        return bool(self._raw.delete(key, db=self._choose(tail)[0]))

    def _choose(self, tail: bool) -> tuple[Any, int]:
        spec = self._spec
        return (spec.tail, spec.tail_seed) if tail else (spec.root, spec.seed)

    def _around(self, tail: bool, key: bytes) -> tuple[bytes, bytes] | None:
        database, seed = self._choose(tail)
        with self._raw.cursor(database) as cursor:
            return _check_around(self._spec, seed, cursor, key)


def _check_long(spec: LmdbTable, key: bytes) -> None:
    if not key:
        raise ValueError(f"table {spec.name} was given an empty key")
    if spec.tail is None:
        raise ValueError(
            f"table {spec.name} takes keys of up to {KEY_BYTES_MAX} bytes, not {len(key)}; "
            "declare it with long_keys"
        )


def _check_around(
    spec: LmdbTable, seed: int, cursor: Any, key: bytes
) -> tuple[bytes, bytes] | None:
    """The first record at or after `key`, as stored, if it and the one before are sound.

    The one before is looked at because a record's checksum says nothing of records that are not
    found. Where a key is damaged, in a leaf or in a page above, a search goes astray; it then
    ends beside the damaged record, or at two that are not on either side of `key`.
    """
    item: tuple[bytes, bytes] | None = None
    if cursor.set_range(key):
        item = cursor.item()
        found, stored = item
        if _extend(seed, found + stored) != RESIDUE:
            _damaged(spec, found)
        if found < key:
            _out_of_order(spec, found)
        is_first = not cursor.prev()
    else:
        is_first = not cursor.last()
    if not is_first:
        found, stored = cursor.item()
        if _extend(seed, found + stored) != RESIDUE:
            _damaged(spec, found)
        if found >= key:
            _out_of_order(spec, found)
    return item


def _check_miss(spec: LmdbTable, seed: int, cursor: Any, key: bytes) -> None:
    """Before it is said that a key does not exist: a second search, which looks around."""
    item = _check_around(spec, seed, cursor, key)
    if item is not None and item[0] == key:
        _out_of_order(spec, key)


def _damaged(spec: LmdbTable, key: bytes) -> NoReturn:
    raise StoreCorrupt(spec.path, _place(spec, key), "the record does not match its checksum")


def _out_of_order(spec: LmdbTable, key: bytes) -> NoReturn:
    """A sound record where it cannot be: the pages above it are damaged.

    Without this check a reader would go in circles, or pass over records.
    """
    raise StoreCorrupt(spec.path, _place(spec, key), "the record stands where it does not belong")


def _place(spec: LmdbTable, key: bytes) -> str:
    start = key[:64].hex()
    return f"table {spec.name}, key {start}{'…' if len(key) > 64 else ''} (hex)"
