"""Campaigns of the simulator: many seeds, no violation, and every kind of fault did happen.

Fixed seeds are run by everybody alike; `KVSTORE_SIM_FIRST` moves on to fresh ones.
"""

from __future__ import annotations

import os

import pytest

from tests.sim import counts
from tests.sim.params import CRASH_KINDS, FAULT_KINDS
from tests.sim.pool import PROCESSES, Job, Tally, run_jobs
from tests.sim.run import run_seed

FIRST = int(os.environ.get("KVSTORE_SIM_FIRST", "1"))
LONG = int(os.environ.get("KVSTORE_SIM_LONG", "200"))
SHORT = int(os.environ.get("KVSTORE_SIM_SHORT", "1000"))
LEAST_OPERATIONS = {"long": 20, "short": 10}
VOID_SHARE_MAX = 0.05
"""A few seeds draw a cluster that is hardly ever up; more than a few would prove nothing."""


def campaign(profile: str, seeds: int, kinds: tuple[str, ...]) -> Tally:
    """Runs so many seeds and demands that all of them held, and that all faults came up."""
    tally = Tally()
    jobs = (Job(seed, profile) for seed in range(FIRST, FIRST + seeds))
    for report in run_jobs(jobs, processes=PROCESSES):
        tally.add(report, least_operations=LEAST_OPERATIONS[profile])
        if not report.ok:
            print(f"\n{report.text}\n  python -m tests.sim.run --seed {report.job.seed} "
                  f"--profile {profile} --log")  # fmt: skip
    counts.record(f"simulator-{profile}", **tally.numbers)
    counts.record(f"faults.{profile}", **tally.faults)
    print(profile, tally.numbers)
    assert not tally.violations, "\n".join(tally.violations)
    assert len(tally.void) <= VOID_SHARE_MAX * seeds, "\n".join(tally.void)
    never = [kind for kind in kinds if not tally.faults[kind]]
    assert not never, f"these faults never happened: {never}"
    return tally


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_short_seed(seed: int) -> None:
    outcome = run_seed(seed, "short")
    assert outcome.ok, str(outcome)
    assert outcome.succeeded >= LEAST_OPERATIONS["short"], "void: too little happened"


@pytest.mark.sim
@pytest.mark.timeout(900)
def test_sixty_long_seeds() -> None:
    campaign("long", 60, tuple(FAULT_KINDS))


@pytest.mark.sim
@pytest.mark.timeout(900)
def test_three_hundred_short_seeds() -> None:
    campaign("short", 300, CRASH_KINDS)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_the_long_campaign() -> None:
    campaign("long", LONG, tuple(FAULT_KINDS))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_the_short_campaign() -> None:
    campaign("short", SHORT, CRASH_KINDS)
