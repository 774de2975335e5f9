"""Ranges out of memory against ranges out of the store: any history, any view, any interleaving."""

from __future__ import annotations

import random
from contextlib import nullcontext
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.errors import EtcdError
from kvstore.machine import Machine, View, run
from kvstore.machine.jobs import Job
from kvstore.machine.limits import RANGE_CACHE_BYTES
from kvstore.machine.range_cache import RangeCache
from kvstore.machine.ranges import RangeAnswer, RangeReader
from kvstore.pb.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.storage.memory_store import MemoryStore
from tests.unit.machine.kit import Bench, tiny_slices

_KEYS = [b"k%02d" % number for number in range(40)] + [
    b"k\x00",
    b"k01\x00",
    b"k01\x00\xff",
    b"\xff",
]
_SMALL_BYTES = 3000


def _key(chance: random.Random) -> bytes:
    return chance.choice(_KEYS)


def _put(chance: random.Random) -> PutRequest:
    size = chance.choice((0, 3, 3, 200, 5000))
    return PutRequest(key=_key(chance), value=b"%d" % chance.randrange(1000) * size)


def _delete(chance: random.Random) -> DeleteRangeRequest:
    end = b"" if chance.random() < 0.7 else _key(chance)
    return DeleteRangeRequest(key=_key(chance), range_end=end)


def _write(chance: random.Random, bench: Bench) -> None:
    kind = chance.random()
    if kind < 0.5:
        bench.apply(_put(chance))
    elif kind < 0.7:
        bench.apply(_delete(chance))
    elif kind < 0.85:
        keys = chance.sample(_KEYS, 5)
        puts = [RequestOp(request_put=PutRequest(key=key, value=b"t")) for key in keys]
        bench.apply(TxnRequest(success=puts))
    elif kind < 0.95:
        bench.apply_all([_put(chance) for _ in range(8)])
    else:
        bench.apply(CompactionRequest(revision=chance.randint(1, bench.machine.revision)))
        bench.machine.sweep(chance.randrange(1, 50))


def _range(chance: random.Random, view: View) -> RangeRequest:
    end = chance.choice((b"\x00", b"l", b"k2", _key(chance)))
    return RangeRequest(
        key=chance.choice((b"\x00", b"k", _key(chance))),
        range_end=end,
        limit=chance.choice((0, 0, 1, 3, 10)),
        keys_only=chance.random() < 0.1,
        revision=chance.choice((0, 0, 0, max(1, view.revision - chance.randrange(5)))),
    )


def _stored(reader: RangeReader, request: RangeRequest) -> RangeAnswer | EtcdError:
    """What the store itself answers."""
    return _outcome(reader._replace(counts=None, cache=None).range(request))


def _outcome(job: Job[RangeAnswer]) -> RangeAnswer | EtcdError:
    try:
        return run(job)
    except EtcdError as error:
        return error


def _same(one: RangeAnswer | EtcdError, other: RangeAnswer | EtcdError) -> bool:
    if isinstance(one, RangeAnswer) and isinstance(other, RangeAnswer):
        return one.body == other.body and one[1:] == other[1:]
    return one == other


class _Reader:
    """A range that is worked on now and then."""

    def __init__(self, chance: random.Random, view: View) -> None:
        self._view = view
        self._request = _range(chance, view)
        self._job = view.range(self._request)
        self._answer: RangeAnswer | EtcdError | None = None

    def step(self) -> None:
        if self._answer is None:
            try:
                next(self._job)
            except StopIteration as stop:
                self._answer = stop.value
            except EtcdError as error:
                self._answer = error

    def finish(self) -> None:
        while self._answer is None:
            self.step()
        assert _same(self._answer, _stored(self._view._reader, self._request)), self._request
        self._view.close()


def _exact(cache: RangeCache) -> None:
    """The blocks are apart and in order, hold what they say, and cost what is counted."""
    blocks = [cache._blocks[start] for start in cache._starts]
    assert len(blocks) == len(cache._blocks)
    assert cache.size_bytes == sum(block.cost for block in blocks) <= cache._max_bytes
    for block, after in pairwise(blocks):
        assert block.stop is not None
        assert block.stop <= after.start
    for block in blocks:
        assert block.keys == sorted(set(block.keys))
        assert len(block.keys) == len(block.fields)


@pytest.mark.parametrize("max_bytes", [RANGE_CACHE_BYTES, _SMALL_BYTES])
@pytest.mark.parametrize("tiny", [False, True])
@given(seed=st.integers(0, 2**32), length=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_memory_answers_as_the_store_does(
    max_bytes: int, tiny: bool, seed: int, length: int
) -> None:
    chance = random.Random(seed)
    bench = Bench(MemoryStore(Machine.TABLES))
    bench.machine._cache = RangeCache(bench.machine.revision, max_bytes)
    readers: list[_Reader] = []
    few = patch("kvstore.machine.range_cache.RANGE_CACHE_KEYS", 1)
    slices = tiny_slices() if tiny else nullcontext()
    with few, slices, patch("kvstore.machine.draft.CHANGES_MAX", 6):
        bench.apply_all([PutRequest(key=key, value=b"first") for key in _KEYS[::2]])
        for _ in range(length):
            _write(chance, bench)
            _exact(bench.machine._cache)
            view = bench.machine.view()
            for _ in range(3):
                request = _range(chance, view)
                assert _same(_outcome(view.range(request)), _stored(view._reader, request)), request
            _exact(bench.machine._cache)
            # Others go on after the next commits, with the state that they have pinned.
            readers.append(_Reader(chance, view))
            if len(readers) > 4:
                readers.pop(chance.randrange(5)).finish()
            for reader in readers:
                if chance.random() < 0.5:
                    reader.step()
        for reader in readers:
            reader.finish()


def test_a_view_may_be_ahead_of_what_memory_was_told() -> None:
    """As between a commit in the background and the turn in which it becomes the state."""
    bench = Bench(MemoryStore(Machine.TABLES))
    for key in (b"a", b"b", b"c"):
        bench.put(key, b"first")
    told = bench.machine.revision
    cache = RangeCache(told)
    changes = []
    for _ in range(5):
        bench.put(b"b", b"later")
        assert bench.last is not None
        changes += bench.last.changes
    request = RangeRequest(key=b"\x00", range_end=b"\x00")
    with bench.machine.view() as view, tiny_slices():
        before = RangeReader(view._txn, told, -1, None, cache)
        for _ in range(2):
            assert _same(_outcome(before.range(request)), _stored(before, request))
        assert cache.size_bytes
        cache.committed(changes, view.revision)
        after = RangeReader(view._txn, view.revision, -1, None, cache)
        for _ in range(2):
            assert _same(_outcome(after.range(request)), _stored(after, request))
