"""Matching finds exactly the ranges that hold a key, and looks at few others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvstore.pb import rpc_pb2
from kvstore.watch.index import WatcherIndex
from kvstore.watch.ranges import RangeTree
from kvstore.watch.watcher import Watcher
from tests.unit.watch.model import pseudo_random

KEYS = st.binary(min_size=1, max_size=3)
BOUNDED = st.tuples(KEYS, KEYS).filter(lambda pair: pair[0] < pair[1])
ENDS = st.one_of(st.none(), st.just(b""), KEYS)


@given(st.lists(BOUNDED, unique=True, max_size=40), st.data())
def test_range_tree_answers_as_a_plain_list_does(
    ranges: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    tree: RangeTree[tuple[bytes, bytes]] = RangeTree(pseudo_random())
    present = []
    for start, end in ranges:
        tree.add(start, end, (start, end))
        present.append((start, end))
        if len(present) > 1 and data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(present))
            present.remove(gone)
            tree.remove(*gone)
    assert len(tree) == len(present)
    for key in data.draw(st.lists(KEYS, min_size=1, max_size=10)):
        found = tree.covering(key)
        assert sorted(found) == sorted(each for each in present if each[0] <= key < each[1])


def test_range_tree_stays_flat_when_ranges_come_in_order() -> None:
    tree: RangeTree[int] = RangeTree(pseudo_random())
    for number in range(4096):
        tree.add(b"%05d" % number, b"%05d" % (number + 1), number)

    def depth(node: object) -> int:
        return 0 if node is None else 1 + max(depth(node.left), depth(node.right))  # type: ignore[attr-defined]

    assert depth(tree._root) <= 4 * 12  # four times the perfect depth
    assert tree.covering(b"01234") == [1234]
    assert tree.covering(b"99999") == []


def watcher(key: bytes, end: bytes | None) -> Watcher:
    return Watcher(None, 0, rpc_pb2.WatchCreateRequest(), key=key, end=end)  # type: ignore[arg-type]


def holds(each: Watcher, key: bytes) -> bool:
    if each.end is None:
        return key == each.key
    return each.key <= key and (not each.end or key < each.end)


@given(st.lists(st.tuples(KEYS, ENDS), max_size=30), st.lists(KEYS, max_size=8), st.data())
def test_index_finds_exactly_the_watchers_of_a_key(
    wanted: list[tuple[bytes, bytes | None]], keys: list[bytes], data: st.DataObject
) -> None:
    index, present = WatcherIndex(pseudo_random()), []
    for key, end in wanted:
        if end and key >= end:
            continue
        each = watcher(key, end)
        index.add(each)
        present.append(each)
    while present and data.draw(st.booleans()):
        index.remove(present.pop(data.draw(st.integers(0, len(present) - 1))))
    for key in keys:
        found = [each for interest in index.interests_in(key) for each in interest.watchers]
        assert len(found) == len(set(found))
        assert set(found) == {each for each in present if holds(each, key)}
    for each in present:
        index.remove(each)
    assert not index.interests()
    assert not any(index.interests_in(key) for key in keys)


def test_equal_ranges_are_one_interest() -> None:
    index = WatcherIndex(pseudo_random())
    for _ in range(100):
        index.add(watcher(b"a", b"b"))
    assert [len(interest.watchers) for interest in index.interests_in(b"ab")] == [100]
