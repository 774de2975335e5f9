"""The campaigns: nothing is broken, everything has happened, and the canary is caught."""

from __future__ import annotations

import gc
import os

import pytest

from kvstore import faults
from tests.sim.campaign import Campaign, campaign
from tests.sim.counts import record
from tests.sim.params import Params
from tests.sim.run import run_seed
from tests.sim.shrink import Case, shrink
from tests.sim.world import World

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


def test_processes_die_at_points_of_the_program_and_it_takes_its_rare_ways() -> None:
    def change(params: Params) -> None:
        params.rates = {"crash at point": 20.0}
        params.choices = {"apply.wait": 100, "apply.one_entry": 5_000}

    outcome = run_seed(3, "short", change=change)
    assert outcome.ok, str(outcome)
    assert outcome.faults["died at a point"] > 5
    assert outcome.faults["choice apply.wait"] > 5
    assert outcome.faults["choice apply.one_entry"] > 5
    assert outcome.points["wal.after_sync"] > 100
    assert faults.maybe("apply.one_entry") is False, "nothing stays installed"


def test_worlds_are_let_go() -> None:
    """Whoever catches an error of the catalogue and keeps it must detach it."""
    for seed in (6, 7, 8):
        run_seed(seed, "short")
    gc.collect()
    assert sum(type(each) is World for each in gc.get_objects()) <= 1


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
