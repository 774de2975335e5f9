"""Safety under faults, then liveness without them, over a hundred seeds."""

from __future__ import annotations

import pytest

from tests.props.raft_cluster import Cluster

STEPS = 400
HEAL_STEPS = 600


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


@pytest.mark.parametrize("block", range(10))
def test_safety_under_faults_and_recovery_after_them(block: int) -> None:
    counts: dict[str, int] = {}
    for seed in range(block * 10, block * 10 + 10):
        try:
            cluster = run(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        for name, count in cluster.counts.items():
            counts[name] = counts.get(name, 0) + count
    for name in ("crash", "partition", "compact", "snapshot", "conf", "transfer", "pause", "read"):
        assert counts.get(name, 0) > 0, f"{name} never happened: {counts}"
    assert counts["applied"] > 1000, counts
