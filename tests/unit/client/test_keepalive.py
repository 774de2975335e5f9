"""When leases are renewed, and when they count as lost."""

from __future__ import annotations

from kvstore.client.keepalive import KeepAliveSchedule
from kvstore.client.limits import (
    KEEP_ALIVE_PARALLEL,
    KEEP_ALIVE_RETRY_S,
    KEEP_ALIVE_TIMEOUT_MAX_S,
    KEEP_ALIVE_TIMEOUT_MIN_S,
)


def test_renewed_every_third_of_the_ttl() -> None:
    schedule = KeepAliveSchedule()
    assert schedule.next_wake() is None
    schedule.add(1, 6, 100.0)
    assert schedule.next_wake() == 102.0
    assert schedule.take_due(101.9) == []
    assert schedule.take_due(102.0) == [(1, 2.0)]
    assert schedule.take_due(102.1) == []  # on its way
    assert schedule.renewed(1, 6, 102.0)
    assert schedule.next_wake() == 104.0
    assert schedule.expires(1) == 108.0


def test_a_failed_renewal_is_repeated_soon_until_the_time_is_over() -> None:
    schedule = KeepAliveSchedule()
    schedule.add(1, 6, 100.0)
    schedule.take_due(102.0)
    schedule.failed(1, 103.0)
    assert schedule.next_wake() == 103.0 + KEEP_ALIVE_RETRY_S
    assert schedule.expired(105.9) == []
    assert schedule.expired(106.0) == [1]
    assert schedule.expired(106.0) == []
    assert len(schedule) == 0
    schedule.failed(1, 107.0)
    assert schedule.renewed(1, 6, 107.0)  # a late answer: it is kept no longer
    assert schedule.next_wake() is None


def test_an_answer_that_never_comes_makes_it_due_again() -> None:
    schedule = KeepAliveSchedule()
    schedule.add(1, 60, 0.0)
    ((_, timeout_s),) = schedule.take_due(20.0)
    assert timeout_s == KEEP_ALIVE_TIMEOUT_MAX_S
    assert schedule.take_due(20.0 + timeout_s + KEEP_ALIVE_RETRY_S) == [(1, timeout_s)]


def test_ttl_zero_is_the_end() -> None:
    schedule = KeepAliveSchedule()
    schedule.add(1, 6, 100.0)
    assert not schedule.renewed(1, 0, 102.0)
    assert schedule.expires(1) is None


def test_the_most_urgent_come_first_and_not_all_at_once() -> None:
    schedule = KeepAliveSchedule()
    for lease_id in range(KEEP_ALIVE_PARALLEL + 10):
        schedule.add(lease_id, 60, 0.0)
    schedule.add(9999, 1, 0.0)
    due = schedule.take_due(20.0)
    assert due[0] == (9999, KEEP_ALIVE_TIMEOUT_MIN_S)
    assert len(due) == KEEP_ALIVE_PARALLEL
    assert len(schedule.take_due(20.0)) == 11


def test_dropped_is_forgotten() -> None:
    schedule = KeepAliveSchedule()
    schedule.add(1, 6, 0.0)
    schedule.drop(1)
    schedule.drop(1)
    assert schedule.expired(100.0) == []
