"""Random histories: the machine against a dict per revision, however its work is cut up."""

from __future__ import annotations

import random
from contextlib import nullcontext
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.errors import EtcdError
from kvstore.machine import DELETE, Machine, run
from kvstore.pb.rpc_pb2 import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)
from kvstore.storage.memory_store import MemoryStore
from tests.unit.machine.kit import Bench, tiny_slices
from tests.unit.machine.model import Model
from tests.unit.machine.traffic import Traffic

ANSWERS = {
    PutRequest: PutResponse,
    DeleteRangeRequest: DeleteRangeResponse,
    TxnRequest: TxnResponse,
    LeaseGrantRequest: LeaseGrantResponse,
}

# A seed and a length instead of drawn requests: a hundred times faster, and a failure still
# shrinks to its shortest beginning.
seeds = st.integers(0, 2**32)
lengths = st.integers(1, 60)


def _history(seed: int, length: int) -> list[Any]:
    """Requests that change something; the revision they refer to is guessed, so some miss."""
    revision = 1
    traffic = Traffic(seed, lambda: revision)
    history: list[Any] = []
    while len(history) < length:
        request = traffic.request()
        if not isinstance(request, RangeRequest):
            history.append(request)
            revision += 1
    return history


def _bench() -> Bench:
    return Bench(MemoryStore(Machine.TABLES))


def _compare_ranges(bench: Bench, model: Model, request: RangeRequest) -> None:
    try:
        expected: Any = model.range(request)
    except EtcdError as error:
        expected = error
    with bench.machine.view() as view:
        try:
            actual: Any = RangeResponse.FromString(run(view.range(request)).body)
        except EtcdError as error:
            actual = error
    assert actual == expected, request


def _compare_states(bench: Bench, model: Model) -> None:
    machine = bench.machine
    assert (machine.revision, machine.compact_revision) == (model.revision, model.compacted)
    assert {lease.id: lease.ttl_s for lease in machine.leases.values()} == model.leases
    everything = RangeRequest(key=b"\0", range_end=b"\0")
    for revision in range(1, model.revision + 2):
        everything.revision = revision
        _compare_ranges(bench, model, everything)
    with machine.view() as view:
        for lease in model.leases:
            assert run(view.lease_keys(lease)) == model.lease_keys(lease)
        since = max(model.compacted, 1)
        replayed = [
            (change.revision, change.sub, change.kind == DELETE, change.kv)
            for change in view.changes(since, model.revision + 1)
        ]
    assert replayed == [tuple(event) for event in model.events if event.revision >= since]


@settings(max_examples=400, deadline=None)
@given(seeds, lengths, st.booleans())
def test_machine_answers_as_the_model_does(seed: int, length: int, tiny: bool) -> None:
    with tiny_slices() if tiny else nullcontext():
        _check_against_model(seed, length)


def _check_against_model(seed: int, length: int) -> None:
    bench, model = _bench(), Model()
    traffic = Traffic(seed, lambda: model.revision)
    for _ in range(length):
        request = traffic.request()
        if isinstance(request, RangeRequest):
            _compare_ranges(bench, model, request)
            continue
        expected = model.apply(request)
        result = bench.apply(request)
        assert result.revision == model.revision
        if isinstance(expected, EtcdError):
            assert result.error == expected
            continue
        assert result.error is None, request
        if expected is not None:
            assert ANSWERS[type(request)].FromString(result.body) == expected, request
        assert bench.last is not None
        live = [(c.revision, c.sub, c.kind == DELETE, c.kv) for c in bench.last.changes]
        told = model.events[len(model.events) - len(live) :]
        assert live == [tuple(event) for event in told]
    _compare_states(bench, model)


@settings(max_examples=300, deadline=None)
@given(seeds, lengths)
def test_cutting_up_the_work_changes_nothing(seed: int, length: int) -> None:
    """Other batches, other slices, sweeps in between, restarts: same answers, same hashes."""
    history, pick = _history(seed, length), random.Random(seed)
    plain, cut, model = _bench(), _bench(), Model()
    expected = [plain.apply(request) for request in history]
    actual = []
    left = list(history)
    while left:
        size = pick.randint(1, len(left))
        batch, left = left[:size], left[size:]
        with tiny_slices() if pick.random() < 0.5 else nullcontext():
            actual += cut.apply_all(batch, max_ops=pick.choice((1, 2, 100)))
        if pick.random() < 0.5:
            cut.machine.sweep(pick.randint(1, 4))
        if pick.random() < 0.3:
            cut.reopen()
    assert [r._replace(request_id=0) for r in actual] == [
        r._replace(request_id=0) for r in expected
    ]
    for request in history:
        model.apply(request)
    _compare_states(cut, model)
    for revision in range(max(model.compacted, 1), model.revision + 1):
        with tiny_slices():
            assert cut.hash_kv(revision) == plain.hash_kv(revision)
    assert cut.hash() == plain.hash()
    cut.sweep(pick.randint(1, 5))
    plain.sweep()
    _compare_states(cut, model)
    assert cut.hash() == plain.hash()
    assert _revisions(cut) == _revisions(plain)
    _check_leftovers(cut, model)


def _revisions(bench: Bench) -> list[bytes]:
    txn = bench.store.read()
    try:
        return [key for key, _ in txn.scan("revisions")]
    finally:
        txn.close()


def _check_leftovers(bench: Bench, model: Model) -> None:
    """After a sweep nothing is stored that no reader can ask for."""
    at = max(model.compacted, 1)
    live_then = {kv.mod_revision for kv in model.states[at].values()}
    for key in _revisions(bench):
        main = int.from_bytes(key[:8])
        assert main >= at or main in live_then, main


@settings(max_examples=60, deadline=None)
@given(seeds, lengths, st.integers(1, 3))
def test_paging_gives_the_whole_range(seed: int, length: int, limit: int) -> None:
    bench = _bench()
    for request in _history(seed, length):
        bench.apply(request)
    whole = bench.range(b"\0", b"\0")
    with bench.machine.view() as view:
        pages: list[Any] = []
        start = b"\0"
        while True:
            request = RangeRequest(key=start, range_end=b"\0", limit=limit)
            answer = run(view.range(request))
            page = RangeResponse.FromString(answer.body)
            assert answer.count == page.count == len(whole.kvs) - len(pages)
            assert answer.returned == len(page.kvs)
            pages += page.kvs
            if not answer.more:
                break
            assert answer.last_key == page.kvs[-1].key
            start = answer.last_key + b"\0"
    assert pages == list(whole.kvs)


@settings(max_examples=60, deadline=None)
@given(seeds, lengths, st.sets(st.integers(0, 59)))
def test_unwanted_responses_change_no_outcome(seed: int, length: int, wanted: set[int]) -> None:
    asked, unasked = _bench(), _bench()
    for number, request in enumerate(_history(seed, length)):
        full = asked.apply(request)
        waiting = {1} if number in wanted else ()
        bare = unasked.apply(request, waiting=waiting)
        assert (bare.revision, bare.error) == (full.revision, full.error)
        if waiting:
            assert bare == full
    assert asked.hash() == unasked.hash()
