"""The journal and batches: slices, hashes, what a put elsewhere pays, snapshots."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest

from kvstore.machine import (
    ABSENT,
    ANY_REVISION,
    DELETE,
    PUT,
    BatchAction,
    BatchFailure,
    BatchItem,
    Cause,
    CommandError,
    CommandKind,
    Machine,
    MachineConfig,
    batch_payload,
    cost_bytes,
    expiry_payload,
    read_outcomes,
)
from kvstore.machine.journal import Journal
from kvstore.pb.rpc_pb2 import LeaseGrantRequest, PutRequest
from kvstore.storage.memory_store import MemoryStore
from kvstore.storage.store import Store
from tests.unit.machine.kit import Bench, finish
from tests.unit.machine.stores import open_store

HERE = b"/kvstore/services/d/s/"


@pytest.fixture
def bench(store: Store) -> Bench:
    return Bench(store)


def _register(count: int, time_ms: int = 1000) -> bytes:
    return batch_payload(
        time_ms,
        0,
        [
            BatchItem(HERE + b"%05d" % n, ABSENT, BatchAction.PUT_NEW_LEASE, b"v", n + 1, 60, "new")
            for n in range(count)
        ],
    )


def test_a_large_batch_is_applied_in_turns_and_seen_at_once(bench: Bench) -> None:
    batch = bench.machine.begin([bench.entry(_register(1000), kind=CommandKind.BATCH)])
    turns = 1
    while not batch.step():
        turns += 1
        assert not bench.machine.leases
        assert bench.pairs() == {}
    assert turns == 8
    assert bench.machine.revision == 2
    assert sorted(bench.machine.leases) == list(range(1, 1001)) == sorted(batch.granted)
    outcomes = read_outcomes(batch.results[0].body)
    assert outcomes == [(BatchFailure.NONE, 2)] * 1000
    with bench.machine.view() as view:
        records = view.journal_since(0, 2000)
    assert [(record.revision, record.sub) for record in records] == [(2, n) for n in range(1000)]


def test_what_follows_a_batch_in_the_making_is_certain_once_it_has_changed_something(
    bench: Bench,
) -> None:
    batch = bench.machine.begin([bench.entry(_register(300), kind=CommandKind.BATCH)])
    assert batch.certain == (0, 1)
    batch.apply(1)
    assert batch.certain == (1, 2)
    finish(batch)
    assert bench.machine.revision == 2


def test_nobody_waits_no_outcomes_are_built(bench: Bench) -> None:
    result = bench.apply(_register(3), CommandKind.BATCH, waiting=())
    assert (result.body, result.revision) == (b"", 2)


def test_an_unknown_action_stops_the_node(bench: Bench) -> None:
    item = BatchItem(b"a", ANY_REVISION, 9)  # type: ignore[arg-type]
    entry = bench.entry(batch_payload(0, 0, [item]), kind=CommandKind.BATCH)
    with pytest.raises(CommandError, match="unknown to this version"):
        finish(bench.machine.begin([entry]))
    assert bench.machine.applied_index == 0


def test_an_expiry_without_a_time_is_applied_all_the_same(bench: Bench) -> None:
    import msgpack

    bench.apply(_register(1), CommandKind.BATCH)
    bench.apply(msgpack.packb([1, [1]]), CommandKind.LEASE_EXPIRE)
    with bench.machine.view() as view:
        last = view.journal_since(3, 1)[0]
    assert (last.time_ms, last.cause, last.op) == (1000, Cause.LEASE_EXPIRED, DELETE)


def test_a_put_elsewhere_does_not_touch_the_journal(bench: Bench) -> None:
    with patch.object(Journal, "append", side_effect=AssertionError("called")):
        bench.put(b"elsewhere")
        bench.put(HERE[:-6])
        bench.delete(b"elsewhere")
        with pytest.raises(AssertionError, match="called"):
            bench.put(HERE + b"1")


def test_reading_the_journal(bench: Bench) -> None:
    for value in (b"a", b"b", b"c"):
        bench.put(HERE + b"1", value)
    bench.put(b"other")
    bench.delete(HERE + b"1")
    with bench.machine.view() as view:
        everything = view.journal_since(0, 10)
        assert [(r.revision, r.op, r.value) for r in everything] == [
            (2, PUT, b"a"),
            (3, PUT, b"b"),
            (4, PUT, b"c"),
            (6, DELETE, b"c"),
        ]
        assert view.journal_since(3, 2) == everything[1:3]
        assert list(view.journal(3, 5)) == everything[1:3]
        assert list(view.journal(0, newest_first=True)) == everything[::-1]
        assert view.journal_at(4, 0) == everything[2]
        assert view.journal_at(5, 0) is None
        assert view.journal_oldest() == everything[0]


def test_an_empty_journal_begins_nowhere(bench: Bench) -> None:
    with bench.machine.view() as view:
        assert view.journal_oldest() is None
        assert view.journal_since(0, 5) == []


def test_the_journal_counts_in_the_hash_of_the_state_and_not_in_that_of_keys() -> None:
    here, elsewhere = (
        Bench(MemoryStore(Machine.TABLES), MachineConfig(journal_prefix=prefix))
        for prefix in (b"a", b"b")
    )
    for bench in (here, elsewhere):
        bench.put(b"a", b"1")
        bench.delete(b"a")
    assert here.hash_kv() == elsewhere.hash_kv()
    assert here.hash() != elsewhere.hash()


def test_pruning_does_not_depend_on_how_entries_are_cut_into_batches() -> None:
    config = MachineConfig(journal_max_records=5, journal_max_age_ms=100)
    cut, whole = (Bench(MemoryStore(Machine.TABLES), config) for _ in range(2))
    payloads = [_register(9, 1000), _delete_all(9, 1050), _register(9, 1151), _delete_all(3, 1152)]
    for payload in payloads:
        cut.apply(payload, CommandKind.BATCH)
        cut.reopen()
    entries = [whole.entry(payload, kind=CommandKind.BATCH) for payload in payloads]
    finish(whole.machine.begin([e._replace(index=n) for n, e in enumerate(entries, 1)]))
    assert cut.hash() == whole.hash()
    with cut.machine.view() as view:
        assert len(view.journal_since(0, 100)) == 5


def test_a_clock_that_leaps_ahead_throws_no_history_away() -> None:
    hour = 3_600_000
    now = 1_800_000_000_000
    bench = Bench(MemoryStore(Machine.TABLES), MachineConfig(journal_max_age_ms=hour))

    def kept() -> int:
        with bench.machine.view() as view:
            return len(view.journal_since(0, 100))

    bench.apply(_register(2, now), CommandKind.BATCH)
    # A leader whose clock is ten days ahead, for as long as it likes.
    for turn in range(100):
        bench.apply(batch_payload(now + 240 * hour + turn * 10_000, 0, []), CommandKind.BATCH)
        bench.reopen()
    assert kept() == 2
    # Time that passes counts, whatever the clock says.
    for turn in range(100, 361):
        bench.apply(batch_payload(now + 240 * hour + turn * 10_000, 0, []), CommandKind.BATCH)
    assert kept() == 0


def _delete_all(count: int, time_ms: int) -> bytes:
    items = [
        BatchItem(HERE + b"%05d" % n, ANY_REVISION, BatchAction.DELETE, reason="over")
        for n in range(count)
    ]
    return batch_payload(time_ms, 0, items)


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_a_snapshot_keeps_journal_and_clock(kind: str, tmp_path: Path) -> None:
    store = open_store(kind, tmp_path / "db")
    bench = Bench(store)
    bench.apply(_register(3), CommandKind.BATCH)
    bench.apply(expiry_payload(1, [2], 2500), CommandKind.LEASE_EXPIRE)
    store.copy_to(tmp_path / "copy")
    if kind == "lmdb":
        copied = open_store(kind, tmp_path / "copy")
    else:
        copied = MemoryStore.from_image(Machine.TABLES, [(tmp_path / "copy").read_bytes()])
    other = Bench(copied)
    assert other.machine.clock_ms == 2500
    assert other.hash() == bench.hash()
    for each in (bench, other):
        each.put(HERE + b"9")
    assert other.hash() == bench.hash()
    with other.machine.view() as view:
        assert view.journal_since(0, 9)[-1].time_ms == 2500
    copied.close()
    store.close()


def test_the_cost_of_a_batch_is_that_of_its_puts() -> None:
    assert cost_bytes(CommandKind.BATCH, _delete_all(5, 0)) == 0
    one = cost_bytes(CommandKind.BATCH, _register(1))
    put = PutRequest(key=HERE + b"%05d" % 0, value=b"v").SerializeToString()
    grant = LeaseGrantRequest(ID=1, TTL=60).SerializeToString()
    expected = cost_bytes(CommandKind.PUT, put) + cost_bytes(CommandKind.LEASE_GRANT, grant)
    assert one == expected
