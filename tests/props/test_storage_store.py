"""Both stores against a sorted dict, long keys included, with reads pinned along the way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.long_keys import LongKeys
from kvstore.storage.memory_store import MemoryStore
from kvstore.storage.store import ReadTxn, Store, TableSpec

TABLES = (TableSpec("plain"), TableSpec("long", long_keys=True))

# Pieces that make shared prefixes, keys that end at a segment's border or one byte beside it,
# and runs of the smallest and the greatest byte, likely.
PIECES = (
    b"a",
    b"b",
    b"\0",
    b"\xff",
    b"a" * 399,
    b"a" * 400,
    b"\0" * 400,
    b"\xff" * 400,
    b"a" * 399 + b"b",
)
long_key = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map(b"".join)
short_key = st.binary(min_size=1, max_size=3)
values = st.binary(max_size=6)


@contextmanager
def opened(kind: str) -> Iterator[Store]:
    if kind == "memory":
        yield MemoryStore(TABLES)
        return
    with tempfile.TemporaryDirectory() as directory:
        store = LmdbStore(Path(directory) / "s.mdb", TABLES, map_bytes=64 * 1024**2)
        try:
            yield store
        finally:
            store.close()


def check_everything(view: ReadTxn, table: str, model: dict[bytes, bytes]) -> None:
    records = sorted(model.items())
    assert list(view.scan(table)) == records
    assert list(view.scan(table, reverse=True)) == records[::-1]
    assert view.count(table) == len(records)


def check_bounds(view: ReadTxn, table: str, model: dict[bytes, bytes], keys: list[bytes]) -> None:
    records = sorted(model.items())
    assert view.get_many(table, keys) == [model.get(key) for key in keys]
    for start in keys:
        assert view.get(table, start) == model.get(start)
        assert view.seek(table, start) == next((r for r in records if r[0] >= start), None)
        assert view.seek_last(table, start) == next(
            (r for r in reversed(records) if r[0] < start), None
        )
        for stop in keys:
            wanted = [record for record in records if start <= record[0] < stop]
            assert list(view.scan(table, start, stop)) == wanted
            assert list(view.scan(table, start, stop, reverse=True)) == wanted[::-1]


@pytest.mark.parametrize("kind", ["lmdb", "memory"])
@pytest.mark.parametrize(("table", "key"), [("plain", short_key), ("long", long_key)])
def test_a_store_is_a_sorted_dict(kind: str, table: str, key: st.SearchStrategy[bytes]) -> None:
    write = st.tuples(st.just("put"), key, values)
    delete = st.tuples(st.just("delete"), key, st.just(b""))
    batch = st.tuples(st.booleans(), st.lists(st.one_of(write, write, delete), max_size=8))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(batch, max_size=5), st.lists(key, max_size=4))
    def run(
        batches: list[tuple[bool, list[tuple[str, bytes, bytes]]]], probes: list[bytes]
    ) -> None:
        with opened(kind) as store:
            model: dict[bytes, bytes] = {}
            pinned: list[tuple[ReadTxn, dict[bytes, bytes]]] = []
            for commit, operations in batches:
                pinned.append((store.read(), model))
                txn = store.write()
                changed = dict(model)
                for what, record_key, value in operations:
                    if what == "put":
                        txn.put(table, record_key, value)
                        changed[record_key] = value
                    else:
                        removed = txn.delete(table, record_key)
                        assert removed == (changed.pop(record_key, None) is not None)
                check_everything(txn, table, changed)
                check_bounds(txn, table, changed, probes)
                if commit:
                    txn.commit()
                    model = changed
                else:
                    txn.close()
            pinned.append((store.read(), model))
            for view, seen in pinned:
                check_everything(view, table, seen)
                check_bounds(view, table, seen, probes)
                view.close()

    run()


class Dicts:
    """Two dicts as `LongKeys` sees a table's databases; it notes the longest key."""

    def __init__(self) -> None:
        self.databases: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})

    def get(self, tail: bool, key: bytes) -> bytes | None:
        return self.databases[tail].get(key)

    def at_or_after(self, tail: bool, key: bytes) -> tuple[bytes, bytes] | None:
        found = min((k for k in self.databases[tail] if k >= key), default=None)
        return None if found is None else (found, self.databases[tail][found])

    def before(self, tail: bool, key: bytes | None) -> tuple[bytes, bytes] | None:
        found = max((k for k in self.databases[tail] if key is None or k < key), default=None)
        return None if found is None else (found, self.databases[tail][found])

    def put(self, tail: bool, key: bytes, value: bytes) -> None:
        assert 0 < len(key) <= 511, "the engine takes no longer keys"
        self.databases[tail][key] = value

    def delete(self, tail: bool, key: bytes) -> bool:
        return self.databases[tail].pop(key, None) is not None


@settings(max_examples=150, deadline=None)
@given(st.lists(long_key.map(lambda key: b"a" * 400 + key), max_size=12, unique=True))
def test_deleting_all_long_keys_frees_every_node(keys: list[bytes]) -> None:
    engine = Dicts()
    long_keys = LongKeys(engine)
    for key in keys:
        long_keys.put(key, b"v")
        long_keys.put(key, b"w")
    pointers = sum(len(key) in (401, 409) for side in engine.databases for key in side)
    assert long_keys.nodes() == pointers
    for key in keys[1::2] + keys[::2]:
        assert long_keys.get(key) == b"w"
        assert long_keys.delete(key)
        assert not long_keys.delete(key)
    assert long_keys.nodes() == 0
    assert engine.databases[0] == {}
    assert set(engine.databases[1]) <= {b"\0"}
