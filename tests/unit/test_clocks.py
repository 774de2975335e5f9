"""Decisions use monotonic time: a wall clock that jumps must not end leases or hold elections."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WALL = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "localtime"),
    ("time", "gmtime"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
    ("host", "wall_s"),
}
ALLOWED = {
    # Log lines carry dates, and rotated files are named and aged by them.
    "kvstore/serving/logging.py": 3,
    # Ids: the start time makes request ids differ between restarts, and is part of the hash that
    # a new member's id is (as in etcd).
    # (One for log time, which expiries carry: it dates the journal and ends nothing.)
    "kvstore/node/lifecycle.py": 3,
    # When a check was made, how old a file is, how long ago something happened: for people.
    "kvstore/agent/health.py": 1,
    "kvstore/checks/probes.py": 1,
    "kvstore/cli/services/present.py": 1,
    # Where it comes from; the simulator gives another.
    "kvstore/node/host.py": 1,
}
PACES = "kvstore/storage/pace.py"
CLOCKLESS = ("raft", "kvstore/machine", "kvstore/watch", "kvstore/storage")
"""What takes part in decisions is told the time, or needs none; PACES says how long to rest."""


def uses(tree: ast.AST, names: set[tuple[str, str]]) -> list[int]:
    """Lines on which `module.function` of `names` is mentioned or imported."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (owner, node.attr) in names:
                lines.append(node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            lines += [node.lineno for alias in node.names if ("time", alias.name) in names]
    return lines


def trees(*tops: str) -> list[tuple[str, ast.AST]]:
    return [
        (str(path.relative_to(ROOT)), ast.parse(path.read_text()))
        for top in tops
        for path in sorted((ROOT / top).rglob("*.py"))
        if not path.name.endswith("_pb2.py")
    ]


def test_the_wall_clock_decides_nothing() -> None:
    found = {name: len(uses(tree, WALL)) for name, tree in trees("raft", "kvstore")}
    assert {name: count for name, count in found.items() if count} == ALLOWED


def test_the_core_reads_no_clock_at_all() -> None:
    clocks = WALL | {("time", name) for name in ("monotonic", "monotonic_ns", "perf_counter")}
    for name, tree in trees(*CLOCKLESS):
        assert bool(uses(tree, clocks)) == (name == PACES), f"{name} reads a clock"


def test_this_test_finds_what_it_looks_for() -> None:
    source = "import time, datetime\nfrom time import time\ndatetime.datetime.now()\ntime.time()\n"
    assert sorted(uses(ast.parse(source), WALL)) == [2, 3, 4]
