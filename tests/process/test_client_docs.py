"""The examples of docs/client.md are true: they run, and print what they say they print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.process.client_cluster import Cluster, cluster_fixture

pytestmark = pytest.mark.process
cluster = cluster_fixture(1)

GUIDE = Path(__file__).parents[2] / "docs" / "client.md"


def test_examples(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) >= 9
    names: dict[str, Any] = {}
    for block in blocks:
        source = block.replace("127.0.0.1:2379", cluster.endpoints[0])
        source = source.replace("/tmp/", f"{tmp_path}/")
        exec(compile(source, "client.md", "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        promised = re.findall(r"print\(.*#\s*(.*)", source)
        for line in promised:
            for part in re.split(r", then |: |; ", line)[:1]:
                assert part in printed, f"{part!r} was not printed by:\n{source}"
    names["client"].close()
