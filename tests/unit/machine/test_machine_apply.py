"""Batches: all or nothing, in order, in turns, and nothing seen before the commit."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

from kvstore import errors
from kvstore.machine import (
    CommandError,
    CommandKind,
    FormatError,
    Machine,
    Member,
    encode,
    run,
)
from kvstore.pb.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.storage.errors import StoreFull
from kvstore.storage.memory_store import MemoryStore
from kvstore.storage.store import Store
from raft.types import ConfChange, ConfChangeKind, ConfState, Entry, EntryKind
from tests.unit.machine.kit import Bench, finish


@pytest.fixture
def bench(store: Store) -> Bench:
    return Bench(store)


def _puts(bench: Bench, *keys: bytes) -> list[Entry]:
    first = bench.machine.applied_index + 1
    return [
        Entry(
            first + offset,
            bench.term,
            EntryKind.NORMAL,
            encode(CommandKind.PUT, offset, PutRequest(key=key).SerializeToString()),
        )
        for offset, key in enumerate(keys)
    ]


def test_nothing_of_a_batch_is_seen_before_its_commit(bench: Bench) -> None:
    bench.put(b"a")
    machine = bench.machine
    batch = machine.begin(_puts(bench, b"b", b"c"))
    assert not batch.step(1)
    assert (machine.revision, machine.applied_index) == (2, 1)
    assert bench.pairs() == {b"a": b""}
    with machine.view() as early:
        assert batch.step(1)
        assert (machine.revision, machine.applied_index) == (4, 3)
        assert early.revision == 2
        answer = run(early.range(RangeRequest(key=b"a", range_end=b"z")))
        assert answer.count == 1
    assert sorted(bench.pairs()) == [b"a", b"b", b"c"]


def test_an_abandoned_batch_leaves_nothing(bench: Bench) -> None:
    bench.put(b"a")
    before = bench.hash()
    batch = bench.machine.begin(_puts(bench, b"b", b"c"))
    batch.step(1)
    batch.abandon()
    batch.abandon()
    assert bench.hash() == before
    bench.reopen()
    assert bench.machine.applied_index == 1
    bench.put(b"b")
    assert sorted(bench.pairs()) == [b"a", b"b"]


def test_an_unexpected_exception_ends_the_batch_without_a_trace(bench: Bench) -> None:
    bench.put(b"a")
    before = bench.hash()
    batch = bench.machine.begin(_puts(bench, b"b", b"c"))
    with (
        patch("kvstore.machine.handlers.txn.put", side_effect=RuntimeError("a bug")),
        pytest.raises(RuntimeError, match="a bug"),
    ):
        batch.step()
    assert bench.hash() == before
    assert bench.machine.applied_index == 1
    finish(bench.machine.begin(_puts(bench, b"b")))
    assert bench.machine.revision == 3


def test_a_command_of_an_unknown_kind_stops_the_node(bench: Bench) -> None:
    entry = Entry(1, 1, EntryKind.NORMAL, b"\xc8" + bytes(8))
    with pytest.raises(CommandError, match="entry 1 holds a command of kind 200"):
        bench.machine.begin([entry]).step()
    assert bench.machine.applied_index == 0


@pytest.mark.parametrize("kind", [kind for kind in CommandKind if kind not in (7, 9, 10, 40)])
def test_a_damaged_request_stops_the_node(bench: Bench, kind: CommandKind) -> None:
    entry = Entry(1, 1, EntryKind.NORMAL, encode(kind, 1, b"\xff"))
    with pytest.raises(CommandError, match="the request in entry 1 is damaged"):
        finish(bench.machine.begin([entry]))
    assert bench.machine.applied_index == 0
    bench.put(b"a")


@pytest.mark.parametrize("data", [b"", b"\x09" + bytes(7), b"\0" * 9 + b"\xc1"])
def test_an_unreadable_membership_change_stops_the_node(bench: Bench, data: bytes) -> None:
    with pytest.raises(CommandError):
        bench.machine.begin([Entry(1, 1, EntryKind.CONF_CHANGE, data)]).step()


def test_a_failed_commit_leaves_the_machine_where_it_was() -> None:
    bench = Bench(MemoryStore(Machine.TABLES, capacity_bytes=2_000))
    bench.put(b"a")
    batch = bench.machine.begin([bench.entry(PutRequest(key=b"b", value=bytes(3_000)))])
    with pytest.raises(StoreFull):
        finish(batch)
    assert (bench.machine.applied_index, bench.machine.revision) == (1, 2)
    assert bench.pairs() == {b"a": b""}
    bench.reopen()
    assert bench.machine.applied_index == 1


def test_entries_must_follow_without_a_gap(bench: Bench) -> None:
    bench.put(b"a")
    for index in (1, 3):
        with pytest.raises(AssertionError, match="where 2 must follow"):
            bench.machine.begin([Entry(index, 1, EntryKind.NORMAL, b"")])


def test_one_batch_at_a_time(bench: Bench) -> None:
    batch = bench.machine.begin(_puts(bench, b"a"))
    with pytest.raises(AssertionError, match="has not ended"):
        bench.machine.begin([])
    finish(batch)


def test_empty_entries_move_the_applied_index_and_nothing_else(bench: Bench) -> None:
    entries = [Entry(index, 4, EntryKind.NORMAL, b"") for index in (1, 2, 3)]
    batch = finish(bench.machine.begin(entries))
    assert [tuple(result)[:4] for result in batch.results] == [(0, 1, b"", None)] * 3
    bench.reopen()
    machine = bench.machine
    assert (machine.applied_index, machine.applied_term, machine.revision) == (3, 4, 1)


def test_a_batch_of_nothing_writes_nothing(bench: Bench) -> None:
    assert finish(bench.machine.begin([])).results == []
    assert bench.machine.applied_index == 0
    bench.put(b"a")


def test_responses_nobody_waits_for_are_not_built(bench: Bench) -> None:
    bench.put(b"a", b"1")
    request = TxnRequest(
        success=[
            RequestOp(request_range=RangeRequest(key=b"a")),
            RequestOp(request_put=PutRequest(key=b"a", prev_kv=True)),
        ]
    )
    with patch("kvstore.machine.ranges.RangeReader.range") as ranged:
        result = bench.apply(request, waiting={99})
    assert (result.request_id, result.revision, result.body) == (1, 3, b"")
    assert not ranged.called
    assert bench.apply(PutRequest(key=b"a", prev_kv=True), waiting={1}).body != b""


def test_a_large_delete_is_worked_off_in_turns(bench: Bench) -> None:
    keys = [b"%05d" % number for number in range(1_300)]
    finish(bench.machine.begin(_puts(bench, *keys)))
    request = DeleteRangeRequest(key=b"0", range_end=b"\0", prev_kv=True)
    batch = bench.machine.begin([bench.entry(request)])
    turns = 1
    while not batch.step():
        turns += 1
        assert bench.range(b"0", b"\0", count_only=True).count == 1_300
    assert turns == 3
    assert [change.key for change in batch.changes] == keys
    assert {(change.revision, change.kind) for change in batch.changes} == {(1_302, 1)}
    assert [change.sub for change in batch.changes] == list(range(1_300))
    assert bench.pairs() == {}


def test_a_lease_with_many_keys_is_revoked_in_turns(bench: Bench) -> None:
    bench.apply(LeaseGrantRequest(ID=7, TTL=60))
    requests = [PutRequest(key=b"%05d" % number, lease=7) for number in range(1_100)]
    bench.apply_all([*requests, PutRequest(key=b"other")])
    batch = bench.machine.begin([bench.entry(LeaseRevokeRequest(ID=7))])
    turns = 1
    while not batch.step():
        turns += 1
    assert turns == 3
    assert batch.revoked == [7]
    assert len(batch.changes) == 1_100
    assert {change.revision for change in batch.changes} == {1_103}
    assert list(bench.pairs()) == [b"other"]
    with bench.machine.view() as view:
        assert run(view.lease_keys(7)) == []


def test_a_batch_tells_which_leases_began_and_ended(bench: Bench) -> None:
    bench.apply(LeaseGrantRequest(ID=1, TTL=60))
    bench.apply_all(
        [
            LeaseGrantRequest(ID=2, TTL=60),
            LeaseGrantRequest(ID=3, TTL=60),
            LeaseRevokeRequest(ID=3),
            LeaseRevokeRequest(ID=1),
            LeaseGrantRequest(ID=1, TTL=90),
        ]
    )
    assert bench.last is not None
    assert bench.last.revoked == [3, 1]
    assert {number: lease.ttl_s for number, lease in bench.last.granted.items()} == {2: 60, 1: 90}
    assert sorted(bench.machine.leases) == [1, 2]


def test_a_put_sees_the_lease_of_its_own_batch_and_not_a_revoked_one(bench: Bench) -> None:
    results = bench.apply_all(
        [
            LeaseGrantRequest(ID=1, TTL=60),
            PutRequest(key=b"a", lease=1),
            LeaseRevokeRequest(ID=1),
            PutRequest(key=b"a", lease=1),
        ]
    )
    assert [result.error for result in results] == [None, None, None, errors.LEASE_NOT_FOUND]
    assert results[-1].revision == 3


def test_a_refusal_leaves_nothing_on_the_error(bench: Bench) -> None:
    """The error lives for ever; on most members nobody is told of it who would tidy up."""
    for _ in range(3):
        bench.apply_all([LeaseRevokeRequest(ID=7), CompactionRequest(revision=99)])
    for error in (errors.LEASE_NOT_FOUND, errors.FUTURE_REVISION):
        assert error.__traceback__ is None
        assert error.__context__ is None


def test_bootstrap_is_the_state_after_an_entry(bench: Bench) -> None:
    members = [Member(2, "b", ("http://b",)), Member(1, "a", ("http://a",), (), True)]
    bench.machine.bootstrap(members, index=5, term=1)
    bench.reopen()
    machine = bench.machine
    assert (machine.applied_index, machine.applied_term, machine.revision) == (5, 1, 1)
    assert machine.members == {member.id: member for member in members}
    assert machine.conf_state() == ConfState((2,), (1,))
    bench.put(b"a")
    assert machine.applied_index == 6
    with pytest.raises(AssertionError, match="in use"):
        machine.bootstrap(members, index=9, term=1)


def test_members_of_a_batch_are_seen_when_it_is_committed(bench: Bench) -> None:
    from kvstore.machine import ConfContext

    change = ConfChange(
        ConfChangeKind.ADD_VOTER, 9, ConfContext(77, Member(9, peer_urls=("http://n",))).encode()
    )
    batch = bench.machine.begin([bench.entry(change), *_later(_puts(bench, b"a"))])
    batch.step(1)
    assert bench.machine.members == {}
    finish(batch)
    result = batch.results[0]
    assert (result.request_id, result.conf_change, result.conf_valid) == (77, change, True)
    assert list(bench.machine.members) == [9]


def _later(entries: list[Entry]) -> list[Entry]:
    return [entry._replace(index=entry.index + 1) for entry in entries]


def test_a_store_of_another_layout_is_refused(bench: Bench) -> None:
    bench.put(b"a")
    txn = bench.store.write()
    txn.put("meta", b"format", b"kvstore machine 99")
    txn.commit()
    txn.close()
    with pytest.raises(FormatError, match="machine 99"):
        bench.reopen()


def test_cluster_version_and_quota(bench: Bench) -> None:
    bench.apply(b"3.6.0", CommandKind.CLUSTER_VERSION)
    bench.reopen()
    machine: Any = bench.machine
    assert machine.cluster_version == "3.6.0"
    size = bench.store.size_bytes()
    for quota, over in ((-1, False), (0, False), (size + 10, False), (size + 9, True)):
        machine.config = machine.config.__class__(quota_bytes=quota)
        assert machine.over_quota(9) is over, quota


def _steps(bench: Bench, *requests: TxnRequest) -> int:
    """How many slices the requests take as one batch."""
    entries = []
    for offset, request in enumerate(requests):
        entry = bench.entry(request, offset + 1)
        entries.append(entry._replace(index=entry.index + offset))
    batch = bench.machine.begin(entries)
    steps = 1
    while not batch.step(512):
        steps += 1
    return steps


def _many_puts(count: int, at: int = 0) -> list[RequestOp]:
    return [RequestOp(request_put=PutRequest(key=b"%06d" % (at + i))) for i in range(count)]


def test_a_transaction_of_thousands_of_operations_takes_many_turns(bench: Bench) -> None:
    inner = [
        RequestOp(request_txn=TxnRequest(success=_many_puts(100, at))) for at in range(0, 4000, 100)
    ]
    # Each operation is looked at when the path is chosen, twice checked, then run.
    assert _steps(bench, TxnRequest(success=inner)) >= 4 * 4000 // 512
    assert bench.machine.revision == 2
    assert len(bench.pairs()) == 4000


def test_a_batch_of_wide_transactions_takes_many_turns(bench: Bench) -> None:
    wide = [TxnRequest(success=_many_puts(100, at)) for at in range(0, 4000, 100)]
    assert _steps(bench, *wide) >= 4000 // 700
    assert bench.machine.revision == 41
