"""Runs every trace in tests/golden/raft; each file name is a claim, and the file its proof."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.runner import check
from tests.golden.runner_raft import RaftScript

TRACES = sorted(Path(__file__).with_name("raft").glob("*.txt"))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_trace(path: Path) -> None:
    check(path, RaftScript())


def test_there_are_traces() -> None:
    assert len(TRACES) >= 60
