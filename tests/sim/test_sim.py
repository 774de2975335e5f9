"""The campaigns: nothing is broken, everything has happened, and the canary is caught."""

from __future__ import annotations

import os

import pytest

from tests.sim.campaign import Campaign, campaign
from tests.sim.counts import record
from tests.sim.run import run_seed
from tests.sim.shrink import Case, shrink

LONG = int(os.environ.get("KVSTORE_SIM_LONG", "200"))
SHORT = int(os.environ.get("KVSTORE_SIM_SHORT", "1000"))


def _demand(done: Campaign) -> None:
    done.count()
    assert not done.failed, "\n".join(f"{each}\n  {each.replay}" for each in done.failed)
    assert not done.void, "\n".join(f"too little succeeded: {each}" for each in done.void)
    assert not done.silent(), f"never happened: {', '.join(done.silent())}"


@pytest.mark.parametrize("seed", range(3))
def test_a_short_seed(seed: int) -> None:
    outcome = run_seed(seed, "short")
    assert outcome.ok, f"{outcome}\n  {outcome.replay}"
    assert outcome.succeeded > 8


def test_the_canary_is_caught() -> None:
    outcome = run_seed(0, "canary")
    assert outcome.violation is not None
    assert outcome.violation.number == "canary"


def test_a_seed_is_the_same_twice() -> None:
    assert run_seed(5, "short").trace_sha256 == run_seed(5, "short").trace_sha256


def test_a_seed_can_be_replayed_up_to_a_tick() -> None:
    whole = run_seed(5, "short", until_tick=700, keep_log=True).lines
    part = run_seed(5, "short", until_tick=500, keep_log=True).lines
    assert part
    assert whole[: len(part)] == part


def test_a_failing_seed_gets_smaller() -> None:
    case, outcome = shrink(Case(3, "canary"), budget=12)
    assert outcome.violation is not None
    assert outcome.violation.number == "canary"
    assert outcome.ticks < 500
    assert "--skip" in case.command
    assert case.run().violation is not None


@pytest.mark.sim
@pytest.mark.timeout(600)
def test_short_seeds() -> None:
    _demand(campaign("short", range(300)))


@pytest.mark.sim
@pytest.mark.timeout(900)
def test_long_seeds() -> None:
    _demand(campaign("long", range(60)))


@pytest.mark.sim
@pytest.mark.timeout(120)
def test_no_canary_survives() -> None:
    done = campaign("canary", range(10))
    record("sim-canary", seeds=len(done.outcomes), caught=len(done.failed))
    assert len(done.failed) == len(done.outcomes)


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.timeout(36_000)
def test_many_short_seeds() -> None:
    _demand(campaign("short", range(1_000, 1_000 + SHORT)))


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.timeout(36_000)
def test_many_long_seeds() -> None:
    _demand(campaign("long", range(1_000, 1_000 + LONG)))
