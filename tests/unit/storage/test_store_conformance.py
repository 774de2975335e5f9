"""One suite for both stores: what `storage/store.py` promises, they keep alike.

Here: tables, keys, views and transactions. In test_store_conformance_copies: copies, commits in the
background, sizes, and stores that are full, fail, or are closed.
"""

from __future__ import annotations

import pytest

from kvstore.storage.memory_store import MemoryStore
from kvstore.storage.store import Store

from .store_kit import LONG_KEYS, fill, keys_of

BOTH = pytest.mark.parametrize("table", ["plain", "long"])


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
@pytest.mark.parametrize("long", [False, True])
def test_a_write_sees_itself_whole_and_nobody_else_does(
    store: Store, table: str, long: bool
) -> None:
    fill(store, table, [b"a", b"c"])
    txn = store.write(long=long)
    txn.put_many(table, ((key, b"new") for key in (b"b", b"d", b"b")))
    assert txn.delete(table, b"a")
    assert [key for key, _ in txn.scan(table)] == [b"b", b"c", b"d"]
    assert [key for key, _ in txn.scan(table, reverse=True)] == [b"d", b"c", b"b"]
    assert txn.get_many(table, [b"a", b"b"]) == [None, b"new"]
    assert txn.seek(table, b"a") == (b"b", b"new")
    assert txn.seek_last(table, b"d") == (b"c", b"value of c")
    assert txn.count(table) == 3
    assert keys_of(store, table) == [b"a", b"c"]
    txn.commit()
    txn.close()
    assert keys_of(store, table) == [b"b", b"c", b"d"]


@pytest.mark.parametrize("long", [False, True])
def test_another_write_begins_when_one_has_ended_in_any_way(store: Store, long: bool) -> None:
    for ending in ("commit", "close"):
        txn = store.write(long=long)
        txn.put("plain", ending.encode(), b"")
        with pytest.raises(AssertionError):
            store.write(long=not long)
        getattr(txn, ending)()
        txn.close()
    fill(store, "plain", [b"last"])
    assert keys_of(store, "plain") == [b"commit", b"last"]


@BOTH
def test_a_value_of_a_megabyte(store: Store, table: str) -> None:
    value = bytes(range(256)) * 4096
    txn = store.write()
    txn.put(table, b"k", value)
    assert txn.get(table, b"k") == value
    txn.commit()
    view = store.read()
    assert view.get(table, b"k") == value
    assert list(view.scan(table)) == [(b"k", value)]
    view.close()
    view.close()


def test_a_store_says_which_it_is(store: Store) -> None:
    assert store.engine.name == ("memory" if isinstance(store, MemoryStore) else "lmdb")
    assert store.engine == store.engine
    store.sync()
