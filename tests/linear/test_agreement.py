"""The two checkers, and trying every order, agree on small random histories, legal and spoilt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.linear import generate, revision_check, wgl
from tests.linear.finding import Verdict
from tests.linear.generate import Profile
from tests.linear.history import Operation, Outcome, Response
from tests.linear.models import StoreModel
from tests.linear.settle import settle
from tests.sim import counts
from tests.sim.prng import Prng

SEEDS = st.integers(0, 2**32)


def history_of(seed: int, operations: int) -> list[Operation]:
    """A settled history without requests that stay unknown: both checkers decide it exactly."""
    prng = Prng(seed)
    profile = Profile(
        clients=prng.between(2, 5),
        operations=operations,
        keys=prng.between(1, 2),
        unknown=100,
        pause_max=prng.pick([2, 10]),
        wait_max=prng.pick([5, 40]),
    )
    recorded = generate.plan(prng.fork("run"), profile).carry_out()
    settled = settle(recorded.history, recorded.witness)
    return [op for op in settled if op.outcome is not Outcome.UNKNOWN]


# ------------------------------------------------------------------------------------- spoiling


def spoil(history: list[Operation], prng: Prng) -> None:
    """One small change anywhere, which may well leave the history legal."""
    answered = [i for i, op in enumerate(history) if op.outcome is Outcome.OK]
    if not answered:
        return
    at = prng.pick(answered)
    op = history[at]
    change = prng.below(6)
    if change == 0:
        history[at] = replace(op, call=op.call - prng.below(60))
    elif change == 1 and op.ret is not None:
        history[at] = replace(op, ret=max(op.call, op.ret - prng.below(40)))
    elif change == 2:
        shift = prng.between(1, 60)
        ret = None if op.ret is None else op.ret + shift
        history[at] = replace(op, call=op.call + shift, ret=ret)
    elif change == 3:
        revision = max(1, op.response.revision + prng.pick([-1, 1]))
        history[at] = replace(op, response=replace(op.response, revision=revision))
    elif change == 4:
        other = prng.pick(answered)
        history[at] = replace(op, response=history[other].response)
    else:
        del history[at]


def verdicts(history: Sequence[Operation]) -> tuple[Verdict, Verdict]:
    by_revision = revision_check.check(history).verdict
    return by_revision, wgl.check(StoreModel(), history).verdict


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(SEEDS, st.integers(1, 25), st.integers(0, 3))
def test_the_checkers_agree(seed: int, operations: int, changes: int) -> None:
    history = history_of(seed, operations)
    prng = Prng(seed).fork("spoil")
    for _ in range(changes):
        spoil(history, prng)
    by_revision, by_search = verdicts(history)
    assert by_revision is by_search
    if not changes:
        assert by_search is Verdict.LEGAL


@pytest.mark.sim
def test_the_checkers_agree_on_many() -> None:
    legal = spoilt = 0
    for seed in range(3000):
        history = history_of(seed, 5 + seed % 20)
        prng = Prng(seed).fork("spoil")
        for _ in range(seed % 4):
            spoil(history, prng)
        by_revision, by_search = verdicts(history)
        assert by_revision is by_search, f"seed {seed}"
        legal += by_search is Verdict.LEGAL
        spoilt += by_search is Verdict.ILLEGAL
    counts.record("linear", histories=legal + spoilt, agreed_legal=legal, agreed_illegal=spoilt)
    assert min(legal, spoilt) > 750


# --------------------------------------------------------------------------- trying every order


def some_order(model: wgl.Model[Any], items: list[wgl.Item]) -> bool:
    """Whether any order explains the items; tries them all, with no memo and no cleverness."""

    def explained(state: object, left: list[wgl.Item]) -> bool:
        must = [one for one in left if one.op.outcome is not Outcome.UNKNOWN]
        if not must:
            return True
        soonest = min((one.ret for one in must if one.ret is not None), default=None)
        for position, one in enumerate(left):
            if soonest is not None and one.call > soonest:
                continue
            after = model.step(state, one.op)
            if after is not None and explained(after, left[:position] + left[position + 1 :]):
                return True
        return False

    return explained(model.initial(), items)


@settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(SEEDS, st.integers(1, 9), st.integers(0, 2))
def test_the_search_finds_an_order_exactly_if_there_is_one(
    seed: int, operations: int, changes: int
) -> None:
    prng = Prng(seed)
    profile = Profile(
        clients=3, operations=operations, keys=1, unknown=300, expiring=0, pause_max=2
    )
    history = generate.plan(prng.fork("run"), profile).carry_out().history
    for _ in range(changes):
        spoil(history, prng)
    model = StoreModel()
    (items,) = model.parts(history)
    found = wgl.check(model, history).verdict is Verdict.LEGAL
    assert found is some_order(model, items)


def test_spoiling_spoils() -> None:
    """Both verdicts occur among what the agreement is tested on."""
    seen = set()
    for seed in range(40):
        history = history_of(seed, 15)
        spoil(history, Prng(seed))
        seen.add(verdicts(history)[1])
    assert seen == {Verdict.LEGAL, Verdict.ILLEGAL}


def test_an_answer_of_another_kind_is_no_crash() -> None:
    history = history_of(3, 20)
    for op in history:
        if op.outcome is Outcome.OK:
            op.response = Response(op.response.revision, deleted=1, succeeded=True)
    assert verdicts(history) == (Verdict.ILLEGAL, Verdict.ILLEGAL)
