"""The lessor's deadlines, with a clock of the test's own."""

from __future__ import annotations

from typing import Any

from kvstore.errors import NOT_PRIMARY_LESSOR, EtcdError
from kvstore.node.leasing import Lessor, minimum_ttl_s
from kvstore.node.limits import (
    LEASE_EXPIRY_RETRY_S,
    LEASE_HOLD_CHECK_S,
    MAX_LEASE_BATCH,
    MAX_LEASES_LOOKED_AT,
)


class Answers:
    def __init__(self) -> None:
        self.all: list[tuple[Any, EtcdError | None]] = []

    def __call__(self, value: Any, error: EtcdError | None) -> None:
        self.all.append((value, error))


def lessor_with(leases: dict[int, int], now: float = 0.0) -> tuple[Lessor, dict[int, int]]:
    lessor = Lessor(lambda lease_id: lease_id in leases, election_timeout_s=1.0)
    lessor.promote(leases.items(), now)
    return lessor, leases


def renewed(lessor: Lessor, lease_id: int, now: float) -> Any:
    answers = Answers()
    lessor.renew(lease_id, now, answers)
    return answers.all


def test_the_minimum_is_one_and_a_half_election_timeouts_rounded_up() -> None:
    assert minimum_ttl_s(10, 100) == 2
    assert minimum_ttl_s(5, 20) == 1
    assert minimum_ttl_s(50, 1000) == 75


def test_only_the_leader_keeps_deadlines() -> None:
    lessor, _ = lessor_with({})
    lessor.demote()
    lessor.granted(1, 5, 0.0)
    assert len(lessor) == 0
    assert lessor.due(100.0) == []
    assert renewed(lessor, 1, 0.0) == [(None, NOT_PRIMARY_LESSOR)]


def test_a_renewal_moves_the_deadline_without_a_second_heap_record() -> None:
    leases = {1: 10}
    lessor, _ = lessor_with(leases)
    for second in range(1, 2000):
        assert renewed(lessor, 1, float(second)) == [(10, None)]
        assert lessor.due(float(second)) == []
    assert len(lessor._heap) == 1
    assert lessor.remaining_s(1, 1999.0) == 10.0
    assert lessor.due(2010.0) == [1]


def test_an_expiry_that_was_not_applied_is_proposed_again() -> None:
    lessor, leases = lessor_with({1: 2})
    assert lessor.due(3.0) == [1]
    assert lessor.due(3.1) == []
    assert lessor.due(3.0 + LEASE_EXPIRY_RETRY_S) == [1]
    del leases[1]
    lessor.revoked(1)
    assert lessor.due(100.0) == []


def test_a_lease_that_ended_otherwise_is_not_proposed() -> None:
    lessor, leases = lessor_with({1: 2, 2: 2})
    del leases[1]
    assert lessor.due(4.0) == [2]
    assert len(lessor) == 1


def test_a_renewal_while_the_expiry_is_under_way_waits_for_the_end() -> None:
    lessor, leases = lessor_with({1: 2})
    assert lessor.due(3.5) == [1]
    answers = Answers()
    lessor.renew(1, 3.6, answers)
    assert answers.all == []
    del leases[1]
    lessor.revoked(1)
    assert answers.all == [(0, None)]


def test_losing_leadership_fails_the_renewals_that_wait() -> None:
    lessor, _ = lessor_with({1: 2})
    lessor.due(3.5)
    answers = Answers()
    lessor.renew(1, 3.6, answers)
    lessor.demote()
    assert answers.all == [(None, NOT_PRIMARY_LESSOR)]


def test_a_mass_expiry_is_spread_over_time() -> None:
    leases = dict.fromkeys(range(5000), 2)
    lessor, _ = lessor_with(leases)
    assert lessor.due(2.9) == []
    proposed: list[int] = []
    for tick in range(1, 11):
        batch = lessor.due(3.0 + tick * 0.1)
        assert len(batch) <= MAX_LEASE_BATCH
        proposed += batch
    # What had gathered while nothing expired, and a second's worth.
    assert 1000 <= len(proposed) <= 1000 + MAX_LEASE_BATCH + 100
    assert len(set(proposed)) == len(proposed)


def test_granting_and_revoking_one_id_for_ever_keeps_the_heap_small() -> None:
    lessor, leases = lessor_with({})
    for _ in range(10_000):
        leases[1] = 60
        lessor.granted(1, 60, 0.0)
        del leases[1]
        lessor.revoked(1)
    assert len(lessor._heap) <= 1100


def test_a_shorter_lease_under_a_reused_id_ends_in_its_own_time() -> None:
    lessor, leases = lessor_with({1: 1000})
    lessor.revoked(1)
    lessor.granted(1, 5, 10.0)
    assert leases
    assert lessor.due(15.5) == [1]


def test_who_asked_is_told_of_every_renewal_and_of_nothing_else() -> None:
    lessor, leases = lessor_with({1: 5, 2: 5})
    told: list[tuple[list[int], float]] = []
    lessor.on_renewed = lambda lease_ids, now: told.append((list(lease_ids), now))
    assert renewed(lessor, 1, 1.0) == [(5, None)]
    assert renewed(lessor, 404, 1.0) == [(0, None)]
    answers = Answers()
    lessor.renew_many([2, 404, 1], 2.0, answers)
    assert answers.all == [([5, 0, 5], None)]
    assert told == [([1], 1.0), ([2, 1], 2.0)]
    assert lessor.remaining_s(2, 2.0) == 5.0
    del leases[2]
    lessor.renew_many([2], 3.0, answers)
    assert answers.all[1:] == [([0], None)]
    assert len(told) == 2


def test_renewing_many_waits_for_those_that_just_end() -> None:
    lessor, leases = lessor_with({1: 2, 2: 60})
    assert lessor.due(3.5) == [1]
    answers = Answers()
    lessor.renew_many([2, 1], 3.6, answers)
    assert answers.all == []
    del leases[1]
    lessor.revoked(1)
    assert answers.all == [([60, 0], None)]


def test_renewing_many_fails_with_the_leadership() -> None:
    lessor, _ = lessor_with({1: 2, 2: 60})
    lessor.due(3.5)
    answers = Answers()
    lessor.renew_many([2, 1], 3.6, answers)
    lessor.demote()
    lessor.renew_many([2], 3.7, answers)
    assert answers.all == [(None, NOT_PRIMARY_LESSOR)] * 2


def test_a_held_lease_goes_on_until_it_is_let_go() -> None:
    lessor, _ = lessor_with({1: 2, 2: 2})
    held = {1}
    asked: list[int] = []

    def is_held(lease_id: int) -> bool:
        asked.append(lease_id)
        return lease_id in held

    lessor.held = is_held
    assert lessor.due(2.9) == []
    assert asked == []
    assert lessor.due(3.0) == [2]
    assert lessor.due(3.5) == []
    held.clear()
    assert lessor.due(3.9) == []
    assert lessor.due(3.0 + LEASE_HOLD_CHECK_S) == [1]


def test_a_held_lease_can_be_renewed_after_its_time() -> None:
    lessor, _ = lessor_with({1: 2})
    lessor.held = lambda _lease_id: True
    assert lessor.due(10.0) == []
    assert renewed(lessor, 1, 10.5) == [(2, None)]
    lessor.held = None
    assert lessor.due(12.4) == []
    assert lessor.due(12.5) == [1]


def test_a_held_lease_that_its_holder_ends_is_not_renewed_any_more() -> None:
    lessor, leases = lessor_with({1: 2})
    lessor.held = lambda _lease_id: True
    lessor.expiring([1, 404], 5.0)
    assert renewed(lessor, 1, 5.1) == []
    assert lessor.due(5.2) == []
    del leases[1]
    lessor.revoked(1)
    assert len(lessor) == 0


def test_looking_at_held_leases_is_bounded() -> None:
    lessor, _ = lessor_with(dict.fromkeys(range(12_000), 2))
    asked: list[int] = []
    lessor.held = lambda lease_id: not asked.append(lease_id)  # type: ignore[func-returns-value]
    assert lessor.due(100.0) == []
    assert len(asked) == MAX_LEASES_LOOKED_AT
    lessor.due(100.1)
    lessor.due(100.2)
    assert sorted(asked) == list(range(12_000))
