"""Carries out the rows: both sides in turn, pair by pair, void pairs set aside and said so."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import calls
from benchmarks.generator.jobs import Job
from benchmarks.loads import CONNECTIONS, Run, Timing, run_load
from benchmarks.rows import ONCE, SPECIALS, Row
from benchmarks.sides import Kind, Side, generate
from benchmarks.specials import run_special
from tests.support.servers import ROOT

__all__ = ("Plan", "Result", "ceilings", "measure", "summary")


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows are run."""

    kinds: tuple[Kind, Kind]
    """Ours first."""
    pairs: int
    timing: Timing
    directory: Path
    """Where both sides' data lies: one disk."""
    fresh: bool = False


@dataclass
class Result:
    """What was measured for one row."""

    row: Row
    pairs: list[dict[str, dict[str, Any]]] = field(default_factory=list)
    """By side; only pairs of which both runs count."""
    void: list[str] = field(default_factory=list)
    """Why pairs were set aside: side, reason."""

    def values(self, side: str) -> list[float]:
        return [pair[side]["value"] for pair in self.pairs]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Result:
        return cls(Row(**value["row"]), value["pairs"], value["void"])


def measure(rows: list[Row], plan: Plan, told: Callable[[Result], None]) -> list[Result]:
    """All rows; `told` hears of each as soon as it is done. Raises StoreError."""
    results = []
    for scenario, group in groupby(rows, key=lambda row: row.scenario):
        with _both(plan, scenario[0]) as sides:
            for row in group:
                result = _pairs(row, sides, plan)
                results.append(result)
                told(result)
    return results


@contextlib.contextmanager
def _both(plan: Plan, nodes: int) -> Iterator[list[Side]]:
    with (
        tempfile.TemporaryDirectory(dir=plan.directory, prefix="bench-") as scratch,
        contextlib.ExitStack() as stack,
    ):
        yield [
            stack.enter_context(Side.running(kind, Path(scratch), nodes, fresh=plan.fresh))
            for kind in plan.kinds
        ]


def _pairs(row: Row, sides: list[Side], plan: Plan) -> Result:
    result = Result(row)
    pairs = 1 if row.load in ONCE else plan.pairs
    for attempt in range(pairs + 2):
        if len(result.pairs) == pairs:
            break
        runs = {}
        for side in sides:
            if side.kind.name not in row.sides:
                continue
            with side.turn():
                runs[side.kind.name] = _one(side, row, plan.timing, seed=attempt + 1)
        reasons = [f"{name}: {why}" for name, run in runs.items() for why in run.void]
        if reasons:
            result.void += reasons
        else:
            result.pairs.append({name: summary(run) for name, run in runs.items()})
    return result


def _one(side: Side, row: Row, timing: Timing, seed: int) -> Run:
    if row.load in SPECIALS:
        return run_special(side, row, timing, seed)
    return run_load(side, row, timing, seed)


def summary(run: Run) -> dict[str, Any]:
    """What is kept of a run: its value, latencies, CPU per thousand operations, in seconds."""
    done = run.outcome
    if done is None:
        return {"value": run.value, **run.extra}
    per_thousand = [round(1000 * used / done.count, 4) for used in done.server_cpu_s]
    return {
        "value": run.value,
        "count": done.count,
        "latency_ms": done.latency_ms,
        "cpu_s_per_1000": {
            "leader": per_thousand[0],
            "followers": per_thousand[1:],
            "generator": round(1000 * done.generator_cpu_s / done.count, 4),
        },
        "generator_share": round(done.generator_cpu_s / done.seconds, 3),
        **done.extra,
        **run.extra,
    }


def ceilings(rows: list[Row], timing: Timing) -> dict[int, float]:
    """By calls in flight: what the generator reaches against a server that does nothing."""
    levels = sorted({row.inflight for row in rows if row.load not in SPECIALS})
    found: dict[int, float] = {}
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.generator.responder"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as empty:  # fmt: skip
        assert empty.stdout is not None
        try:
            port = int(empty.stdout.readline())
            for inflight in levels:
                done = generate(
                    Job(
                        kind="unary",
                        ports=[port],
                        connections=min(CONNECTIONS, inflight),
                        inflight=inflight,
                        seconds=timing.seconds,
                        warmup_s=timing.warmup_s,
                        methods=[calls.put(100).to_json()],
                        keys=1000,
                    )
                )
                found[inflight] = done.count / done.seconds
        finally:
            empty.terminate()
    return found
