"""Debian's ZooKeeper as processes of this benchmark: one member or several, on one disk."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.sides import StoreError
from tests.support.servers import free_ports

__all__ = ("configuration", "missing", "running")

JARS = Path("/usr/share/java")
CLASSES = (
    "zookeeper", "zookeeper-jute", "commons-cli", "metrics-core", "netty-buffer", "netty-common",
    "netty-handler", "netty-transport", "netty-transport-native-epoll", "slf4j-api",
    "slf4j-simple", "snappy-java",
)  # fmt: skip
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
READY_S = 60.0


def missing(jars: Path) -> str:
    """Why it cannot be started, and what to do; empty when it can."""
    if shutil.which("java") and (jars / "zookeeper.jar").exists():
        return ""
    return "zookeeper cannot be measured (no java or no zookeeper.jar): apt-get install zookeeper"


def configuration(home: Path, client_port: int, members: list[tuple[int, int]]) -> str:
    """zoo.cfg: ZooKeeper's defaults, which sync each transaction to disk before the answer."""
    lines = [
        "tickTime=2000", "initLimit=10", "syncLimit=5", "forceSync=yes",
        "admin.enableServer=false", "4lw.commands.whitelist=srvr",
        f"dataDir={home}", f"clientPort={client_port}", "clientPortAddress=127.0.0.1",
    ]  # fmt: skip
    if len(members) > 1:
        lines += [
            f"server.{number}=127.0.0.1:{peer}:{election}"
            for number, (peer, election) in enumerate(members, 1)
        ]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def running(directory: Path, nodes: int, jars: Path) -> Iterator[int]:
    """The client port of its leader, once it serves; raises StoreError."""
    ports = free_ports(3 * nodes)
    clients = ports[:nodes]
    members = list(zip(ports[nodes : 2 * nodes], ports[2 * nodes :], strict=True))
    path = ":".join(str(jars / f"{name}.jar") for name in CLASSES)
    with contextlib.ExitStack() as stack:
        for number, port in enumerate(clients, 1):
            home = directory / f"zookeeper-{number}"
            home.mkdir(parents=True)
            (home / "myid").write_text(f"{number}\n")
            (home / "zoo.cfg").write_text(configuration(home, port, members))
            log = stack.enter_context((home / "log").open("wb"))
            process = subprocess.Popen(
                ["java", "-cp", path, MAIN, str(home / "zoo.cfg")],
                stdout=log, stderr=log, cwd=home,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield _leader(clients, directory)


def _leader(clients: list[int], directory: Path) -> int:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        for port in clients:
            said = _asked(port)
            if "Mode: leader" in said or "Mode: standalone" in said:
                return port
        time.sleep(0.1)
    log = (directory / "zookeeper-1" / "log").read_text(errors="replace")
    raise StoreError(f"ZooKeeper did not serve in {READY_S:.0f} s:\n{log[-1000:]}")


def _asked(port: int) -> str:
    """What a member says of itself; empty while it does not answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as one:
            one.sendall(b"srvr")
            return b"".join(iter(lambda: one.recv(4096), b"")).decode(errors="replace")
    except OSError:
        return ""
