"""Unknown outcomes are decided from the event log: done at a revision, absent, or the system's."""

from __future__ import annotations

from dataclasses import replace

from tests.linear import generate, model, revision_check
from tests.linear.generate import Profile
from tests.linear.history import (
    KV,
    Compact,
    Compare,
    Delete,
    Event,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Outcome,
    Put,
    Range,
    Request,
    Response,
    Txn,
    Witness,
)
from tests.linear.settle import SYSTEM, settle
from tests.sim.prng import Prng


def log_of(*requests: Request) -> Witness:
    store = model.empty()
    for request in requests:
        store, _ = model.apply(store, request)
    return model.log_of(store)


def ok(call: int, ret: int, request: Request, response: Response) -> Operation:
    return Operation(call, call, request, ret, Outcome.OK, response)


def unknown(call: int, request: Request) -> Operation:
    return Operation(call, call, request)


PUT_A, PUT_B = Put(b"a", b"1"), Put(b"b", b"1")


def test_a_write_in_the_log_was_done_by_the_time_somebody_knew() -> None:
    seen = ok(50, 60, Range(b"x"), Response(3))
    lost = unknown(5, PUT_A)
    settled = settle([ok(20, 30, PUT_B, Response(3)), lost, seen], log_of(PUT_A, PUT_B))
    done = replace(lost, outcome=Outcome.OK, response=Response(2), ret=30)
    assert settled[2:] == [done]
    assert lost.outcome is Outcome.UNKNOWN  # the record itself stays


def test_a_write_not_in_the_log_is_absent() -> None:
    put = ok(20, 30, PUT_B, Response(2))
    assert settle([unknown(5, PUT_A), put], log_of(PUT_B)) == [put]


def test_a_read_and_a_failed_transaction_are_absent() -> None:
    assert settle([unknown(5, Range(b"a")), unknown(6, Txn())], []) == []


def test_what_leaves_no_trace_stays_unknown() -> None:
    silent = [unknown(5, Compact(1)), unknown(6, LeaseGrant(7, 5))]
    assert settle(silent, []) == silent


def test_a_write_that_nobody_saw_has_no_return() -> None:
    (done,) = settle([unknown(5, PUT_A)], log_of(PUT_A))
    assert (done.outcome, done.response, done.ret) == (Outcome.OK, Response(2), None)


def test_a_write_called_after_its_revision_was_seen_is_not_its_author() -> None:
    seen = ok(1, 2, Range(b"a"), Response(2, (KV(b"a", b"1", 2, 2, 1),), 1))
    assert settle([seen, unknown(5, PUT_A)], log_of(PUT_A)) == [seen]


def test_each_write_is_done_once_the_last_called_first() -> None:
    history = [unknown(5, Delete(b"a")), unknown(6, Delete(b"a")), ok(1, 2, PUT_A, Response(2))]
    witness = log_of(PUT_A, Delete(b"a"), PUT_A, Delete(b"a"), PUT_A, Delete(b"a"))
    done = settle(history, witness)[1:]
    assert [(op.call, op.response.revision) for op in done] == [(6, 3), (5, 5)]


def test_who_is_needed_elsewhere_is_not_taken_for_what_another_can_have_done() -> None:
    """Both may have deleted the key; only the transaction can have made the last revision."""
    create = Txn((Compare(b"a", "create", "=", 0),), (Put(b"a", b"2"),), (Delete(b"a"),))
    history = [unknown(5, Delete(b"a")), unknown(6, create), ok(1, 2, PUT_A, Response(2))]
    done = settle(history, log_of(PUT_A, Delete(b"a"), Put(b"a", b"2")))[1:]
    assert {op.call: op.response.revision for op in done} == {5: 3, 6: 4}


def test_a_transaction_of_unknown_outcome_is_answered_as_it_would_have_been() -> None:
    txn = Txn((), (PUT_A, Range(b"a")))
    (done,) = settle([unknown(5, txn)], log_of(txn))
    pair = KV(b"a", b"1", 2, 2, 1)
    parts = (Response(2), Response(2, (pair,), 1))
    assert done.response == Response(2, succeeded=True, parts=parts)


LEASE = [
    ok(1, 2, LeaseGrant(7, 5), Response(1)),
    ok(3, 4, Put(b"a", b"1", 7), Response(2)),
]
EXPIRED = log_of(LeaseGrant(7, 5), Put(b"a", b"1", 7), LeaseRevoke(7))


def test_an_expiry_is_an_operation_of_the_system() -> None:
    seen = ok(9, 10, Range(b"a"), Response(3))
    settled = settle([*LEASE, seen], EXPIRED)
    expiry = Operation(SYSTEM, 3, LeaseRevoke(7), 10, Outcome.OK, Response(3))
    assert settled == [*LEASE, seen, expiry]
    assert revision_check.check(settled).legal


def test_a_revocation_that_was_not_heard_is_its_clients() -> None:
    lost = unknown(5, LeaseRevoke(7))
    (done,) = settle([*LEASE, lost], EXPIRED)[2:]
    assert (done.client, done.response) == (5, Response(3))


def test_an_answered_revocation_needs_no_other_author() -> None:
    revoked = ok(5, 6, LeaseRevoke(7), Response(3))
    assert settle([*LEASE, revoked], EXPIRED) == [*LEASE, revoked]


def test_a_revocation_that_came_later_and_found_nothing_is_not_the_author() -> None:
    granted, put = LeaseGrant(7, 5), Put(b"a", b"1", 7)
    lost = unknown(25, Delete(b"a"))
    history = [
        ok(1, 2, granted, Response(1)),
        ok(10, 20, put, Response(2)),
        lost,
        ok(30, 40, Range(b"a"), Response(3)),
        ok(50, 60, LeaseRevoke(7), Response(3)),
    ]
    settled = settle(history, log_of(granted, put, Delete(b"a")))
    done = replace(lost, outcome=Outcome.OK, response=Response(3, deleted=1), ret=40)
    assert done in settled


def test_a_lease_that_is_used_later_has_not_expired() -> None:
    later = Put(b"b", b"2", 7)
    witness = log_of(LeaseGrant(7, 5), Put(b"a", b"1", 7), Delete(b"a"), later)
    lost, put = unknown(5, Delete(b"a")), ok(7, 8, later, Response(4))
    (done,) = settle([*LEASE, lost, put], witness)[3:]
    assert (done.request, done.response.revision) == (Delete(b"a"), 3)
    # Nor did it end by a revocation, though that would have deleted the same.
    revocation = unknown(6, LeaseRevoke(7))
    settled = settle([*LEASE, lost, revocation, put], witness)
    assert settled[3:] == [done]
    assert revision_check.check(settled).legal


def test_a_revision_that_nobody_asked_for_stays_a_gap() -> None:
    stray: Witness = [(2, (Event("put", KV(b"a", b"?", 2, 2, 1)),))]
    seen = ok(5, 6, Range(b"x"), Response(2))
    settled = settle([unknown(1, PUT_A), seen], stray)
    assert settled == [seen]
    assert not revision_check.check(settled).legal


def test_settled_histories_of_random_runs_hold_what_really_happened() -> None:
    for seed in range(60):
        profile = Profile(unknown=300, expiring=50)
        plan = generate.plan(Prng(seed), profile)
        recorded = plan.carry_out()
        store = revision_check.judged(settle(recorded.history, recorded.witness))[1]
        assert store is not None
        assert model.log_of(store) == recorded.witness
