"""A program that uses a client ends, whatever it has left open."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.process.client_cluster import Cluster, cluster_fixture
from tests.process.exit_child import WAYS
from tests.support.servers import ROOT

pytestmark = pytest.mark.process
cluster = cluster_fixture(1)

TIMES = 5
CHANCE = {"closes_the_watch": 40, "leaves_streams_of_heartbeats": 10}
"""Where a program would hang now and then only."""
CODES = {"calls_exit": 3, "raises": 1, "raises_out_of_a_loop": 1, "writes_in_a_finalizer": 4}


def held(cluster: Cluster) -> set[object]:
    """What only its owner ends before its time."""
    with cluster.client() as client:
        instances = client.registry.get_instances("exit").instances
        return {*client.leases().ids, *(str(each.name) for each in instances)}


@pytest.mark.parametrize("way", WAYS)
def test_ends(cluster: Cluster, way: str) -> None:
    before = held(cluster)
    times = CHANCE.get(way, TIMES)
    runs = subprocess.run(
        [sys.executable, "-m", "tests.process.exit_child", cluster.endpoints[0], way, str(times)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert json.loads(runs.stdout or "[]") == [CODES.get(way, 0)] * times, runs.stderr[-8000:]
    if way.startswith("leaves_"):
        assert held(cluster) <= before
