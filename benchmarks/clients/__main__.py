"""Our Python clients beside `etcd3` and `aetcd`, in turns, on the same server.

    pip install '.[bench]'
    python -m benchmarks.clients                                   # some three minutes
    python -m benchmarks.clients --server etcd --only put,watch --pairs 5

`put` and `get` are one call at a time; `-pipelined` keeps `--inflight` under way, from as many
threads (clients that block) or coroutines (clients that are awaited). `watch` counts the events
that one watch receives while another process writes. Each run is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import calls
from benchmarks.clients.worker import EVENTS_EACH, LOADS, Came, Task
from benchmarks.generator.jobs import Job, Outcome
from benchmarks.machine import describe
from benchmarks.sides import Side, StoreError, environment, generate, kinds
from benchmarks.stats import median_interval, ratios
from tests.support.servers import ROOT

__all__ = ("Beside", "line", "main", "reasons_void")

MATCHES = {"etcd3": "Client", "aetcd": "AsyncClient"}
"""Each package, and ours of the same kind."""
INSTALL = "pip install '.[bench]'"
PURE = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
WRITERS = 4
"""Transactions under way while a watch is measured."""
HELD_BACK = 0.95
"""Share of the events made from which a watch has kept up, and could have taken more."""
HEAD = f"{'load':36} {'ours/s':>8} {'theirs/s':>8}   ratio (interval)      CPU s per 1,000"


@dataclass
class Beside:
    """One load, ours and theirs run by run."""

    load: str
    ours: str
    theirs: str
    pairs: list[dict[str, dict[str, float]]] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    kept_up: bool = False
    """Ours received all there was: its rate is the writer's, and it may be faster than that."""

    def values(self, client: str, name: str = "per_s") -> list[float]:
        return [pair[client][name] for pair in self.pairs]


def line(one: Beside) -> str:
    """One row for the terminal, with the reasons of void runs below it."""
    name = f"{one.load}: {one.ours}, {one.theirs}"
    text = f"{name:36} void"
    if one.pairs:
        ours, theirs = one.values(one.ours), one.values(one.theirs)
        ratio = median_interval(ratios(ours, theirs))
        ours_cpu, theirs_cpu = (
            median(one.values(each, "cpu_s_per_1000")) for each in (one.ours, one.theirs)
        )
        text = (
            f"{name:36} {median(ours):>8,.0f} {median(theirs):>8,.0f}   "
            f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})   "
            f"{ours_cpu:.3g} / {theirs_cpu:.3g}"
        )
        if one.kept_up:
            text += "   ours kept up with the writer"
    return "\n".join((text, *(f"    void: {why}" for why in dict.fromkeys(one.void))))


def reasons_void(task: Task, came: Came, revisions: int, writer: Outcome | None) -> list[str]:
    """Why a run says nothing about its client."""
    void = list(came.void)
    if not came.count:
        void.append("nothing was finished in the measured time")
    if writer is not None:
        void += [f"writer: {count} × {why}" for why, count in writer.failures.items()]
    written = came.writes if writer is None else writer.writes
    if revisions != written:
        void.append(f"the revision advanced by {revisions:,}, the writes were {written:,}")
    return [f"{task.client}: {why}" for why in void]


def variables(client: str, *, same_protobuf: bool) -> dict[str, str]:
    """`etcd3`'s generated code is refused by today's protobuf in C; the one in Python takes it."""
    pure = client == "etcd3" or (same_protobuf and client == MATCHES["etcd3"])
    return {**environment(), **({PURE: "python"} if pure else {})}


def missing(package: str, python: str) -> str:
    """Why a package cannot be measured, and what to do; empty when it can."""
    done = subprocess.run(
        [python, "-c", f"import {package}"],
        capture_output=True, text=True, check=False,
        env=variables(package, same_protobuf=False),
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return f"{package} cannot be measured ({last}): {INSTALL}"


class Bench:
    """A server, and clients that are started one after another."""

    def __init__(self, side: Side, options: argparse.Namespace) -> None:
        self._side = side
        self._options = options

    def beside(self, load: str, package: str) -> Beside:
        found = Beside(load, MATCHES[package], package)
        pairs = self._options.pairs
        for _ in range(pairs + 2):
            if len(found.pairs) == pairs:
                break
            void: list[str] = []
            pair = {}
            for client in (found.ours, found.theirs):
                pair[client], kept_up = self._run(client, load, void)
                found.kept_up |= kept_up and client == found.ours
            if void:
                found.void += void
            else:
                found.pairs.append(pair)
        return found

    def _run(self, client: str, load: str, void: list[str]) -> tuple[dict[str, float], bool]:
        options, side = self._options, self._side
        task = Task(
            client, load, side.leader.client_port, options.inflight, options.seconds,
            options.warmup, options.keys, options.value,
        )  # fmt: skip
        side.fill(task.keys, task.value_bytes)
        before = side.revision()
        os.sync()
        writer: Outcome | None = None
        with subprocess.Popen(
            [options.python, "-m", "benchmarks.clients.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT, env=variables(client, same_protobuf=options.same_protobuf),
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(asdict(task)) + "\n")
                process.stdin.flush()
                if load == "watch" and process.stdout.readline() == "ready\n":
                    writer = generate(self._writes(task))
                answer, errors = process.communicate(timeout=task.seconds + task.warmup_s + 60)
            except subprocess.TimeoutExpired:
                answer, errors = "", "it did not end in time"
            finally:
                process.kill()
        try:
            came = Came(**json.loads(answer))
        except ValueError:
            void.append(f"{client} failed: {(errors.strip().splitlines() or ['no word'])[-1]}")
            return {}, False
        void += reasons_void(task, came, side.revision() - before, writer)
        per_s = came.count / came.seconds
        made = writer.writes * EVENTS_EACH / writer.seconds if writer else 0.0
        cpu = 1000 * came.cpu_s / came.count if came.count else 0.0
        figures = {"per_s": per_s, "cpu_s_per_1000": cpu}
        if writer:
            figures["events_made_per_s"] = made
        return figures, bool(writer) and per_s >= HELD_BACK * made

    def _writes(self, task: Task) -> Job:
        """More than a second longer than the worker measures: it begins with the first event."""
        return Job(
            kind="unary",
            ports=[task.port],
            connections=1,
            inflight=WRITERS,
            seconds=task.seconds + task.warmup_s + 1.5,
            warmup_s=0,
            methods=[calls.load(task.value_bytes, EVENTS_EACH).to_json()],
            keys=max(1, task.keys - EVENTS_EACH),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clients",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default=",".join(LOADS), metavar="LOAD,…")
    parser.add_argument("--against", default=",".join(MATCHES), metavar="etcd3,aetcd")
    parser.add_argument("--server", choices=("kvstore", "etcd"), default="kvstore")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument(
        "--transport", default="auto", choices=("auto", "http2", "native", "grpcio")
    )
    parser.add_argument("--inflight", type=int, default=64, help="of the pipelined loads: 64")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warmup", type=float, default=0.5)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--value", type=int, default=100, help="bytes: 100")
    parser.add_argument("--python", default=sys.executable, help="that has the packages")
    parser.add_argument(
        "--same-protobuf", action="store_true",
        help="Client, too, uses protobuf in Python, as etcd3 must",
    )  # fmt: skip
    parser.add_argument("--directory", type=Path, default=ROOT / "build")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser


def main() -> int:
    options = _parser().parse_args()
    loads = options.only.split(",")
    packages = options.against.split(",")
    unknown = {*loads} - {*LOADS} | {*packages} - {*MATCHES}
    if unknown:
        print(f"benchmarks: no such load or package: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 1
    options.directory.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"command": sys.argv[1:], "results": []}
    try:
        both = kinds(options.transport)
        document["machine"] = describe(both, options.directory)
        kind = both[0] if options.server == "kvstore" else both[1]
        present = []
        for package in packages:
            why = missing(package, options.python)
            print(why or f"{package}: beside {MATCHES[package]}")
            present += [] if why else [package]
        print(HEAD, flush=True)
        with (
            tempfile.TemporaryDirectory(dir=options.directory, prefix="clients-") as scratch,
            Side.running(kind, Path(scratch), options.nodes) as side,
            side.turn(),
        ):
            bench = Bench(side, options)
            for package in present:
                for load in loads:
                    one = bench.beside(load, package)
                    print(line(one), flush=True)
                    document["results"].append(asdict(one))
    except StoreError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if present and all(each["pairs"] for each in document["results"]) else 2


if __name__ == "__main__":
    sys.exit(main())
