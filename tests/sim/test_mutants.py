"""Tests of the tests: with a known bug put in, the simulator must object.

A few seeds are known to catch each bug; they are run again every day, so a change that blinds the
simulator shows at once. The long hunt starts from nothing and counts how many seeds it takes.
"""

from __future__ import annotations

import os
from statistics import median

import pytest

from tests.sim import counts
from tests.sim.mutants import MUTANTS
from tests.sim.pool import Job, run_jobs

KNOWN: dict[str, tuple[int, ...]] = {
    "M2": (1,),
    "M7": (1,),
    "M8": (1,),
    "M11": (1,),
    "M14": (1,),
    "M15": (2,),
    "M18": (1,),
    "M19": (1,),
}
"""Seeds that catch a mutant, of the mutant's profile."""

FIRST = int(os.environ.get("KVSTORE_HUNT_FIRST", "1"))
SEEDS_MAX = int(os.environ.get("KVSTORE_HUNT_SEEDS", "500"))
MEDIAN_MAX = 50


def hunt(number: str, seeds_max: int) -> int | None:
    """The first seed that catches the mutant, counted from FIRST; None if none of them does.

    Only seeds below the first catch count, whatever order they finish in.
    """
    profile = MUTANTS[number].profile
    jobs = (Job(seed, profile, number) for seed in range(FIRST, FIRST + seeds_max))
    reports = run_jobs(jobs)
    for report in reports:
        if not report.ok:
            print(f"{number} {MUTANTS[number].title}: {report.text}")
            reports.close()  # type: ignore[attr-defined]
            return report.job.seed - FIRST + 1
    return None


def test_there_are_twenty() -> None:
    assert list(MUTANTS) and set(MUTANTS) == {f"M{number}" for number in range(1, 21)}


def test_the_canary_is_reported() -> None:
    """A seed class that is planned to fail: a green one would mean that nobody looks."""
    reports = list(run_jobs([Job(seed, "canary") for seed in (1, 2)]))
    assert [report.ok for report in reports] == [False, False]
    assert all("canary" in report.violation.lower() for report in reports)


@pytest.mark.sim
@pytest.mark.timeout(600)
def test_known_seeds_still_catch_their_bugs() -> None:
    jobs = [
        Job(seed, MUTANTS[number].profile, number) for number in KNOWN for seed in KNOWN[number]
    ]
    missed = [report.job for report in run_jobs(jobs) if report.ok]
    counts.record("known bugs", **{"seeds run": len(jobs), "bugs missed": len(missed)})
    assert not missed, f"not noticed any more: {missed}"


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_all_are_caught_from_nothing() -> None:
    tries = {number: hunt(number, SEEDS_MAX) for number in MUTANTS}
    caught = {number: count for number, count in tries.items() if count is not None}
    counts.record("mutants", **caught)
    survivors = sorted(set(MUTANTS) - set(caught))
    print(f"seeds until caught: {caught}; survivors: {survivors}")
    assert not survivors, f"these bugs went unnoticed in {SEEDS_MAX} seeds: {survivors}"
    assert median(caught.values()) <= MEDIAN_MAX, caught
