"""Which failures are tried again, after which pauses, and for how long."""

from __future__ import annotations

import math

import pytest

from kvstore import errors as catalogue
from kvstore.client.call import Effect
from kvstore.client.errors import KvError, Outcome, from_status
from kvstore.client.limits import BACKOFF_MAX_S, UNARY_ATTEMPTS_MAX
from kvstore.client.retry import Attempts, backoff_s, blames_endpoint
from kvstore.errors import Code, EtcdError

REFUSED = (Code.UNAVAILABLE, "failed to connect to all addresses")
BROKEN = (Code.UNAVAILABLE, "Socket closed")


def failure(status: tuple[Code, str], effect: Effect) -> KvError:
    return from_status(*status, write=effect is not Effect.READ)


def attempts(
    effect: Effect, *, deadline: float = 10.0, endpoints: int = 3, single: bool = False
) -> Attempts:
    return Attempts(effect, deadline, endpoints, lambda: 0.5, single=single)


def status_of(error: EtcdError) -> tuple[Code, str]:
    return error.code, error.message


@pytest.mark.parametrize(
    ("status", "read", "write"),
    [
        (REFUSED, True, True),
        (BROKEN, True, False),
        (status_of(catalogue.TIMEOUT), True, False),
        (status_of(catalogue.LEADER_CHANGED), True, False),
        (status_of(catalogue.STOPPED), True, False),
        (status_of(catalogue.NO_LEADER), True, True),
        (status_of(catalogue.PROPOSAL_DROPPED), True, True),
        (status_of(catalogue.NOT_SUPPORTED_FOR_LEARNER), True, True),
        (status_of(catalogue.COMPACTED), False, False),
        (status_of(catalogue.EMPTY_KEY), False, False),
        (status_of(catalogue.NO_SPACE), False, False),
        (status_of(catalogue.TOO_MANY_REQUESTS), False, False),
        ((Code.DEADLINE_EXCEEDED, "Deadline Exceeded"), True, False),
        ((Code.INTERNAL, "what"), False, False),
    ],
)
def test_what_is_repeated(status: tuple[Code, str], read: bool, write: bool) -> None:
    for effect, repeats in (
        (Effect.READ, read),
        (Effect.REPEATABLE, read),
        (Effect.WRITE, write),
    ):
        pause = attempts(effect).failed(failure(status, effect), 0.0)
        assert (pause is not None) == repeats, effect


def test_a_pinned_call_is_made_once() -> None:
    pinned = attempts(Effect.READ, single=True)
    assert pinned.failed(failure(REFUSED, Effect.READ), 0.0) is None


def test_only_full_rounds_cost_a_pause_and_pauses_grow_to_a_bound() -> None:
    calls = attempts(Effect.READ, deadline=math.inf)
    pauses = [calls.failed(failure(REFUSED, Effect.READ), 0.0) for _ in range(30)]
    assert pauses[:6] == [0.0, 0.0, 0.025, 0.0, 0.0, 0.05]
    assert max(each or 0.0 for each in pauses) == BACKOFF_MAX_S
    assert backoff_s(1, lambda: 0.0) == pytest.approx(0.0225)
    assert backoff_s(1, lambda: 1.0) == pytest.approx(0.0275)


def test_it_ends_at_the_deadline_and_at_the_bound() -> None:
    calls = attempts(Effect.READ, deadline=1.0, endpoints=1)
    error = failure(REFUSED, Effect.READ)
    assert calls.failed(error, 0.97) == pytest.approx(0.025)
    assert calls.failed(error, 0.99) is None
    endless = attempts(Effect.READ, deadline=math.inf)
    given = [endless.failed(error, 0.0) for _ in range(UNARY_ATTEMPTS_MAX)]
    assert given[-1] is None
    assert None not in given[:-1]


def test_time_is_left_for_another_member() -> None:
    assert attempts(Effect.READ).timeout_s(0.0) == 5.0
    assert attempts(Effect.READ).timeout_s(9.2) == pytest.approx(0.5)
    assert attempts(Effect.READ).timeout_s(9.8) == pytest.approx(0.2)
    assert attempts(Effect.READ).timeout_s(11.0) == 0.0
    assert attempts(Effect.READ, endpoints=1).timeout_s(0.0) == 10.0
    assert attempts(Effect.READ, single=True).timeout_s(0.0) == 10.0
    assert attempts(Effect.WRITE).timeout_s(0.0) == 10.0
    assert attempts(Effect.READ, deadline=math.inf).timeout_s(0.0) is None


def test_an_unknown_outcome_is_never_forgotten() -> None:
    calls = attempts(Effect.REPEATABLE, deadline=1.0)
    assert calls.failed(failure(BROKEN, Effect.REPEATABLE), 0.0) is not None
    last = failure(REFUSED, Effect.REPEATABLE)
    assert last.outcome_known
    assert calls.failed(last, 2.0) is None
    assert last.outcome is Outcome.UNKNOWN


def test_who_is_to_blame() -> None:
    assert blames_endpoint(failure(BROKEN, Effect.WRITE))
    assert blames_endpoint(from_status(Code.CANCELLED, "RST_STREAM", write=True))
    assert not blames_endpoint(from_status(Code.INVALID_ARGUMENT, "no", write=True))
