"""Real servers on loopback for the client's tests: ours, or any server with etcd's flags.

KVSTORE_TEST_SERVER chooses the server's command line (`etcd` shows that the client suits etcd,
too). What only etcd has so far, TLS and tokens, is tested against etcd always.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvstore.client import Client
from tests.support.servers import KVSTORE, ROOT, free_ports
from tests.support.tools import require

SERVER = list(KVSTORE)
ETCD = ["etcd"]
HEARTBEAT_MS, ELECTION_MS = 50, 500
START_S = 20.0


class Server:
    """One member; may be killed, frozen and started again on the same data."""

    def __init__(self, name: str, directory: Path, client_port: int, argv: list[str]) -> None:
        self.name = name
        self.endpoint = f"127.0.0.1:{client_port}"
        self._log = directory / f"{name}.log"
        self._argv = argv
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def kill(self) -> None:
        """As kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


class Cluster:
    """Members of one cluster."""

    def __init__(
        self,
        directory: Path,
        members: int,
        *flags: str,
        scheme: str = "http",
        server: list[str] = SERVER,
    ) -> None:
        require(server[0])
        ports = free_ports(2 * members)
        peers = {f"m{i}": f"http://127.0.0.1:{ports[2 * i]}" for i in range(members)}
        clients = [ports[2 * i + 1] for i in range(members)]
        self.servers = []
        for (name, peer_url), port in zip(peers.items(), clients, strict=True):
            client_url = f"{scheme}://127.0.0.1:{port}"
            argv = [
                *server,
                f"--name={name}",
                f"--data-dir={directory / name}",
                f"--listen-peer-urls={peer_url}",
                f"--initial-advertise-peer-urls={peer_url}",
                f"--listen-client-urls={client_url}",
                f"--advertise-client-urls={client_url}",
                "--initial-cluster=" + ",".join(f"{n}={u}" for n, u in peers.items()),
                f"--initial-cluster-token={directory.name}",
                f"--heartbeat-interval={HEARTBEAT_MS}",
                f"--election-timeout={ELECTION_MS}",
                # Members may be added before all have been connected for five seconds.
                "--strict-reconfig-check=false",
                *flags,
            ]
            self.servers.append(Server(name, directory, port, argv))

    @property
    def endpoints(self) -> list[str]:
        return [each.endpoint for each in self.servers]

    def start(self) -> None:
        for each in self.servers:
            each.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Every member serves linearizable reads."""
        deadline = time.monotonic() + START_S
        with Client(self.endpoints, timeout=2.0) as client:
            for each in self.servers:
                while not client.health(each.endpoint, timeout=1.0).healthy:
                    assert time.monotonic() < deadline, each.log_tail()
                    time.sleep(0.05)

    def stop(self) -> None:
        for each in self.servers:
            each.kill()

    def client(self) -> Client:
        """A client of all members that starts with the first one."""
        return Client(self.endpoints, shuffle=False)

    def leader(self) -> Server:
        with self.client() as client:
            for each in self.servers:
                status = client.status(endpoint=each.endpoint)
                if status.leader == status.header.member_id:
                    return each
        raise AssertionError("no leader")


def cluster_fixture(
    members: int, *, server: list[str] = SERVER
) -> Callable[..., Iterator[Cluster]]:
    """A fixture: a running cluster for the tests of one module."""

    @pytest.fixture(scope="module", name="cluster")
    def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
        running = Cluster(tmp_path_factory.mktemp("cluster"), members, server=server)
        try:
            running.start()
            yield running
        finally:
            running.stop()

    return cluster


def wait_until(condition: Callable[[], object], timeout: float = 5.0) -> None:
    """Poll until `condition()` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)
