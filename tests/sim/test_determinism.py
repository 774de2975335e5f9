"""A seed decides everything: two processes that hash differently write the same trace."""

from __future__ import annotations

import os

import pytest

from tests.sim import counts
from tests.sim.pool import Job, run_jobs

PAIRS = int(os.environ.get("KVSTORE_SIM_PAIRS", "100"))


def compare(jobs: list[Job]) -> None:
    """Runs each job twice, under two hash seeds."""
    traces = [
        {report.job: report.trace_sha256 for report in run_jobs(jobs, hash_seed=hash_seed)}
        for hash_seed in (1, 2)
    ]
    assert len(traces[0]) == len(jobs)
    assert all(traces[0].values()), "a seed without a trace"
    differ = [job for job in jobs if traces[0][job] != traces[1][job]]
    equal = len(jobs) - len(differ)
    counts.record("determinism", **{"double runs": len(jobs), "with equal traces": equal})
    assert not differ, f"these seeds ran differently: {differ}"


def test_two_seeds() -> None:
    compare([Job(1, "short"), Job(4, "short")])


@pytest.mark.sim
def test_ten_seeds() -> None:
    compare([*(Job(seed, "short") for seed in range(10, 18)), Job(3, "long"), Job(5, "long")])


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_seeds() -> None:
    shorts = [Job(seed, "short") for seed in range(1000, 1000 + PAIRS * 4 // 5)]
    compare([*shorts, *(Job(seed, "long") for seed in range(1000, 1000 + PAIRS - len(shorts)))])
