"""Both checkers accept legal histories and catch every planted fault of six kinds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.linear import generate, revision_check, wgl
from tests.linear.finding import Verdict
from tests.linear.generate import Profile, Recorded
from tests.linear.judge import judge
from tests.linear.models import StoreModel
from tests.linear.planted import PLANTERS, plant
from tests.linear.settle import settle
from tests.sim import counts
from tests.sim.prng import Prng

SMOKE = 20
CAMPAIGN = 400


def profile(seed: int) -> Profile:
    """Sizes and chances vary with the seed."""
    prng = Prng(seed).fork("profile")
    return Profile(
        clients=prng.between(2, 8),
        operations=prng.between(40, 90),
        keys=prng.between(1, 6),
        unknown=prng.pick([0, 30, 100]),
        pause_max=prng.pick([5, 20, 80]),
    )


def run_of(seed: int) -> generate.Plan:
    return generate.plan(Prng(seed).fork("run"), profile(seed))


def verdicts(recorded: Recorded) -> tuple[Verdict, Verdict]:
    settled = settle(recorded.history, recorded.witness)
    by_revision = revision_check.check(settled).verdict
    return by_revision, wgl.check(StoreModel(), settled).verdict


def accept_clean(seeds: range) -> None:
    wrong = []
    for seed in seeds:
        recorded = run_of(seed).carry_out()
        judgement = judge(recorded.history, (), recorded.witness)
        if not judgement.legal or judgement.undecided:
            wrong.append(f"seed {seed}: {judgement}")
    counts.record("linear", histories=len(seeds), clean_histories=len(seeds))
    assert not wrong, wrong[0]


def catch_planted(kind: str, wanted: int) -> None:
    missed: list[str] = []
    caught = seed = 0
    while caught + len(missed) < wanted:
        seed += 1
        assert seed < 2 * wanted, f"few runs have a place for a {kind}"
        prng = Prng(seed).fork(kind)
        try:
            recorded = plant(kind, run_of(seed), prng)
        except LookupError:
            continue
        found = verdicts(recorded)
        if found == (Verdict.ILLEGAL, Verdict.ILLEGAL):
            caught += 1
        else:
            missed.append(f"seed {seed}: {found}")
    counts.record("linear", histories=wanted, planted_faults=wanted, caught_by_both=caught)
    assert missed == []


def test_clean_histories_are_accepted() -> None:
    accept_clean(range(SMOKE))


@pytest.mark.parametrize("kind", PLANTERS)
def test_planted_faults_are_caught(kind: str) -> None:
    catch_planted(kind, SMOKE)


@pytest.mark.sim
def test_many_clean_histories_are_accepted() -> None:
    accept_clean(range(SMOKE, SMOKE + CAMPAIGN))


@pytest.mark.sim
@pytest.mark.parametrize("kind", PLANTERS)
def test_many_planted_faults_are_caught(kind: str) -> None:
    catch_planted(kind, CAMPAIGN)


def test_the_generated_requests_have_every_outcome() -> None:
    """A kind of request that never succeeds, or never fails, would prove nothing."""
    seen: Counter[tuple[str, str]] = Counter()
    for seed in range(100):
        for op in run_of(seed).carry_out().history:
            seen[type(op.request).__name__, op.outcome.value] += 1
    kinds = ("Put", "Range", "Delete", "Txn", "Compact", "LeaseGrant", "LeaseRevoke")
    rare = {
        (kind, outcome): seen[kind, outcome]
        for kind in kinds
        for outcome in ("ok", "refused", "unknown")
        if seen[kind, outcome] < 1
    }
    assert rare == {}


def test_the_same_seed_gives_the_same_history() -> None:
    assert run_of(7).carry_out() == run_of(7).carry_out()
    assert run_of(7).carry_out() != run_of(8).carry_out()


def test_without_a_log_the_search_alone_decides() -> None:
    undecided = 0
    for seed in range(SMOKE):
        lasting = replace(profile(seed), expiring=0)  # an expiry shows in the log only
        recorded = generate.plan(Prng(seed), lasting).carry_out()
        assert wgl.check(StoreModel(), recorded.history).legal
        by_revision = revision_check.check(recorded.history).verdict
        assert by_revision is not Verdict.ILLEGAL
        undecided += by_revision is Verdict.INCONCLUSIVE
    assert undecided  # or the histories held no write of unknown outcome


def test_a_long_history_is_judged_in_a_moment() -> None:
    long = Profile(clients=10, operations=3000, keys=8, unknown=30)
    recorded = generate.plan(Prng(1), long).carry_out()
    assert verdicts(recorded) == (Verdict.LEGAL, Verdict.LEGAL)


def test_the_bound_of_the_search_is_kept() -> None:
    recorded = run_of(1).carry_out()
    settled = settle(recorded.history, recorded.witness)
    finding = wgl.check(StoreModel(), settled, states_max=5)
    assert finding.verdict is Verdict.INCONCLUSIVE
