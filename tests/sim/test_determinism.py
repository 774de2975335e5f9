"""Two runs of one seed, in two processes that hash differently, are the same to the last byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.counts import record

ROOT = Path(__file__).resolve().parents[2]
PAIRS = int(os.environ.get("KVSTORE_SIM_PAIRS", "100"))


def _traces(seed: int, profile: str) -> list[str]:
    """The digests of two runs that go on at the same time."""
    command = [sys.executable, "-m", "tests.sim.run", f"--seed={seed}", f"--profile={profile}"]
    running = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "4242")
    ]
    outputs = [process.communicate()[0] for process in running]
    return [output.rsplit("trace ", 1)[1].strip() for output in outputs]


def _same(seeds: range, profile: str) -> None:
    different = []
    for seed in seeds:
        first, second = _traces(seed, profile)
        if first != second:
            different.append((seed, first, second))
    record("sim-determinism", pairs=len(seeds), different=len(different))
    assert not different


@pytest.mark.sim
def test_short_seeds_do_not_depend_on_hashes() -> None:
    _same(range(9000, 9004), "short")


@pytest.mark.sim
@pytest.mark.timeout(300)
def test_long_seeds_do_not_depend_on_hashes() -> None:
    _same(range(9000, 9003), "long")


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.timeout(7200)
def test_many_seeds_do_not_depend_on_hashes() -> None:
    _same(range(9100, 9100 + PAIRS // 2), "long")
    _same(range(9100, 9100 + PAIRS - PAIRS // 2), "short")
