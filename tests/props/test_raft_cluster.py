"""Safety under faults, then liveness without them, over a hundred seeds."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.props.raft_cluster import Cluster

SEEDS = 120
STEPS = 400
HEAL_STEPS = 600
FAULTS = (
    "ambush",
    "compact",
    "conf",
    "crash",
    "dropped",
    "partition",
    "pause",
    "rejected",
    "snapshot",
    "transfer",
)


def run(seed: int) -> Cluster:
    cluster = Cluster(seed, size=(1, 2, 3, 3, 3, 4, 5)[seed % 7])
    for _ in range(STEPS):
        cluster.disturb()
        cluster.step()
    cluster.heal()
    for _ in range(HEAL_STEPS):
        cluster.step()
        if cluster.converged():
            break
    else:
        raise AssertionError("no leader, or not everybody level, long after the last fault")
    # A straggling membership change may still have removed the leader; then another follows.
    for _ in range(300):
        cluster.step()
    leader = cluster.leader()
    assert leader is not None
    assert leader.transferee == 0, "a transfer was never given up"
    last = leader.last_index
    leader.propose([b"after"])
    for _ in range(100):
        cluster.step()
    assert cluster.converged()
    assert leader.commit_index == last + 1, "the leader did not stay"
    return cluster


def test_safety_under_faults_and_recovery_after_them() -> None:
    counts: Counter[str] = Counter()
    for seed in range(SEEDS):
        try:
            counts += run(seed).counts
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    # A fault that never fires proves nothing.
    for name in FAULTS:
        assert counts[name] >= 10, f"{name} hardly ever happened: {counts}"
    assert counts["applied"] > 10_000, counts
    assert counts["read"] > 1_000, counts


@pytest.mark.slow
def test_many_more_seeds() -> None:
    for seed in range(SEEDS, 20 * SEEDS):
        try:
            run(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
