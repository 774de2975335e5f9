"""The tree cache: the copy follows the store, through compaction, too."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.client import Client, KvError, Put, TreeChange, TreeEvent
from kvstore.client.recipes import Tree
from kvstore.client.values import Event, EventType, KeyValue
from tests.unit.client.recipes.conftest import MakeClient


def test_the_copy_follows(client: Any, other: Any, name: str) -> None:
    events: list[TreeEvent] = []
    other.put(f"{name}/a/1", "x")
    other.put(f"{name}-elsewhere", "")
    cache = client.tree_cache(f"{name}/")
    cache.listen(events.append)
    with cache:
        assert cache.get(f"{name}/a/1").value == b"x"
        assert cache.problem is None
        other.put(f"{name}/a/2", "y")
        other.put(f"{name}/b", "z")
        other.put(f"{name}/a/1", "x2")
        last = other.delete(f"{name}/b").header.revision
        assert cache.wait_for(lambda known: known.revision >= last, timeout=5)
        assert [kv.key for kv in cache.items()] == [f"{name}/a/{i}".encode() for i in (1, 2)]
        assert cache.children(name) == (b"a",)
        assert cache.children(f"{name}/a/") == (b"1", b"2")
        assert len(cache) == 2
        assert not cache.wait_for(lambda known: False, timeout=0.01)
    told = [(each.change, each.key.decode().removeprefix(f"{name}/")) for each in events]
    assert told == [
        (TreeChange.ADDED, "a/1"),
        (TreeChange.READY, ""),
        (TreeChange.ADDED, "a/2"),
        (TreeChange.ADDED, "b"),
        (TreeChange.UPDATED, "a/1"),
        (TreeChange.REMOVED, "b"),
    ]
    assert events[4].before is not None
    assert events[4].before.value == b"x"
    other.put(f"{name}/late", "")
    assert cache.get(f"{name}/late") is None  # closed, but readable


def test_many_keys_are_read_in_pages(client: Any, name: str) -> None:
    for start in range(0, 1500, 100):
        puts = [Put(f"{name}/{i:04}") for i in range(start, start + 100)]
        client.txn().then(*puts).commit()
    with client.tree_cache(f"{name}/") as cache:
        assert len(cache) == 1500


def test_after_compaction_it_is_read_anew(client: Any, other: Any, name: str) -> None:
    """The watch begins behind the reading; if history is gone by then, the tree is read again."""
    events: list[TreeEvent] = []
    other.put(f"{name}/old", "1")
    other.put(f"{name}/same", "1")
    cache = client.tree_cache(f"{name}/")

    def interfere(event: TreeEvent) -> None:
        events.append(event)
        if event.change is TreeChange.READY:
            missed.put(f"{name}/new", "1")
            missed.put(f"{name}/same", "2")
            missed.compact(missed.delete(f"{name}/old").header.revision)

    # A listener must not wait for its own loop, so it has a client of its own.
    with Client(other.endpoints) as missed:
        cache.listen(interfere)
        with cache:
            assert cache.wait_for(lambda known: known.get(f"{name}/new") is not None, timeout=5)
            assert cache.get(f"{name}/old") is None
            last = other.put(f"{name}/after", "1").header.revision
            assert cache.wait_for(lambda known: known.revision >= last, timeout=5)
    changes = [(each.change, each.key.decode().removeprefix(f"{name}/")) for each in events]
    assert changes[3:] == [
        (TreeChange.REMOVED, "old"),
        (TreeChange.ADDED, "new"),
        (TreeChange.UPDATED, "same"),
        (TreeChange.REREAD, ""),
        (TreeChange.ADDED, "after"),
    ]


def test_a_failing_listener_harms_nobody(
    client: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = client.tree_cache(f"{name}/")
    cache.listen(lambda event: 1 / 0)
    with cache:
        client.put(f"{name}/a", "")
        assert cache.wait_for(lambda known: known.get(f"{name}/a"), timeout=5)
    assert "a listener of the tree cache" in caplog.text


def test_closing_the_client_ends_it(make_client: MakeClient, name: str) -> None:
    client = make_client()
    cache = client.tree_cache(f"{name}/").start()
    client.close()
    if isinstance(client, Client):
        cache.close()
        with pytest.raises(KvError):
            client.tree_cache("x").start()
        assert cache.items() == ()


def kv(key: bytes, revision: int) -> KeyValue:
    return KeyValue(key, b"", revision, revision, 1, 0)


def test_a_deletion_of_what_is_not_known_is_no_change() -> None:
    tree = Tree("")
    tree.load([kv(b"a", 3)], 5)
    assert tree.apply([Event(EventType.DELETE, kv(b"b", 6), None)], 6) == []
    assert [each.change for each in tree.load([kv(b"a", 3)], 9)] == [TreeChange.REREAD]
    assert (tree.revision, len(tree)) == (9, 1)
