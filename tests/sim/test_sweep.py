"""Crashes after every disk operation of whole workloads: nothing answered is lost, ever."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sim import counts
from tests.sim.disk import CrashPolicy
from tests.sim.sweep import CRASHES, record_workload, sweep

pytestmark = pytest.mark.sim

OPERATIONS = 500
KINDS = ("write", "sync", "sync dir", "create", "rename", "unlink", "store commit", "store sync")


def run_workload(seed: int) -> Counter[str]:
    """The sweep over one workload; what was counted."""
    moments, whole = record_workload(seed, OPERATIONS)
    assert len(moments) >= OPERATIONS
    kinds = Counter(moment.kind for moment in moments)
    assert all(kinds[kind] for kind in KINDS), kinds
    assert whole.answered == len(whole.states) - 1 > 50
    assert whole.states[-1].compacted > 1
    seen = sweep(moments, whole)
    seen["crash points"] = len(moments)
    assert seen["recoveries"] == 2 * len(moments) * len(CRASHES)
    assert seen["second crashes"] == len(moments) * len(CRASHES)
    assert seen["crashes in a recovery"] > 100
    assert seen["replays compared"] > 100
    assert all(seen[f"fault power loss: {policy.value}"] > 500 for policy in CrashPolicy)
    print(seed, dict(seen))
    counts.record("sweep", **seen)
    return seen


@pytest.mark.timeout(600)
def test_a_crash_after_every_operation_of_a_workload() -> None:
    run_workload(1)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_crash_after_every_operation_of_ten_workloads(seed: int) -> None:
    run_workload(seed)
