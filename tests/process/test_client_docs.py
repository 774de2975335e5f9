"""The examples of docs/client.md are true: they run, and print what they say they print."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.client_cluster import Cluster, cluster_fixture
from tests.support.examples import run_examples
from tests.support.servers import ROOT

pytestmark = pytest.mark.process
cluster = cluster_fixture(1)


def test_examples(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide = ROOT / "docs" / "client.md"
    names = run_examples(guide, cluster.endpoints[0], tmp_path, capsys)
    names["client"].close()
