"""Rows, targets, tables and plots."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import report
from benchmarks.rows import LOADS, SPECIALS, Row, Selection, Target, select, target_of
from benchmarks.running import Result


def result(row: Row, ours: float, theirs: float) -> Result:
    def run(value: float) -> dict[str, object]:
        return {
            "value": value,
            "latency_ms": {"p99": 2.0},
            "cpu_s_per_1000": {"leader": 0.1, "followers": [0.05, 0.05], "generator": 0.01},
        }

    pairs = [{"kvstore": run(ours * n), "etcd": run(theirs * n)} for n in (1, 2, 3)]
    return Result(row, pairs)


def document(results: list[Result]) -> dict[str, object]:
    return {
        "machine": {
            "date": "2026-01-01T00:00:00", "commit": "abc", "cores": 2, "cpu": "some",
            "memory_gb": 4, "kernel": "6.1", "fdatasync_ms": 0.2, "load_before": 0.1,
            "versions": {"etcd": "etcd Version: 3.4"}, "python": "3.11", "packages": {"lmdb": "1"},
        },
        "plan": {"transport": "auto", "command": "make bench", "pairs": 3, "seconds": 3.0},
        "ceilings": {"128": 90_000.0},
        "results": [each.to_json() for each in results],
    }  # fmt: skip


def test_the_standard_rows_hold_every_load_and_target() -> None:
    rows = select(Selection())
    assert {row.load for row in rows} == {*LOADS, *SPECIALS}
    assert len(rows) == len(set(rows))
    assert sum(target_of(row) is not None for row in rows) >= 14
    assert len({row.name for row in rows}) == len(rows)


def test_scenarios_stay_together_and_deletes_come_last() -> None:
    rows = select(Selection(only=("delete", "put"), nodes=(1, 3), inflight=(1, 8)))
    assert len(rows) == 8
    assert [row.load for row in rows[:4]] == ["put", "put", "delete", "delete"]
    assert [row.nodes for row in rows] == [1] * 4 + [3] * 4


def test_what_does_not_exist_is_refused_and_one_node_has_no_follower() -> None:
    with pytest.raises(ValueError, match="no such load: fly"):
        select(Selection(only=("fly",)))
    assert select(Selection(only=("range-follower",), nodes=(1,), inflight=(1,))) == []


def test_every_target_that_a_store_has_beside_itself_is_a_standard_row() -> None:
    own = [row for row in select(Selection()) if (target := target_of(row)) and target.own]
    assert {row.load for row in own} == {"put-keys", "snapshot-p99", "snapshot-own-p99", "leases"}
    chosen = select(Selection(only=("put-keys", "leases"), keys=(5000,)))
    assert [(row.load, row.keys) for row in chosen] == [("put-keys", 5000), ("leases", 5000)]


def test_verdicts() -> None:
    assert [Target(1.0, 1.2).verdict(x) for x in (0.9, 1.1, 1.3)] == ["missed", "must", "goal"]
    less = Target(1.1, 0.8, less=True)
    assert [less.verdict(x) for x in (1.2, 1.0, 0.7)] == ["missed", "must", "goal"]


def test_a_line_tells_values_ratio_and_verdict() -> None:
    text = report.line(result(Row("put"), 1100, 1000))
    assert "put, 3 nodes, 128 in flight" in text
    assert "2,200 /s" in text
    assert "1.10 (1.10 to 1.10)" in text
    assert "0.2 / 0.2" in text
    assert text.endswith("must (≥ 1.0, 1.2)")


def test_what_a_store_is_beside_itself_is_judged_without_etcd() -> None:
    """The ratio to etcd is twice as good as wanted: it is told, and not what counts."""
    row = Row("put-keys", keys=1_000_000)
    pairs = [{"kvstore": {"value": 0.7}, "etcd": {"value": 0.35}}] * 3
    text = report.line(Result(row, list(pairs)))
    assert "2.00 (2.00 to 2.00)" in text
    assert text.endswith("missed (≥ 0.8, 0.95) of ours alone")
    assert target_of(Row("put-keys", keys=100_000)) is None


def test_a_row_of_ours_alone_has_no_ratio() -> None:
    row = Row("snapshot-own-p99", 1, value_bytes=1024, keys=1_000_000)
    one = Result(row, [{"kvstore": {"value": value}} for value in (1.0, 1.4, 9.0)])
    assert report.ratio_of(one) is None
    text = report.line(one)
    assert "1.4 ×" in text
    assert text.endswith("goal (≤ 3.0, 1.5) of ours alone")


@pytest.mark.parametrize(("lost", "verdict"), [(0, "goal"), (1, "missed")])
def test_one_lost_lease_is_too_many(lost: int, verdict: str) -> None:
    one = Result(Row("leases", keys=100_000), [{"kvstore": {"value": lost}, "etcd": {"value": 0}}])
    assert report.ratio_of(one) is None
    text = report.line(one)
    assert "leases, 3 nodes, 100,000 leases" in text
    assert text.endswith(f"{verdict} (≤ 0, 0) of ours alone")


def test_plots_and_tables_take_rows_without_a_ratio(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{report.BEGIN}\n{report.END}\n")
    alone = Row("snapshot-own-p99", 1, value_bytes=1024, keys=1_000_000)
    results = [result(Row("put"), 2, 1), Result(alone, [{"kvstore": {"value": 2.0}}])]
    report.write_docs(document(results), page)
    assert "| snapshot-own-p99, 1 node, 1,024 B, 1,000,000 keys | 2 × |" in page.read_text()


def test_a_void_row_says_why() -> None:
    text = report.line(Result(Row("put"), [], ["etcd: 3 × grpc-status 14"]))
    assert "void: etcd: 3 × grpc-status 14" in text


def test_the_page_keeps_what_is_written_by_hand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nstale\n{report.END}\nafter\n")
    rows = [Row("put", 3, 1), Row("put", 3, 128), Row("failover")]
    report.write_docs(document([result(row, 2, 1) for row in rows]), page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    assert "| put, 3 nodes, 128 in flight |" in text
    for name in ("ratios", "scaling"):
        drawing = (tmp_path / f"page-{name}.svg").read_text()
        assert ElementTree.fromstring(drawing).tag.endswith("svg")
        assert f"(page-{name}.svg)" in text


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("mine")
    with pytest.raises(SystemExit, match="marks"):
        report.write_docs(document([result(Row("put"), 2, 1)]), page)
    assert page.read_text() == "mine"


def test_results_travel_as_json() -> None:
    one = result(Row("put"), 2, 1)
    assert Result.from_json(one.to_json()) == one
