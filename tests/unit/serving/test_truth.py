"""Flags that are called implemented reach something, and instruments are observed somewhere."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from kvstore.metrics import Metrics
from kvstore.node.config import NodeConfig

KVSTORE = Path(__file__).parents[3] / "kvstore"


def sources(*parts: str) -> str:
    files = [path for part in parts for path in sorted((KVSTORE / part).rglob("*.py"))]
    return "\n".join(path.read_text() for path in files)


WITHOUT_A_FLAG = {"wal_segment_bytes", "snapshot_min_wal_bytes"}
"""Bounds that etcd does not let anybody set either; small ones are for tests."""


def test_every_setting_of_a_node_is_read_and_can_be_set() -> None:
    names = {field.name for field in fields(NodeConfig)}
    assert len(names) > 20
    text = sources("node", "api")
    assert {name for name in names if not re.search(rf"config\.{name}\b", text)} == set()
    filled = (KVSTORE / "serving/config.py").read_text()
    unset = {name for name in names if not re.search(rf"^        {name}=", filled, re.M)}
    assert unset == WITHOUT_A_FLAG


def test_every_instrument_is_observed() -> None:
    text = sources("node", "api", "gateways", "storage")
    instruments = {
        name for name, value in vars(Metrics()).items() if isinstance(value, MetricWrapperBase)
    }
    assert len(instruments) > 15
    assert {name for name in instruments if not re.search(rf"metrics\.{name}\b", text)} == set()
