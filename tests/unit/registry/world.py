"""Members with a registry each, on a loopback network, and what a front door would do with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kvstore.checks.reach import Network
from kvstore.errors import EtcdError
from kvstore.machine import ANY_REVISION, BatchAction, BatchFailure, BatchItem
from kvstore.node.node import Node
from kvstore.registry.catalog import Delta
from kvstore.registry.lifecycle import after_register, deregistered
from kvstore.registry.model import Instance, Reason, Status, encode
from kvstore.registry.names import InstanceName, ServiceName, instance_key
from kvstore.registry.registry import Registry
from tests.unit.node.nodes import Nodes, running

__all__ = ("PAYMENT", "Observer", "World", "world")

PAYMENT = ServiceName("default", "payment")


class Observer:
    """Writes down when it is told of what; times are those of the loop."""

    def __init__(self, registry: Registry, service: ServiceName | None = PAYMENT) -> None:
        self.deltas: list[tuple[float, Delta]] = []
        self.wakes = 0
        self.anew = 0
        self.subscription = registry.catalog.subscribe(self._told, service)

    def _told(self, deltas: Sequence[Delta] | None) -> None:
        self.wakes += 1
        if deltas is None:
            self.anew += 1
            return
        now = asyncio.get_running_loop().time()
        self.deltas += [(now, delta) for delta in deltas]

    def events(self, id_: str | None = None) -> list[str]:
        return [d.event for _, d in self.deltas if id_ in (None, d.name.id)]

    def when(self, event: str, id_: str) -> float:
        """The last time of this event; 0 if there was none."""
        times = [at for at, d in self.deltas if d.event == event and d.name.id == id_]
        return times[-1] if times else 0.0


class World:
    """Nodes and their registries, by name."""

    def __init__(self, nodes: Nodes, check_networks: Sequence[Network] | None = None) -> None:
        """`check_networks`: where the members' agentless checks may go; None: none are run."""
        self.nodes = nodes
        self._check_networks = check_networks
        self.registries: dict[str, Registry] = {}

    async def add(self, name: str) -> Registry:
        registry = Registry(self.nodes.by_name[name], self._check_networks)
        registry.start()
        self.registries[name] = registry
        await registry.catalog.wait_ready()
        return registry

    async def leader(self) -> Registry:
        node = await self.nodes.leader()
        return next(each for each in self.registries.values() if each.node is node)

    async def follower(self) -> Registry:
        node = await self.nodes.leader()
        return next(each for each in self.registries.values() if each.node is not node)


@asynccontextmanager
async def world(
    directory: Path,
    *names: str,
    check_networks: Sequence[Network] | None = None,
    **settings: Any,
) -> AsyncIterator[World]:
    async with running(directory, *names, **settings) as nodes:
        made = World(nodes, check_networks)
        try:
            for name in names:
                await made.add(name)
            yield made
        finally:
            for registry in made.registries.values():
                await registry.stop()


def payment(number: int, *, ttl_s: int = 1, grace_s: int = 1, **fields: Any) -> Instance:
    more = {"service": PAYMENT.service, "reported": Status.UP, **fields}
    return Instance(
        namespace=PAYMENT.namespace,
        id=f"{more['service']}-{number}",
        address=f"10.0.0.{number % 250 + 1}",
        ports={"http": 8080},
        ttl_s=ttl_s,
        grace_s=grace_s,
        **more,
    )


async def register(node: Node, *wanted: Instance) -> list[int]:
    """Registers instances that are not there yet; their leases."""
    items, leases = [], []
    for instance in wanted:
        lease = node.new_lease_id()
        leased = instance.changed(Reason("registered"), 0, lease=lease)
        new = after_register(leased, None, node.wall_ms())
        items.append(
            BatchItem(
                instance_key(new.name),
                0,
                BatchAction.PUT_NEW_LEASE,
                encode(new),
                lease,
                new.ttl_s + new.grace_s,
                new.reason.line,
            )
        )
        leases.append(lease)
    answer = await node.submit_batch(items)
    assert all(outcome.failure is BatchFailure.NONE for outcome in answer.outcomes)
    return leases


async def deregister(node: Node, name: InstanceName, text: str = "") -> None:
    item = BatchItem(
        instance_key(name), ANY_REVISION, BatchAction.DELETE, reason=deregistered(text).line
    )
    answer = await node.submit_batch([item])
    assert answer.outcomes[0].failure is BatchFailure.NONE


async def beat(node: Node, leases: Sequence[int]) -> list[int]:
    """One heartbeat of many; the TTLs."""
    future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def done(ttls: Any, error: EtcdError | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(EtcdError(error.code, error.message))
        else:
            future.set_result(ttls)

    node.renew_leases(leases, done)
    return await future


@asynccontextmanager
async def beating(node: Node, leases: Sequence[int], every_s: float = 0.2) -> AsyncIterator[None]:
    """Heartbeats in the background."""

    async def go_on() -> None:
        while True:
            await beat(node, leases)
            await asyncio.sleep(every_s)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
