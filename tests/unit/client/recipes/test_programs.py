"""The programs of locks, elections and maintenance, driven by scripted answers."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.client import recipes
from kvstore.client.call import Effect, Unary
from kvstore.client.errors import (
    ElectionError,
    KvError,
    LeaseLostError,
    PermissionDeniedError,
    UnavailableError,
)
from kvstore.client.recipes import Claim, Program, WaitDeleted
from kvstore.client.values import (
    Alarm,
    AlarmsResult,
    AlarmType,
    Header,
    KeyValue,
    PutResult,
    RangeResult,
    Status,
    TxnResult,
)


def kv(key: bytes, create: int, value: bytes = b"") -> KeyValue:
    return KeyValue(key, value, create, create, 1, 0)


def found(*kvs: KeyValue, revision: int = 20) -> RangeResult:
    return RangeResult(Header(revision=revision), kvs, False, len(kvs))


def drive(program: Program[Any], *answers: Any) -> tuple[list[Any], Any]:
    """Run with `answers` (errors are thrown in); returns the steps and the result."""
    steps = [next(program)]
    try:
        for answer in answers:
            if isinstance(answer, Exception):
                steps.append(program.throw(answer))
            else:
                steps.append(program.send(answer))
    except StopIteration as done:
        assert len(steps) == len(answers)
        return steps, done.value
    raise AssertionError(f"wants more answers after {len(steps)} steps")


def test_a_free_lock_takes_one_call() -> None:
    won = TxnResult(Header(revision=8), True, (PutResult(Header(), None), found(kv(b"l/1f", 8))))
    steps, claim = drive(recipes.claim("l", 0x1F), won)
    assert claim == Claim(b"l/1f", 8, 0x1F, True, 8)
    request = steps[0].request
    assert steps[0].effect is Effect.REPEATABLE
    assert request.compare[0].key == b"l/1f"
    assert request.success[0].request_put.lease == 0x1F
    oldest = request.success[1].request_range
    assert (oldest.key, oldest.range_end, oldest.limit) == (b"l/", b"l0", 1)
    assert request.failure[1].request_range == oldest


def test_a_queue_is_waited_through_from_behind() -> None:
    lost = TxnResult(Header(revision=9), True, (PutResult(Header(), None), found(kv(b"l/1", 3))))
    steps, claim = drive(
        recipes.claim("l", 2),
        lost,
        found(kv(b"l/5", 7), revision=10),
        None,
        found(kv(b"l/1", 3), revision=12),
        None,
        found(),
        found(kv(b"l/2", 9)),
    )
    assert claim.owned
    assert claim.token == 9
    assert steps[1].request.max_create_revision == 8
    assert steps[2] == WaitDeleted(b"l/5", 11)
    assert steps[4] == WaitDeleted(b"l/1", 13)


def test_a_key_that_is_gone_after_the_wait_means_the_lease_is() -> None:
    lost = TxnResult(Header(revision=9), True, (PutResult(Header(), None), found(kv(b"l/1", 3))))
    for own in (found(), found(kv(b"l/2", 11))):
        with pytest.raises(LeaseLostError):
            drive(recipes.claim("l", 2), lost, found(), own)


def test_the_same_lease_finds_its_place_again() -> None:
    again = TxnResult(Header(revision=30), False, (found(kv(b"l/2", 9)), found(kv(b"l/2", 9))))
    _, claim = drive(recipes.claim("l", 2), again)
    assert (claim.token, claim.owned) == (9, True)


def test_a_campaign_with_another_value_proclaims_it() -> None:
    own = kv(b"e/2", 9, b"old")
    again = TxnResult(Header(revision=30), False, (found(own), found(own)))
    steps, claim = drive(
        recipes.enqueue("e", 2, "new"), again, TxnResult(Header(revision=31), True, ())
    )
    assert claim.owned
    assert steps[1].request.success[0].request_put.value == b"new"


def test_proclaiming_needs_the_place() -> None:
    place = Claim(b"e/2", 9, 2, True, 9)
    steps, revision = drive(recipes.proclaim(place, "x"), TxnResult(Header(revision=31), True, ()))
    assert revision == 31
    assert steps[0].effect is Effect.WRITE
    assert steps[0].request.compare[0].create_revision == 9
    with pytest.raises(ElectionError, match="not leader"):
        drive(recipes.proclaim(place, "x"), TxnResult(Header(), False, ()))


def status(member: int, leader: int) -> Status:
    return Status("", Header(member_id=member), "", "", 0, 0, 0, leader, 0, 0, 0, False, ())


def test_the_leader_is_looked_for_past_dead_members() -> None:
    steps, old = drive(
        recipes.move_leader(["a", "b", "c"], 7, None),
        UnavailableError("down"),
        status(2, 3),
        status(3, 3),
        None,
    )
    assert old == 3
    assert [each.endpoint for each in steps] == ["a", "b", "c", "c"]
    assert steps[3].request.targetID == 7
    with pytest.raises(KvError, match="no leader among the endpoints a, b"):
        drive(recipes.move_leader(["a", "b"], 7, None), status(1, 0), status(2, 0))


def test_disarming_names_each_alarm() -> None:
    raised = (Alarm(1, AlarmType.NOSPACE), Alarm(2, AlarmType.NOSPACE))
    steps, cleared = drive(
        recipes.disarm(AlarmType.NONE, 2, None),
        AlarmsResult(Header(), raised),
        AlarmsResult(Header(revision=4), ()),
    )
    assert cleared.alarms == (Alarm(2, AlarmType.NOSPACE),)
    assert (steps[1].request.memberID, steps[1].request.action) == (2, 2)


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ((found(), AlarmsResult(Header(), ())), ""),
        ((UnavailableError("gone"),), "gone"),
        (
            (found(), AlarmsResult(Header(), (Alarm(1, AlarmType.CORRUPT),))),
            "active alarms: CORRUPT",
        ),
        ((PermissionDeniedError("no"), AlarmsResult(Header(), ())), ""),
        ((found(), PermissionDeniedError("no")), ""),
    ],
)
def test_health(answers: tuple[Any, ...], problem: str) -> None:
    times = iter([1.0, 1.5, 9.0])
    steps, health = drive(recipes.health("e", 1.0, lambda: next(times)), *answers)
    assert (health.healthy, health.error) == (not problem, problem)
    assert health.took_s == 0.5
    assert all(isinstance(each, Unary) and each.endpoint == "e" for each in steps)
