"""The benchmarks' loops against a real member: whatever it answers, it is accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.loads import Timing, run_load
from benchmarks.rows import LOADS, Row
from benchmarks.sides import Kind, Side
from benchmarks.specials import run_special
from tests.support.servers import KVSTORE

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
TIMING = Timing(seconds=0.3, warmup_s=0.1)


def test_every_load_on_one_member(tmp_path: Path) -> None:
    loads = [load for load in LOADS if load != "range-follower"]
    with Side.running(Kind("one", KVSTORE), tmp_path, 1) as side:
        for load in loads:
            with side.turn():
                run = run_load(side, Row(load, nodes=1, inflight=16), TIMING, seed=1)
            assert run.void == [], load
            assert run.value > 0, load


def test_a_follower_answers_and_large_values_are_counted(tmp_path: Path) -> None:
    rows = [Row("range-follower", inflight=16), Row("put", inflight=16, value_bytes=16 * 1024)]
    with Side.running(Kind("three", KVSTORE), tmp_path, 3) as side:
        for row in rows:
            with side.turn():
                assert run_load(side, row, TIMING, seed=1).void == [], row.name


def test_a_store_beside_itself(tmp_path: Path) -> None:
    timing = Timing(seconds=0.3, warmup_s=0.1, lease_ttl_s=2)
    with Side.running(Kind("kvstore", KVSTORE), tmp_path, 1) as side:
        for load in ("put-keys", "snapshot-p99", "leases"):
            with side.turn():
                run = run_special(side, Row(load, nodes=1, keys=2000), timing, seed=1)
            assert run.void == [], load
            assert run.value == 0 if load == "leases" else run.value > 0
    assert run.outcome is not None
    # Each is renewed thrice in its TTL, for a tenth longer.
    assert run.outcome.count == pytest.approx(3.3 * 2000, rel=0.05)


def test_a_write_from_elsewhere_voids_the_run(tmp_path: Path) -> None:
    """The revision tells: here it is the loading of the keys, asked to happen once more."""
    with Side.running(Kind("one", KVSTORE), tmp_path, 1) as side, side.turn():
        run = run_load(side, Row("txn", nodes=1, inflight=1, keys=100), TIMING, seed=1)
        assert run.void == []
        before = side.revision()
        side.loaded = (0, 0)
        side.fill(100, 100)
        assert side.revision() == before + 1
        # No key exists where the transactions look: each reads instead, and makes no revision.
        side.loaded = (1000, 100)
        empty = run_load(side, Row("txn", nodes=1, inflight=1, keys=1000), TIMING, seed=1)
    assert any("the revision advanced by" in why for why in empty.void)
