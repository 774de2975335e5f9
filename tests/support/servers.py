"""Real server processes on loopback: ours or Debian's etcd, started with the same flags."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# KVSTORE_TEST_SERVER=etcd runs the same tests against Debian's etcd: a check of the tests.
KVSTORE = tuple(
    os.environ.get("KVSTORE_TEST_SERVER", f"{sys.executable} -m kvstore.cli.main serve").split()
)
READY = "ready to serve client requests"


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different.

    From below the range that the system takes for outgoing connections: a server that is restarted
    must find its port still free.
    """
    found: list[int] = []
    while len(found) < count:
        # A member takes the port two above its client port as well, unless told otherwise.
        port = random.randrange(10_000, 32_000, 4)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


@dataclass
class Server:
    """One server process. `argv` is the command; flags are etcd's in both cases."""

    argv: tuple[str, ...]
    name: str
    directory: Path
    client_port: int
    peer_port: int
    http_port: int
    cluster: str
    state: str = "new"
    extra: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    """Of the environment, beside ours; read at each start."""
    advertised_peer_port: int | None = None
    """Where the others reach it, if not at its peer port: something stands in front."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def peer_url(self) -> str:
        """What it advertises to the other members."""
        return f"http://127.0.0.1:{self.advertised_peer_port or self.peer_port}"

    @property
    def data_dir(self) -> Path:
        return self.directory / f"{self.name}.data"

    @property
    def log_path(self) -> Path:
        return self.directory / f"{self.name}.log"

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, *, wait: bool = True) -> Server:
        """Starts the process; with `wait`, returns once its client port answers."""
        assert not self.running
        self.directory.mkdir(parents=True, exist_ok=True)
        flags = [
            f"--name={self.name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls=http://127.0.0.1:{self.client_port}",
            f"--advertise-client-urls=http://127.0.0.1:{self.client_port}",
            f"--listen-peer-urls=http://127.0.0.1:{self.peer_port}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={self.cluster}",
            f"--initial-cluster-state={self.state}",
            f"--listen-metrics-urls=http://127.0.0.1:{self.http_port}",
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.variables}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.argv, *flags, *self.extra],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=environment,
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Returns when the member answers that it is healthy; raises with its log otherwise."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not self.running:
                assert self.process is not None
                code = self.process.returncode
                raise RuntimeError(f"{self.name} ended at once ({code}):\n{self.log()[-4000:]}")
            if self.healthy():
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} was not healthy in {timeout_s} s:\n{self.log()[-4000:]}")

    def healthy(self) -> bool:
        import urllib.request

        try:
            with urllib.request.urlopen(f"{self.http}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and waits until the process is gone."""
        if self.running:
            self.signal(signal.SIGKILL)
        self.wait()

    def stop(self, timeout_s: float = 15.0) -> int:
        """SIGTERM; the exit code. Kills a process that does not end in time, and raises."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 15.0) -> int:
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@dataclass
class Cluster:
    """Several servers that form one cluster."""

    servers: list[Server]

    @property
    def endpoints(self) -> str:
        return ",".join(server.endpoint for server in self.servers)

    def __enter__(self) -> Cluster:
        try:
            for server in self.servers:
                server.start(wait=False)
            for server in self.servers:
                server.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for server in self.servers:
            if server.running:
                server.kill()


def make_cluster(
    directory: Path, *, size: int = 1, argv: Sequence[str] = KVSTORE, extra: Sequence[str] = ()
) -> Cluster:
    """A cluster that is not started yet; use it as a context manager."""
    ports = free_ports(3 * size)
    names = [f"n{i + 1}" for i in range(size)]
    peers = [f"{name}=http://127.0.0.1:{ports[3 * i + 1]}" for i, name in enumerate(names)]
    return Cluster(
        [
            Server(
                argv=tuple(argv),
                name=name,
                directory=directory,
                client_port=ports[3 * i],
                peer_port=ports[3 * i + 1],
                http_port=ports[3 * i + 2],
                cluster=",".join(peers),
                extra=tuple(extra),
            )
            for i, name in enumerate(names)
        ]
    )
