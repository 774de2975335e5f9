"""The cluster that is measured, raw calls to it, and the list of figures."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from kvstore.pb import registry_pb2 as pb
from kvstore.pb import rpc_pb2
from tests.support.servers import Cluster, Server, free_ports, make_cluster

__all__ = (
    "Api",
    "Notes",
    "Stage",
    "cpu_s",
    "milliseconds",
    "percentile",
    "start",
)

_REGISTRY = "/kvstore.registry.v1.Registry"
_PATIENCE_S = 60.0
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 200),
]


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent do not exceed; 0 for no values."""
    ordered = sorted(values) or [0.0]
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 1)


def cpu_s(pid: int) -> float:
    """CPU time that a process has used so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Notes:
    """Figures: one line each as they come, and whether each is what was promised."""

    def __init__(self) -> None:
        self.figures: dict[str, object] = {}
        self.missed: list[str] = []

    def tell(self, name: str, value: object) -> None:
        """A figure that has no target."""
        self.figures[name] = value
        print(f"{name:62} {value}", flush=True)

    def judge(self, name: str, value: float, at_most: float) -> None:
        """A figure that must not be above a limit."""
        self.check(name, value, value <= at_most, f"at most {at_most:g}")

    def check(self, name: str, value: object, holds: bool, wanted: str) -> None:
        """A figure that is right or not."""
        self.figures[name] = value
        if not holds:
            self.missed.append(name)
        print(f"{name:62} {value!s:>10}  {wanted}: {'pass' if holds else 'MISS'}", flush=True)


class Api:
    """One connection to one member; calls carry messages of protobuf."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        self._methods: dict[str, Any] = {}

    async def __call__(self, method: str, request: Any, timeout_s: float = _PATIENCE_S) -> Any:
        """A method of the registry."""
        call = self._method(f"{_REGISTRY}/{method}")
        answer = await call(request.SerializeToString(), timeout=timeout_s)
        return getattr(pb, f"{method}Response").FromString(answer)

    async def etcd(self, path: str, request: Any, timeout_s: float = _PATIENCE_S) -> Any:
        """One of etcd's methods, such as KV/Put."""
        name = path.rpartition("/")[2]
        answer = await self._method(f"/etcdserverpb.{path}")(
            request.SerializeToString(), timeout=timeout_s
        )
        return getattr(rpc_pb2, f"{name}Response").FromString(answer)

    def watch(self, request: Any) -> Any:
        """A stream of responses as bytes: who measures time reads them later."""
        call = self._channel.unary_stream(f"{_REGISTRY}/Watch")
        return call(request.SerializeToString())

    def _method(self, path: str) -> Any:
        if path not in self._methods:
            self._methods[path] = self._channel.unary_unary(path)
        return self._methods[path]

    async def close(self) -> None:
        await self._channel.close()


@dataclass
class Stage:
    """Three members that run, and a connection to each."""

    cluster: Cluster
    apis: list[Api]
    dns_ports: list[int]
    directory: Path

    @property
    def servers(self) -> list[Server]:
        return self.cluster.servers

    async def leader(self, timeout_s: float = 30.0) -> int:
        """The place of the member that leads, among those that run."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for place, server in enumerate(self.servers):
                if server.running and await self._leads(place):
                    return place
            await asyncio.sleep(0.01)
        raise RuntimeError(f"no leader in {timeout_s:g} s")

    async def _leads(self, place: int) -> bool:
        try:
            status = await self.apis[place].etcd("Maintenance/Status", rpc_pb2.StatusRequest(), 2)
        except grpc.aio.AioRpcError:
            return False
        return bool(status.leader) and status.leader == status.header.member_id

    def pid(self, place: int) -> int:
        process = self.servers[place].process
        assert process is not None
        return process.pid


@asynccontextmanager
async def start(directory: Path, *, dns: bool = False) -> AsyncIterator[Stage]:
    """A new cluster with data of its own; ends with the block."""
    cluster = make_cluster(directory, size=3)
    ports = free_ports(len(cluster.servers)) if dns else []
    for server, port in zip(cluster.servers, ports, strict=False):
        server.extra = (f"--listen-dns=127.0.0.1:{port}",)
    with cluster:
        apis = [Api(server.endpoint) for server in cluster.servers]
        stage = Stage(cluster, apis, ports, directory)
        try:
            await stage.leader()
            yield stage
        finally:
            await asyncio.gather(*(api.close() for api in apis))
