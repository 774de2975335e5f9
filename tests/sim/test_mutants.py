"""Tests of the tests: with a known bug put in, the simulator must object.

A seed is known to catch each bug and is run again with every change. A change to the product or
to the simulator gives seeds another course, so one that finds nothing any more is no alarm yet:
then the bug must be caught by one of the first few seeds. The long hunt starts from nothing and
counts how many it takes.
"""

from __future__ import annotations

import os
from statistics import median

import pytest

from tests.sim import counts
from tests.sim.mutants import MUTANTS
from tests.sim.pool import Job, run_jobs

KNOWN: dict[str, int] = {
    "M1": 2,
    "M2": 1,
    "M3": 9,
    "M4": 4,
    "M5": 14,
    "M6": 6,
    "M7": 1,
    "M8": 1,
    "M9": 4,
    "M10": 5,
    "M11": 1,
    "M12": 1,
    "M13": 9,
    "M14": 1,
    "M15": 1,
    "M16": 1,
    "M17": 9,
    "M18": 1,
    "M19": 1,
    "M20": 1,
    "M21": 11,
    "M22": 7,
    "M23": 7,
    "M24": 7,
    "M25": 7,
}
"""A seed that catches a mutant, of the mutant's profile; the first one when it was last hunted."""

NEARBY = 30
"""So many seeds are tried for a mutant whose known seed took another course: twice the slowest."""

FIRST = int(os.environ.get("KVSTORE_HUNT_FIRST", "1"))
SEEDS_MAX = int(os.environ.get("KVSTORE_HUNT_SEEDS", "500"))
MEDIAN_MAX = 50


def hunt(number: str, seeds_max: int) -> int | None:
    """The first seed that catches the mutant, counted from FIRST; None if none of them does."""
    profile = MUTANTS[number].profile
    last = FIRST + seeds_max
    finished: set[int] = set()
    # Seeds end in any order: a catch counts once all those before it have found nothing.
    for job, outcome in (run := run_jobs(Job(s, profile, number) for s in range(FIRST, last))):
        finished.add(job.seed)
        if not outcome.ok and job.seed < last:
            last = job.seed
            print(f"{number} {MUTANTS[number].title}: {outcome}", flush=True)
        if finished.issuperset(range(FIRST, last)):
            break
    run.close()
    return last - FIRST + 1 if last < FIRST + seeds_max else None


def test_each_has_a_seed() -> None:
    assert set(MUTANTS) == set(KNOWN) == {f"M{number}" for number in range(1, 26)}


def test_the_canary_is_reported() -> None:
    """A seed class that is planned to fail: a green one would mean that nobody looks."""
    outcomes = [outcome for _, outcome in run_jobs([Job(seed, "canary") for seed in (1, 2)])]
    assert ["canary" in str(outcome.violation) for outcome in outcomes] == [True, True]


@pytest.mark.sim
@pytest.mark.timeout(600)
def test_known_bugs_are_still_caught() -> None:
    jobs = [Job(seed, MUTANTS[number].profile, number) for number, seed in KNOWN.items()]
    moved = [job.mutant for job, outcome in run_jobs(jobs) if outcome.ok]
    again = {number: hunt(number, NEARBY) for number in moved}
    missed = [number for number, tries in again.items() if tries is None]
    print(f"known seeds that take another course now, and the first that catches: {again}")
    counts.record("known-bugs", seeds=len(jobs), moved=len(moved), missed=len(missed))
    assert not missed, f"not noticed any more in {NEARBY} seeds: {missed}"


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.timeout(0)
def test_all_are_caught_from_nothing() -> None:
    tries = {number: hunt(number, SEEDS_MAX) for number in MUTANTS}
    caught = {number: count for number, count in tries.items() if count is not None}
    counts.record("mutants", **caught)
    survivors = sorted(set(MUTANTS) - set(caught))
    print(f"seeds until caught: {caught}; survivors: {survivors}")
    assert not survivors, f"these bugs went unnoticed in {SEEDS_MAX} seeds: {survivors}"
    assert median(caught.values()) <= MEDIAN_MAX, caught
