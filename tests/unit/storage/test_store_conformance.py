"""One suite for all stores: what `storage/store.py` promises, they keep alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvstore.storage.disk import make_directory
from kvstore.storage.errors import CopyStopped, StoreFull
from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.memory_store import MemoryStore
from kvstore.storage.store import Store, TableSpec
from tests.sim.disk import VirtualDisk
from tests.sim.prng import Prng
from tests.sim.store import SimStore, SimStoreEngine

TABLES = (TableSpec("plain"), TableSpec("long", long_keys=True))
BOTH = pytest.mark.parametrize("table", ["plain", "long"])

LONG_KEYS = sorted(
    {
        b"a",
        b"s" * 399,
        b"s" * 400,
        b"s" * 401,
        b"s" * 400 + b"\0",
        b"s" * 400 + b"\0\0",
        b"s" * 400 + b"\xff",
        b"s" * 799,
        b"s" * 800,
        b"s" * 800 + b"\0",
        b"s" * 801,
        b"s" * 2000,
        b"s" * 400 + b"t" * 400 + b"u",
        b"s" * 399 + b"t",
        b"s" * 399 + b"t" + b"\0" * 900,
        b"\0",
        b"\0" * 400,
        b"\0" * 401,
        b"\0" * 1200,
        b"\xff" * 400,
        b"\xff" * 401,
        b"\xff" * 1200,
        b"z",
    }
)


@pytest.fixture(params=["lmdb", "memory", "simulated"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store
    if request.param == "lmdb":
        made = LmdbStore(tmp_path / "store.mdb", TABLES, map_bytes=64 * 1024**2)
    elif request.param == "simulated":
        session = VirtualDisk(Prng(1)).session()
        make_directory(session, tmp_path)
        made = SimStoreEngine(session).open(tmp_path / "store.mdb", TABLES)
    else:
        made = MemoryStore(TABLES)
    yield made
    made.close()


def fill(store: Store, table: str, keys: list[bytes]) -> None:
    txn = store.write()
    txn.put_many(table, [(key, b"value of " + key[:20]) for key in keys])
    txn.commit()


def keys_of(store: Store, table: str, *bounds: bytes, reverse: bool = False) -> list[bytes]:
    txn = store.read()
    try:
        return [key for key, _ in txn.scan(table, *bounds, reverse=reverse)]
    finally:
        txn.close()


@BOTH
def test_an_empty_table_answers_nothing(store: Store, table: str) -> None:
    txn = store.read()
    assert txn.get(table, b"k") is None
    assert txn.get(table, b"") is None
    assert txn.get_many(table, [b"a", b"b"]) == [None, None]
    assert txn.seek(table, b"") is None
    assert txn.seek_last(table) is None
    assert txn.seek_last(table, b"k") is None
    assert list(txn.scan(table)) == []
    assert list(txn.scan(table, reverse=True)) == []
    assert txn.count(table) == 0
    txn.close()


@BOTH
def test_put_replaces_and_delete_removes(store: Store, table: str) -> None:
    txn = store.write()
    txn.put(table, b"k", b"1")
    txn.put(table, b"k", b"2")
    txn.put(table, b"empty", b"")
    assert txn.get(table, b"k") == b"2", "a write transaction reads its own writes"
    assert txn.count(table) == 2
    txn.commit()
    txn = store.write()
    assert txn.delete(table, b"k") is True
    assert txn.delete(table, b"k") is False
    assert txn.get(table, b"k") is None
    assert txn.get(table, b"empty") == b""
    txn.commit()
    assert keys_of(store, table) == [b"empty"]


@BOTH
def test_tables_are_apart(store: Store, table: str) -> None:
    fill(store, table, [b"k"])
    other = "long" if table == "plain" else "plain"
    assert keys_of(store, other) == []


@BOTH
def test_scan_takes_start_and_leaves_stop(store: Store, table: str) -> None:
    fill(store, table, [b"a", b"b", b"c", b"d"])
    assert keys_of(store, table, b"b", b"d") == [b"b", b"c"]
    assert keys_of(store, table, b"b", b"d", reverse=True) == [b"c", b"b"]
    assert keys_of(store, table, b"bb") == [b"c", b"d"]
    assert keys_of(store, table, b"bb", reverse=True) == [b"d", b"c"]
    assert keys_of(store, table, b"", b"a") == []
    assert keys_of(store, table, b"c", b"c") == []
    assert keys_of(store, table, b"d", b"a") == []
    assert keys_of(store, table, b"e", reverse=True) == []
    assert keys_of(store, table, b"", b"z", reverse=True) == [b"d", b"c", b"b", b"a"]


@BOTH
def test_seek_finds_neighbours(store: Store, table: str) -> None:
    fill(store, table, [b"b", b"d"])
    txn = store.read()
    assert txn.seek(table, b"") == (b"b", b"value of b")
    assert txn.seek(table, b"b") == (b"b", b"value of b")
    assert txn.seek(table, b"b\0") == (b"d", b"value of d")
    assert txn.seek(table, b"e") is None
    assert txn.seek_last(table) == (b"d", b"value of d")
    assert txn.seek_last(table, b"d") == (b"b", b"value of b")
    assert txn.seek_last(table, b"b") is None
    txn.close()


@BOTH
def test_get_many_keeps_order_and_repeats(store: Store, table: str) -> None:
    fill(store, table, [b"a", b"b"])
    txn = store.read()
    values = txn.get_many(table, [b"b", b"x", b"a", b"b"])
    assert values == [b"value of b", None, b"value of a", b"value of b"]
    txn.close()


@BOTH
def test_a_read_sees_the_state_of_its_beginning(store: Store, table: str) -> None:
    fill(store, table, [b"%03d" % number for number in range(600)])
    before = store.read()
    half_way = before.scan(table)
    assert next(half_way)[0] == b"000"
    txn = store.write()
    for number in range(0, 600, 2):
        txn.delete(table, b"%03d" % number)
        txn.put(table, b"new%03d" % number, b"")
    during = store.read()
    txn.commit()
    after = store.read()
    old = [b"%03d" % number for number in range(600)]
    assert [key for key, _ in half_way] == old[1:]
    assert [key for key, _ in during.scan(table)] == old
    assert before.count(table) == during.count(table) == 600
    assert after.get(table, b"000") is None
    assert after.count(table) == 600
    for view in (before, during, after):
        view.close()


@BOTH
def test_many_commits_leave_a_pinned_read_alone(store: Store, table: str) -> None:
    fill(store, table, [b"%03d" % number for number in range(200)])
    pinned = store.read()
    for turn in range(30):
        txn = store.write()
        txn.put_many(table, [(b"%03d" % number, b"%d" % turn * 50) for number in range(200)])
        txn.commit()
    assert all(value == b"value of " + key for key, value in pinned.scan(table))
    pinned.close()


@BOTH
def test_close_without_commit_aborts(store: Store, table: str) -> None:
    txn = store.write()
    txn.put(table, b"k", b"v")
    txn.close()
    txn.close()
    assert keys_of(store, table) == []
    fill(store, table, [b"k"])
    assert keys_of(store, table) == [b"k"]


def test_only_one_write_at_a_time(store: Store) -> None:
    first = store.write()
    with pytest.raises(AssertionError):
        store.write()
    first.close()
    store.write().close()


@BOTH
def test_empty_keys_are_refused(store: Store, table: str) -> None:
    txn = store.write()
    with pytest.raises(ValueError, match="empty key"):
        txn.put(table, b"", b"v")
    assert txn.delete(table, b"") is False
    txn.close()


def test_a_plain_table_refuses_long_keys(store: Store) -> None:
    txn = store.write()
    txn.put("plain", b"k" * 400, b"v")
    with pytest.raises(ValueError, match="declare it with long_keys"):
        txn.put("plain", b"k" * 401, b"v")
    assert txn.delete("plain", b"k" * 401) is False
    txn.commit()
    view = store.read()
    assert view.get("plain", b"k" * 401) is None
    assert view.seek("plain", b"k" * 401) is None
    assert view.seek_last("plain", b"k" * 401) == (b"k" * 400, b"v")
    view.close()


def test_long_keys_keep_byte_order(store: Store) -> None:
    fill(store, "long", list(reversed(LONG_KEYS)))
    assert keys_of(store, "long") == LONG_KEYS
    assert keys_of(store, "long", reverse=True) == LONG_KEYS[::-1]
    view = store.read()
    assert view.count("long") == len(LONG_KEYS)
    assert view.get_many("long", LONG_KEYS) == [b"value of " + key[:20] for key in LONG_KEYS]
    view.close()


def test_every_pair_of_bounds_of_long_keys(store: Store) -> None:
    fill(store, "long", LONG_KEYS[::2])
    stored = LONG_KEYS[::2]
    view = store.read()
    for start in LONG_KEYS:
        at_or_after = view.seek("long", start)
        assert (at_or_after and at_or_after[0]) == min(
            (key for key in stored if key >= start), default=None
        )
        before = view.seek_last("long", start)
        assert (before and before[0]) == max((key for key in stored if key < start), default=None)
        for stop in LONG_KEYS:
            wanted = [key for key in stored if start <= key < stop]
            assert [key for key, _ in view.scan("long", start, stop)] == wanted
            assert [key for key, _ in view.scan("long", start, stop, reverse=True)] == wanted[::-1]
    view.close()


def test_deleting_long_keys_leaves_nothing_behind(store: Store) -> None:
    fill(store, "long", LONG_KEYS)
    left = set(LONG_KEYS)
    for key in LONG_KEYS[1::2] + LONG_KEYS[::2]:
        txn = store.write()
        assert txn.delete("long", key)
        assert not txn.delete("long", key)
        assert not txn.delete("long", key + b"beyond" * 100)
        left.remove(key)
        assert txn.count("long") == len(left)
        txn.commit()
        assert keys_of(store, "long") == sorted(left)


def test_a_key_of_a_megabyte(store: Store) -> None:
    key = bytes(range(256)) * 4096
    fill(store, "long", [key, key + b"\0", key[:-1]])
    assert keys_of(store, "long") == [key[:-1], key, key + b"\0"]
    assert keys_of(store, "long", key, key + b"\0", reverse=True) == [key]
    txn = store.write()
    for each in (key, key[:-1], key + b"\0"):
        assert txn.get("long", each) == b"value of " + key[:20]
        assert txn.delete("long", each)
    assert txn.count("long") == 0
    txn.commit()


@BOTH
def test_a_copy_is_the_state_that_its_transaction_sees(
    store: Store, table: str, tmp_path: Path
) -> None:
    keys = [b"%05d" % number for number in range(3000)]
    fill(store, table, keys + (LONG_KEYS if table == "long" else []))
    pinned = store.read()
    fill(store, table, [b"later"])
    pieces: list[bytes] = []
    store.copy_into(pinned, pieces.append)
    copy = open_image(store, pieces, tmp_path)
    assert keys_of(copy, table) == [key for key, _ in pinned.scan(table)]
    view = copy.read()
    assert view.get(table, b"later") is None
    assert view.get(table, b"00007") == b"value of 00007"
    view.close()
    copy.close()
    pinned.close()


def open_image(store: Store, pieces: list[bytes], tmp_path: Path) -> Store:
    if isinstance(store, MemoryStore):
        return MemoryStore.from_image(TABLES, pieces)
    path = tmp_path / "copy.mdb"
    path.write_bytes(b"".join(pieces))
    return LmdbStore(path, TABLES, map_bytes=64 * 1024**2)


def test_a_stopped_copy_leaves_no_file(store: Store, tmp_path: Path) -> None:
    fill(store, "plain", [b"%05d" % number for number in range(3000)])
    with pytest.raises(CopyStopped):
        store.copy_to(tmp_path / "copy", stop=lambda: True)
    assert size_of_file(store, tmp_path / "copy") is None
    store.copy_to(tmp_path / "copy")
    assert size_of_file(store, tmp_path / "copy")
    with pytest.raises(Exception, match="exists"):
        store.copy_to(tmp_path / "copy")


def size_of_file(store: Store, path: Path) -> int | None:
    if isinstance(store, SimStore):
        return store.disk.open(path).size() if store.disk.exists(path) else None
    return path.stat().st_size if path.exists() else None


def test_sizes_grow_with_what_is_stored(store: Store) -> None:
    before = store.size_bytes()
    txn = store.write()
    txn.put_many("plain", [(b"%05d" % number, b"v" * 1000) for number in range(1000)])
    txn.commit()
    assert store.size_bytes() >= before + 1_000_000
    in_use = store.size_in_use_bytes()
    assert 1_000_000 <= in_use <= store.size_bytes()
    txn = store.write()
    for number in range(1000):
        txn.delete("plain", b"%05d" % number)
    txn.commit()
    assert store.size_in_use_bytes() < in_use / 4


FullStore = Callable[[Path], Store]


def _small_lmdb(path: Path) -> Store:
    return LmdbStore(path / "small.mdb", TABLES, map_bytes=1024**2)


def _small_memory(path: Path) -> Store:
    return MemoryStore(TABLES, capacity_bytes=1024**2)


@pytest.mark.parametrize("make", [_small_lmdb, _small_memory])
def test_a_full_store_refuses_the_whole_transaction(make: FullStore, tmp_path: Path) -> None:
    store = make(tmp_path)
    fill(store, "plain", [b"kept"])
    txn = store.write()

    def write_too_much() -> None:
        for number in range(3000):
            txn.put("plain", b"%05d" % number, b"v" * 1000)
        txn.commit()

    with pytest.raises(StoreFull, match="Nothing of the transaction was kept"):
        write_too_much()
    txn.close()
    assert keys_of(store, "plain") == [b"kept"]
    fill(store, "plain", [b"more"])
    assert keys_of(store, "plain") == [b"kept", b"more"]
    store.close()
