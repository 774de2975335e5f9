"""The counts for the report add up over calls and processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim import counts


def test_counts_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "_recorded", {})
    monkeypatch.delenv(counts.VARIABLE, raising=False)
    counts.record("sweep", recoveries=1000)
    monkeypatch.setenv(counts.VARIABLE, str(tmp_path / "counts"))
    counts.record("sweep", recoveries=2, seconds=1.5)
    counts.record("sweep", recoveries=3)
    counts.record("flips.wal", flips=7)
    (tmp_path / "counts" / "sweep.1.json").write_text('{"recoveries": 10}')
    assert counts.read(tmp_path / "counts") == {
        "sweep": {"recoveries": 15, "seconds": 1.5},
        "flips.wal": {"flips": 7},
    }
