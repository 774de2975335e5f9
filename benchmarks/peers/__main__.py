"""ZooKeeper and PySyncObj beside ours, in turns: puts and gets through each one's Python client.

    apt-get install zookeeper; pip install '.[bench]'
    python -m benchmarks.peers                        # one member and three: some six minutes
    python -m benchmarks.peers --against pysyncobj --nodes 3 --only put,put-pipelined

`get` sees every write that was finished before it, `get-local` is what the asked member has;
`-pipelined` keeps `--inflight` calls under way from as many threads. What is compared are a store
and its client together; they do not promise the same:

    kvstore     put: on the disks of a quorum (fsync). get: linearizable. get-local: serializable
    zookeeper   put: on the disks of a quorum (fsync). get: sync, then read. get-local: read
    pysyncobj   put: in the memory of a quorum and in a file that is never synced.
                get: it has none. get-local: the caller is a member and looks into its own memory
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.clients.__main__ import Beside, line
from benchmarks.clients.worker import Came, Task
from benchmarks.machine import describe
from benchmarks.peers import zookeeper
from benchmarks.peers.worker import LOADS, PeerTask
from benchmarks.sides import Side, StoreError, environment, kinds
from tests.support.servers import ROOT, free_ports

__all__ = ("PEERS", "loads_of", "main", "missing")

OURS = "kvstore"
PEERS = ("zookeeper", "pysyncobj")
PACKAGES = {"zookeeper": "kazoo", "pysyncobj": "pysyncobj"}
INSTALL = "pip install '.[bench]'"


def loads_of(peer: str, chosen: list[str]) -> list[str]:
    """Of the loads those that the peer has: PySyncObj reads only what a member has itself."""
    without = {"get", "get-pipelined"} if peer == "pysyncobj" else set()
    return [load for load in chosen if load not in without]


def missing(peer: str, python: str, jars: Path) -> str:
    """Why a peer cannot be measured, and what to do; empty when it can."""
    package = PACKAGES[peer]
    done = subprocess.run(
        [python, "-c", f"import {package}"], capture_output=True, check=False, env=environment()
    )
    if done.returncode:
        return f"{peer} cannot be measured (no package {package}): {INSTALL}"
    return zookeeper.missing(jars) if peer == "zookeeper" else ""


class _Workers:
    """Starts workers, and ends them."""

    def __init__(self, python: str) -> None:
        self._python = python

    def start(self, task: PeerTask) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [self._python, "-m", "benchmarks.peers.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT, env=environment(),
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(task)) + "\n")
        process.stdin.flush()
        return process

    def carry_out(self, task: PeerTask) -> Came:
        """Raises StoreError with the worker's last words."""
        process = self.start(task)
        try:
            answer, errors = process.communicate(
                timeout=task.calls.seconds + task.calls.warmup_s + 120
            )
        except subprocess.TimeoutExpired as error:
            raise StoreError(f"{task.store}: the worker did not end") from error
        finally:
            process.kill()
            process.communicate()
        if process.returncode:
            last = (errors.strip().splitlines() or ["no word"])[-1]
            raise StoreError(f"{task.store}: {last}")
        return Came(**json.loads(answer))

    @contextlib.contextmanager
    def members(self, tasks: list[PeerTask]) -> Iterator[None]:
        """PySyncObj's other members."""
        processes = [self.start(task) for task in tasks]
        try:
            yield
        finally:
            for process in processes:
                process.kill()
                process.communicate()


class Bench:
    """Our server and one peer, both up; ours is stopped while the peer works."""

    def __init__(
        self, side: Side, peer: str, peer_port: int, scratch: Path, options: argparse.Namespace
    ) -> None:
        self._side = side
        self._peer = peer
        self._peer_port = peer_port
        self._scratch = scratch
        self._options = options
        self._workers = _Workers(options.python)

    def beside(self, load: str) -> Beside:
        found = Beside(load, OURS, self._peer)
        pairs = self._options.pairs
        for _ in range(pairs + 2):
            if len(found.pairs) == pairs:
                break
            pair, void = {}, []
            for store, run in ((OURS, self._ours), (self._peer, self._theirs)):
                os.sync()
                try:
                    came = run(load)
                except StoreError as error:
                    void.append(str(error))
                    continue
                void += [f"{store}: {why}" for why in came.void]
                if came.count:
                    cpu = 1000 * came.cpu_s / came.count
                    pair[store] = {"per_s": came.count / came.seconds, "cpu_s_per_1000": cpu}
                else:
                    void.append(f"{store}: nothing was finished in the measured time")
            if void:
                found.void += void
            else:
                found.pairs.append(pair)
        return found

    def _task(self, load: str, port: int) -> Task:
        options = self._options
        return Task(
            "", load, port, options.inflight, options.seconds, options.warmup, options.keys,
            options.value,
        )  # fmt: skip

    def _ours(self, load: str) -> Came:
        side = self._side
        with side.turn():
            side.fill(self._options.keys, self._options.value)
            task = self._task(load, side.leader.client_port)
            before = side.revision()
            came = self._workers.carry_out(PeerTask(OURS, task))
            revisions = side.revision() - before
        if revisions != came.writes:
            why = f"the revision advanced by {revisions:,}, the writes were {came.writes:,}"
            return Came(came.count, came.seconds, came.cpu_s, came.writes, (*came.void, why))
        return came

    def _theirs(self, load: str) -> Came:
        task = self._task(load, self._peer_port)
        if self._peer != "pysyncobj":
            return self._workers.carry_out(PeerTask(self._peer, task))
        ports = free_ports(len(self._side.cluster.servers))
        journals = [str(self._scratch / f"journal-{port}") for port in ports]
        tasks = [
            PeerTask(
                self._peer, task, (ports[n], *ports[:n], *ports[n + 1 :]), journals[n], serve=n > 0
            )
            for n in range(len(ports))
        ]
        try:
            with self._workers.members(tasks[1:]):
                return self._workers.carry_out(tasks[0])
        finally:
            for journal in journals:
                for path in self._scratch.glob(Path(journal).name + "*"):
                    path.unlink()


def _measure(options: argparse.Namespace, peer: str, nodes: int) -> Iterator[Beside]:
    with contextlib.ExitStack() as stack:
        scratch = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=options.directory, prefix="peers-"))
        )
        side = stack.enter_context(Side.running(kinds(options.transport)[0], scratch, nodes))
        port = 0
        if peer == "zookeeper":
            port = stack.enter_context(zookeeper.running(scratch, nodes, options.jars))
        bench = Bench(side, peer, port, scratch, options)
        for load in loads_of(peer, options.only.split(",")):
            yield bench.beside(load)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default=",".join(LOADS), metavar="LOAD,…")
    parser.add_argument("--against", default=",".join(PEERS), metavar="zookeeper,pysyncobj")
    parser.add_argument("--nodes", default="1,3", metavar="1,3")
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
    parser.add_argument("--jars", type=Path, default=zookeeper.JARS, help="where zookeeper.jar is")
    parser.add_argument("--directory", type=Path, default=ROOT / "build")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser


def main() -> int:
    options = _parser().parse_args()
    peers = options.against.split(",")
    unknown = {*options.only.split(",")} - {*LOADS} | {*peers} - {*PEERS}
    if unknown:
        print(f"benchmarks: no such load or peer: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 1
    options.directory.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"command": sys.argv[1:], "results": []}
    found: list[Beside] = []
    try:
        document["machine"] = describe(kinds(options.transport), options.directory)
        for peer in peers:
            why = missing(peer, options.python, options.jars)
            if why:
                print(why)
                continue
            for nodes in (int(each) for each in options.nodes.split(",")):
                print(f"{peer}, members: {nodes}; load, ours/s, theirs/s, ratio, CPU s/1,000")
                for one in _measure(options, peer, nodes):
                    print(line(one), flush=True)
                    found.append(one)
                    document["results"].append({"nodes": nodes, **asdict(one)})
    except StoreError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if found and all(one.pairs for one in found) else 2


if __name__ == "__main__":
    sys.exit(main())
