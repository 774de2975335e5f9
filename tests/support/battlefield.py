"""A cluster of processes behind a proxy, and what a round of faults needs to know and do to it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from kvstore.pb import rpc_pb2
from tests.support.proxy import PeerProxy
from tests.support.rpc import Rpc
from tests.support.servers import KVSTORE, ROOT, Server, make_cluster
from tests.support.traffic import disarm_all

_LOCAL_LIST = rpc_pb2.MemberListRequest(linearizable=False)

__all__ = ("EXIT_DAMAGED", "FLAGS", "HEALTHY_S", "Field", "cli", "mounted", "until")

FLAGS = ("--snapshot-catchup-entries=100", "--snapshot-count=100")
"""So that a member which missed a little more than a hundred writes needs a snapshot."""

EXIT_DAMAGED = 5

HEALTHY_S = 30.0
"""From the end of a fault until every member serves and agrees; on a busy machine of two cores.
An election takes two seconds of it, and a process that starts one or two."""


def until(condition: Callable[[], object], what: str, timeout_s: float) -> float:
    """Seconds until the condition held; raises AssertionError with `what` when it does not."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, f"{what}: not within {timeout_s} s"
        time.sleep(0.05)
    return time.monotonic() - began


@contextmanager
def mounted(directory: Path, *, mib: int) -> Iterator[None]:
    """A file system of its own, of that size, at `directory`; only root may make one."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(directory)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small disk needs root, to mount a tmpfs")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A client command or an offline one, as an operator would type it."""
    return subprocess.run(
        [*KVSTORE[:-1], *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )


class Field:
    """The cluster under attack. Use as a context manager: it starts and ends everything."""

    def __init__(self, directory: Path, *, size: int, seed: int, flags: Sequence[str] = ()) -> None:
        self.chance = random.Random(seed)
        self.fired: Counter[str] = Counter()
        """Every fault that really happened, by kind, but for those of the proxy."""
        self.checked = 0
        """Offline checks of data directories, all clean."""
        self.cluster = make_cluster(directory, size=size, extra=(*FLAGS, *flags))
        self.proxy = PeerProxy(random.Random(seed))
        self._ending = ExitStack()

    def __enter__(self) -> Field:
        with ExitStack() as stack:
            stack.enter_context(self.proxy)
            for server in self.servers:
                server.advertised_peer_port = self.proxy.add(server.name, server.peer_port)
            members = ",".join(f"{server.name}={server.peer_url}" for server in self.servers)
            for server in self.servers:
                server.cluster = members
            stack.enter_context(self.cluster)
            self._ending = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    # ---- who is who ------------------------------------------------------------------------

    @property
    def servers(self) -> list[Server]:
        return self.cluster.servers

    @property
    def size(self) -> int:
        return len(self.servers)

    def leader(self) -> Server:
        """Who leads, by its own account and that of a majority; waits for one."""
        found: list[Server] = []

        def look() -> bool:
            views = {server.name: self.view(server) for server in self.servers}
            for server in self.servers:
                believers = list(views.values()).count(server.name)
                if views[server.name] == server.name and believers > self.size // 2:
                    found.append(server)
            return found

        until(look, "no leader", HEALTHY_S)
        return found[0]

    def view(self, server: Server) -> str | None:
        """The name of the leader as this member sees it."""
        if not server.running:
            return None
        try:
            with Rpc(server.endpoint, timeout_s=1.0) as rpc:
                leader = rpc.status().leader
                members = rpc.call("Cluster", "MemberList", _LOCAL_LIST).members
        except grpc.RpcError:
            return None
        return next((member.name for member in members if leader == member.ID), None)

    def shuffled(self, servers: Sequence[Server] | None = None) -> list[Server]:
        chosen = list(self.servers if servers is None else servers)
        self.chance.shuffle(chosen)
        return chosen

    def followers(self) -> list[Server]:
        """All but the leader, in any order."""
        leader = self.leader()
        return self.shuffled([server for server in self.servers if server is not leader])

    def id_of(self, name: str) -> int:
        """The member id, asked of anyone who answers."""
        for server in self.servers:
            if not server.running:
                continue
            try:
                with Rpc(server.endpoint, timeout_s=2.0) as rpc:
                    members = rpc.call("Cluster", "MemberList", _LOCAL_LIST).members
            except grpc.RpcError:
                continue
            for member in members:
                if member.name == name:
                    return int(member.ID)
        raise AssertionError(f"nobody knows member {name}")

    # ---- well again ------------------------------------------------------------------------

    def check_offline(self, server: Server) -> None:
        """The offline check of a stopped member has nothing to say."""
        assert not server.running
        # A process of its own: the check forks, and this one has gRPC's threads.
        command = [
            sys.executable,
            "-m",
            "kvstore.cli.main",
            "check",
            f"--data-dir={server.data_dir}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, f"{server.name}: {done.stdout}{done.stderr}"
        self.checked += 1

    def start_all(self) -> None:
        """Starts whoever is down; does not wait."""
        for server in self.servers:
            if not server.running:
                server.start(wait=False)

    def wait_healthy(self) -> float:
        """Seconds until every member serves linearizable reads, and has no alarm."""
        began = time.monotonic()
        for server in self.servers:
            left_s = HEALTHY_S - (time.monotonic() - began)
            server.wait_ready(max(left_s, 0.1))
        self.leader()
        return time.monotonic() - began

    def disarm(self) -> None:
        """Takes back every alarm."""
        with Rpc(self.leader().endpoint) as rpc:
            disarm_all(rpc)
