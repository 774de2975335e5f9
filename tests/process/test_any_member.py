"""Any member serves any request: the API's own suite against each member of a real cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.attacks import TRANSPORTS, transport_flags
from tests.support.servers import Server, make_cluster
from tests.support.traffic import leader_of

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]


def suite(server: Server) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/unit/api/test_semantics.py",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "KVSTORE_API_TARGET": server.endpoint, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_leader_and_follower_pass_the_semantic_suite(tmp_path: Path, transport: str) -> None:
    with make_cluster(tmp_path, size=3, extra=transport_flags(transport)) as cluster:
        leader = leader_of(cluster)
        follower = next(server for server in cluster.servers if server is not leader)
        for server in (follower, leader):
            outcome = suite(server)
            assert outcome.returncode == 0, outcome.stdout[-6000:] + outcome.stderr[-2000:]
            assert " passed" in outcome.stdout
