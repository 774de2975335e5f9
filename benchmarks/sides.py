"""The servers that are compared: same flags, same disk, one at work at a time.

Both sides stay up for all runs of a scenario, and the one whose turn it is not is stopped
(SIGSTOP), so that it costs nothing; with `fresh` it is ended instead and started again on its data.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.calls import load, load_batch
from benchmarks.generator.caller import Caller, CallError
from benchmarks.generator.jobs import Job, Outcome
from benchmarks.generator.requests import key_of
from kvstore.pb import rpc_pb2
from tests.support.servers import ROOT, Cluster, Server, make_cluster

__all__ = (
    "FLAGS", "Kind", "Side", "StoreError", "environment", "generate", "kinds", "memory_mb",
)  # fmt: skip

FLAGS = ("--quota-backend-bytes=8589934592",)
"""Of both sides, beside names and addresses; everything else is the default of each."""

SETTLE_S = 60.0
_OURS = (sys.executable, "-m", "kvstore.cli.main", "serve")


class StoreError(Exception):
    """A store could not be brought into the state that a run needs."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A server program."""

    name: str
    argv: tuple[str, ...]
    extra: tuple[str, ...] = ()

    def version(self) -> str:
        """Its own words, on one line."""
        program = self.argv if self.name == "etcd" else self.argv[:-1]
        command = [*program, "--version"]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=False
        )
        return (done.stdout or done.stderr).strip().splitlines()[0]


def kinds(transport: str) -> tuple[Kind, Kind]:
    """Ours and etcd; raises StoreError without Debian's etcd-server."""
    etcd = shutil.which("etcd")
    if etcd is None:
        raise StoreError("no etcd here: apt-get install etcd-server")
    return Kind("kvstore", _OURS, (f"--transport={transport}",)), Kind("etcd", (etcd,))


def environment() -> dict[str, str]:
    """Of the processes started here: ours plus the project on the path."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def generate(job: Job) -> Outcome:
    """Runs the job in a process of its own."""
    # Whatever the last turn left for the disk is written now, not on this run's time.
    os.sync()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.generator"],
        input=job.dumps(),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=False,
        timeout=job.warmup_s + job.seconds + 300,
    )
    if done.returncode != 0:
        raise StoreError(f"the generator failed:\n{done.stderr[-2000:]}")
    return Outcome.loads(done.stdout)


def memory_mb(server: Server) -> dict[str, float]:
    """Resident memory of the process in MB: what is its own, and all of it."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {
        "anonymous": int(fields["RssAnon"].split()[0]) / 1024,
        "resident": int(fields["VmRSS"].split()[0]) / 1024,
    }


@dataclass
class Side:
    """One cluster, and what is in it."""

    kind: Kind
    cluster: Cluster
    fresh: bool = False
    loaded: tuple[int, int] = (0, 0)
    """Keys from 0 on that exist, and their values' bytes."""
    callers: dict[int, Caller] = field(default_factory=dict, repr=False)
    leader: Server = field(init=False)
    others: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)
    """Ended with this side."""
    small: Side | None = None
    """See `beside`."""

    def __post_init__(self) -> None:
        self.leader = self.cluster.servers[0]

    @classmethod
    @contextlib.contextmanager
    def running(
        cls, kind: Kind, directory: Path, nodes: int, *, fresh: bool = False
    ) -> Iterator[Side]:
        """Starts the cluster, and leaves it stopped until its first turn."""
        home = directory / kind.name
        cluster = make_cluster(home, size=nodes, argv=kind.argv, extra=(*FLAGS, *kind.extra))
        with cluster:
            side = cls(kind, cluster, fresh)
            try:
                side.settle()
                side.rest()
                yield side
            finally:
                side.hang_up()
                side.others.close()
                shutil.rmtree(home, ignore_errors=True)

    def beside(self) -> Side:
        """Another cluster like this one, empty at first, for as long as this one is there."""
        if self.small is None:
            home = self.cluster.servers[0].directory / "beside"
            self.small = self.others.enter_context(
                Side.running(self.kind, home, len(self.cluster.servers), fresh=self.fresh)
            )
        return self.small

    @contextlib.contextmanager
    def turn(self) -> Iterator[Side]:
        """The time in which this side works."""
        self.wake()
        try:
            yield self
        finally:
            self.rest()

    def wake(self) -> None:
        """Ends a rest; returns once the cluster takes writes."""
        for server in self.cluster.servers:
            if self.fresh and not server.running:
                server.start(wait=False)
            else:
                server.signal(signal.SIGCONT)
        self.settle()

    def rest(self) -> None:
        self.hang_up()
        for server in self.cluster.servers:
            if self.fresh:
                server.stop()
            elif server.running:
                server.signal(signal.SIGSTOP)

    def hang_up(self) -> None:
        for caller in self.callers.values():
            caller.close()
        self.callers.clear()

    def ask(self, server: Server, path: str, message: bytes, timeout_s: float = 30.0) -> bytes:
        """One call to one member; raises CallError."""
        try:
            caller = self.callers.get(server.client_port)
            if caller is None:
                caller = self.callers[server.client_port] = Caller(server.client_port)
            return caller(path, message, timeout_s)
        except (CallError, OSError) as error:
            lost = self.callers.pop(server.client_port, None)
            if lost is not None:
                lost.close()
            raise CallError(str(error)) from error

    def settle(self) -> None:
        """Waits until all members agree on a leader for a while and it takes writes.

        Raises StoreError when that does not happen.
        """
        deadline = time.monotonic() + SETTLE_S
        before, why = None, ""
        while time.monotonic() < deadline:
            try:
                now = self._agreed()
                if now is not None and now == before:
                    return
                before, why = now, "the members name different leaders"
            except (CallError, OSError) as error:
                before, why = None, str(error)
            # Twice the same answer with an election timeout between them.
            time.sleep(0.05 if before is None else 0.3)
        raise StoreError(f"{self.kind.name} did not settle in {SETTLE_S:.0f} s: {why}")

    def _agreed(self) -> tuple[int, int] | None:
        """(leader, term) if all members say the same and a read through each is answered."""
        said = set()
        for server in self.cluster.servers:
            status = rpc_pb2.StatusResponse.FromString(
                self.ask(server, "/etcdserverpb.Maintenance/Status", b"", 3)
            )
            said.add((status.leader, status.raftTerm))
            if status.leader == status.header.member_id:
                self.leader = server
            self.revision(server)
        return said.pop() if len(said) == 1 and not any(leader == 0 for leader, _ in said) else None

    def followers(self) -> list[Server]:
        return [server for server in self.cluster.servers if server is not self.leader]

    def revision(self, server: Server | None = None) -> int:
        """The store's, after everything that was answered before."""
        request = rpc_pb2.RangeRequest(key=b"?").SerializeToString()
        answer = self.ask(server or self.leader, "/etcdserverpb.KV/Range", request, 10)
        return int(rpc_pb2.RangeResponse.FromString(answer).header.revision)

    def count(self) -> int:
        """Keys of the generator that exist."""
        request = rpc_pb2.RangeRequest(
            key=key_of(0), range_end=b"bench0", count_only=True
        ).SerializeToString()
        answer = self.ask(self.leader, "/etcdserverpb.KV/Range", request)
        return int(rpc_pb2.RangeResponse.FromString(answer).count)

    def pids(self) -> list[int]:
        """Of the members, the leader's first."""
        processes = [server.process for server in (self.leader, *self.followers())]
        return [process.pid for process in processes if process is not None]

    def fill(self, keys: int, value_bytes: int) -> None:
        """Makes keys 0 … keys - 1 exist with values of this size; raises StoreError."""
        have, size = self.loaded
        if have >= keys and size == value_bytes:
            return
        self.loaded = (0, 0)
        batch = load(value_bytes)
        done = generate(
            Job(
                kind="unary",
                ports=[self.leader.client_port],
                connections=4,
                inflight=16,
                seconds=900,
                warmup_s=0,
                methods=[batch.to_json()],
                keys=keys,
                step=load_batch(value_bytes),
            )
        )
        if done.failures or self.count() < keys:
            raise StoreError(
                f"{self.kind.name} holds {self.count():,} of {keys:,} keys: {done.failures}"
            )
        self.loaded = (max(keys, have if size == value_bytes else 0), value_bytes)
