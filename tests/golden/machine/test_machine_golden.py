"""Runs the state machine's golden traces on every kind of store."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.storage.store import Store
from tests.golden.machine_runner import check_file, scripts

HERE = Path(__file__).parent


def test_there_are_traces() -> None:
    assert len(scripts(HERE)) >= 50


@pytest.mark.parametrize("path", scripts(HERE), ids=lambda path: path.stem)
def test_trace(path: Path, store: Store) -> None:
    check_file(path, store)
