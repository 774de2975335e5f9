"""Real Nodes on a loopback network and temporary directories, for tests on an event loop."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kvstore.errors import EtcdError
from kvstore.machine import CommandKind
from kvstore.node.config import NodeConfig
from kvstore.node.node import Node
from kvstore.pb import rpc_pb2
from tests.support.servers import free_ports

from .loopback import LoopbackNetwork

FAST = {"heartbeat_ms": 20, "election_ms": 100}


class Nodes:
    """Members by name; `start` again after `stop` is a restart."""

    def __init__(self, directory: Path, network: Any = None, **settings: Any) -> None:
        self.directory = directory
        self.network = network or LoopbackNetwork()
        self.settings = {**FAST, **settings}
        self.by_name: dict[str, Node] = {}
        self._ports: dict[str, int] = {}

    def config(self, name: str, cluster: dict[str, tuple[str, ...]], **more: Any) -> NodeConfig:
        urls = cluster[name]
        config = NodeConfig(
            name=name,
            data_dir=self.directory / name,
            listen_peer_urls=urls,
            advertise_peer_urls=urls,
            advertise_client_urls=(f"http://{name}:2379",),
            initial_cluster=cluster,
        )
        return dataclasses.replace(config, **{**self.settings, **more})

    def urls(self, *names: str) -> dict[str, tuple[str, ...]]:
        if isinstance(self.network, LoopbackNetwork):
            return {name: (f"http://{name}:2380",) for name in names}
        for name in names:
            self._ports.setdefault(name, free_ports(1)[0])
        return {name: (f"http://127.0.0.1:{self._ports[name]}",) for name in names}

    async def start(self, name: str, cluster: dict[str, tuple[str, ...]], **more: Any) -> Node:
        node = Node(self.config(name, cluster, **more), network=self.network)
        await node.start()
        self.by_name[name] = node
        return node

    async def start_all(self, *names: str, **more: Any) -> list[Node]:
        cluster = self.urls(*names)
        nodes = await asyncio.gather(*(self.start(name, cluster, **more) for name in names))
        await self.leader()
        return list(nodes)

    async def leader(self) -> Node:
        async def find() -> Node | None:
            nodes = [node for node in self.by_name.values() if not node.stopped]
            leaders = [node for node in nodes if node.is_leader]
            followers = sum(1 for n in nodes if leaders and n.leader_id == leaders[0].member_id)
            return leaders[0] if leaders and 2 * followers > len(nodes) else None

        return await until(find)

    async def stop_all(self) -> None:
        await asyncio.gather(*(node.stop() for node in self.by_name.values()))


@asynccontextmanager
async def running(
    directory: Path, *names: str, network: Any = None, **settings: Any
) -> AsyncIterator[Nodes]:
    nodes = Nodes(directory, network, **settings)
    try:
        if names:
            await nodes.start_all(*names)
        yield nodes
    finally:
        await nodes.stop_all()


async def until(condition: Callable[[], Any], patience_s: float = 8.0) -> Any:
    """Waits until `condition` (a function or coroutine function) is true; returns its value."""
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


async def put(node: Node, key: bytes, value: bytes = b"v", lease: int = 0) -> int:
    request = rpc_pb2.PutRequest(key=key, value=value, lease=lease)
    result = await node.submit(CommandKind.PUT, request.SerializeToString())
    return int(result.revision)


async def get(node: Node, key: bytes, **fields: Any) -> Any:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(answer: Any, error: EtcdError | None) -> None:
        if error is not None:
            future.set_exception(EtcdError(error.code, error.message))
        else:
            response = node.header(answer.revision) + answer.body
            future.set_result(rpc_pb2.RangeResponse.FromString(response))

    node.range(rpc_pb2.RangeRequest(key=key, **fields), done)
    return await future


async def grant(node: Node, ttl: int) -> int:
    lease_id = node.new_lease_id()
    request = rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=ttl)
    await node.submit(CommandKind.LEASE_GRANT, request.SerializeToString())
    return lease_id


async def keep_alive(node: Node, lease_id: int) -> int:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def done(ttl: Any, error: EtcdError | None) -> None:
        if error is not None:
            future.set_exception(EtcdError(error.code, error.message))
        else:
            future.set_result(ttl)

    node.lease_keep_alive(lease_id, done)
    return await future
