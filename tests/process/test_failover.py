"""kill -9 of the leader under writes: nothing acknowledged is lost, writes go on within bounds."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import pytest

from tests.support.rpc import Rpc
from tests.support.servers import make_cluster
from tests.support.traffic import Writers, leader_of, settled_hashes

KILLS = int(os.environ.get("KVSTORE_KILLS", "6"))
MEDIAN_S, WORST_S = 2.0, 4.0

pytestmark = [pytest.mark.process, pytest.mark.timeout(60 + 12 * KILLS)]


def test_killed_leaders_lose_no_acknowledged_write(tmp_path: Path) -> None:
    gaps = []
    with make_cluster(tmp_path, size=3) as cluster:
        with Writers(cluster) as writers:
            for _ in range(KILLS):
                writers.wait_success_after(time.monotonic())
                leader = leader_of(cluster)
                leader.kill()
                killed = time.monotonic()
                # An answer that was on its way may still arrive: the first 50 ms do not count.
                gaps.append(writers.wait_success_after(killed + 0.05) + 0.05)
                leader.start()
                time.sleep(0.5)
        assert len(writers.acked) > 20 * KILLS, "too little traffic to prove anything"
        hashes = settled_hashes(cluster)
        assert len(set(hashes)) == 1, hashes
        with Rpc(cluster.servers[0].endpoint, timeout_s=20) as rpc:
            found = {kv.key.decode(): kv.value.decode() for kv in rpc.range("w", "x").kvs}
    lost = {key for key, value in writers.acked.items() if found.get(key) != value}
    assert not lost, f"{len(lost)} of {len(writers.acked)} acknowledged writes are gone"
    median, worst = statistics.median(gaps), max(gaps)
    print(
        f"\n{KILLS} kills, {len(writers.acked)} writes acknowledged, none lost; "
        f"writes succeed again after {median:.2f} s (median), {worst:.2f} s (worst)"
    )
    assert median <= MEDIAN_S, gaps
    assert worst <= WORST_S, gaps
