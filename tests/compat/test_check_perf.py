"""etcdctl check perf runs against us and passes its small load (a minute; slow)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import make_cluster
from tests.support.tools import require

pytestmark = [pytest.mark.compat, pytest.mark.slow, pytest.mark.timeout(180)]


def test_check_perf_small_load_passes(tmp_path: Path) -> None:
    etcdctl = require("etcdctl")
    with make_cluster(tmp_path) as cluster:
        done = subprocess.run(
            [etcdctl, f"--endpoints={cluster.endpoints}", "check", "perf", "--load=s"],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "PASS: Throughput" in done.stdout, done.stdout
        assert done.stdout.rstrip().endswith("PASS"), done.stdout
