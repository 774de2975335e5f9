"""Request ids, the pending table and the queue in front of Raft."""

from __future__ import annotations

from kvstore.node import limits
from kvstore.node.maintenance import PeriodicCompaction
from kvstore.node.proposals import Proposals, RequestIds


def test_ids_differ_between_members_and_between_starts() -> None:
    seen: set[int] = set()
    for member in (1, 2, 0xFFFF):
        for start in (1_700_000_000_000, 1_700_000_000_001):
            ids = RequestIds(member, start)
            seen |= {ids.next() for _ in range(200)}
    assert len(seen) == 3 * 2 * 200
    assert all(0 < number < 1 << 64 for number in seen)


def test_chunks_are_bounded_and_what_nobody_took_goes_back_in_order() -> None:
    proposals = Proposals(RequestIds(1, 1), 7.0)
    for number in range(10):
        proposals.enqueue(number, bytes(300_000))
    chunk = proposals.take_chunk()
    assert [request_id for request_id, _ in chunk] == [0, 1, 2]
    proposals.put_back(chunk)
    order: list[int] = []
    while chunk := proposals.take_chunk():
        order += [request_id for request_id, _ in chunk]
    assert order == list(range(10))


def test_one_entry_larger_than_a_chunk_passes_alone() -> None:
    proposals = Proposals(RequestIds(1, 1), 7.0)
    proposals.enqueue(1, bytes(limits.PROPOSE_CHUNK_BYTES * 2))
    proposals.enqueue(2, b"x")
    assert [request_id for request_id, _ in proposals.take_chunk()] == [1]


def test_what_is_too_old_is_forgotten_in_table_and_queue() -> None:
    proposals = Proposals(RequestIds(1, 1), 7.0)
    for number in range(1, 5):
        proposals.wait(number, lambda value, error: None, float(number))
        proposals.enqueue(number, b"x")
    assert [pending.started for pending in proposals.expired(9.5)] == [1.0, 2.0]
    assert [request_id for request_id, _ in proposals.take_chunk()] == [3, 4]
    assert proposals.settle(1) is None
    assert proposals.settle(3) is not None


def test_the_queue_is_bounded() -> None:
    proposals = Proposals(RequestIds(1, 1), 7.0)
    while not proposals.full:
        proposals.enqueue(1, bytes(1 << 20))
    assert proposals.queued == limits.MAX_QUEUED_WRITE_BYTES >> 20


def test_periodic_compaction_goes_to_the_revision_of_one_period_ago() -> None:
    # One hour of retention: notes every six minutes, compacts every hour.
    notes = PeriodicCompaction(3600.0)
    assert notes.interval_s == 360.0
    targets = {}
    for step in range(40):
        now = step * 360.0
        target = notes.note(now, revision=100 + step)
        if target is not None:
            targets[step] = target
    assert targets == {10: 100, 20: 110, 30: 120}


def test_a_long_period_compacts_every_hour() -> None:
    notes = PeriodicCompaction(5 * 3600.0)
    found = [
        (step, target)
        for step in range(80)
        if (target := notes.note(step * 360.0, revision=step)) is not None
    ]
    assert found == [(50, 0), (60, 10), (70, 20)]
