"""Waiting until those who watch have acknowledged a change, over all members."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kvstore.errors import Code, EtcdError
from kvstore.pb import rpc_pb2
from kvstore.registry.names import InstanceName, ServiceName
from kvstore.registry.registry import Registry
from kvstore.registry.selection import HEALTHY, Selection
from kvstore.registry.watching import Batch, Scope, Subscriber
from tests.unit.node.nodes import until
from tests.unit.node.on_loop import on_loop

from .world import PAYMENT, payment, world

ONE = InstanceName(*PAYMENT, "payment-1")


class Client:
    """Watches, and acknowledges if it is told to."""

    def __init__(self, registry: Registry, id_: str, scope: Scope, *, acks: bool) -> None:
        self._registry = registry
        self.id = id_
        self._scope = scope
        self._acks = acks
        self.subscriber: Subscriber | None = None
        self._task: asyncio.Task[None] | None = None

    async def begin(self, selection: Selection = HEALTHY) -> Client:
        watching = self._registry.service.watching
        self.subscriber = await watching.subscribe(self._scope, selection, id_=self.id)
        first = await self.subscriber.next()
        self._ack(first.revision, always=True)
        self._task = asyncio.create_task(self._go_on(self.subscriber))
        return self

    async def _go_on(self, subscriber: Subscriber) -> None:
        while True:
            told = await subscriber.next()
            if isinstance(told, Batch):
                self._ack(told.revision)

    def _ack(self, revision: int, *, always: bool = False) -> None:
        if self.id and (self._acks or always):
            assert self._registry.service.subscribers.ack(self.id, self._scope, revision)

    async def leave(self) -> None:
        assert self._task is not None
        assert self.subscriber is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.subscriber.close()


async def client(
    registry: Registry,
    id_: str,
    scope: Scope = PAYMENT,
    *,
    acks: bool = True,
    selection: Selection = HEALTHY,
) -> Client:
    return await Client(registry, id_, scope, acks=acks).begin(selection)


def slow(number: int = 1, **fields: Any) -> Any:
    return payment(number, ttl_s=20, grace_s=30, **fields)


async def leave(*clients: Client) -> None:
    for each in clients:
        await each.leave()


@on_loop
async def test_all_members_are_asked_and_who_cannot_acknowledge_is_told(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        a, b, c = made.registries.values()
        await a.service.register(slow())
        for registry in (b, c):
            await registry.service.instances(PAYMENT, linearizable=True)
        clients = [
            await client(a, "one"),
            await client(b, "two"),
            await client(c, "all", "default"),
            await client(b, ""),
            await client(c, "other", ServiceName("default", "search"), acks=False),
        ]
        c.service.subscribers.deaf["dns"] = lambda service: int(service == PAYMENT)
        stream = b.node.watches.open(lambda: None)
        create = rpc_pb2.WatchCreateRequest(
            key=b"/kvstore/services/", range_end=b"/kvstore/services0"
        )
        stream.request(rpc_pb2.WatchRequest(create_request=create))
        gone = await b.service.deregister(ONE, wait_s=5)
        told = gone.acknowledged
        assert told is not None
        assert told.complete
        assert told.acknowledged == 3
        assert told.waited_ms < 2_000
        assert told.cannot_acknowledge == {"watch without id": 1, "etcd watch": 1, "dns": 1}
        await leave(*clients)
        stream.close()


@on_loop
async def test_laggards_are_named_with_their_member(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b") as made:
        a, b = made.registries.values()
        registered = (await a.service.register(slow())).entry.revision
        await b.service.instances(PAYMENT, linearizable=True)
        clients = [await client(a, "good"), await client(b, "lazy", acks=False)]
        told = (await a.service.deregister(ONE, wait_s=0.3)).acknowledged
        assert told is not None
        assert (told.complete, told.acknowledged) == (False, 1)
        (laggard,) = told.laggards
        assert (laggard.id, laggard.member_id, laggard.member_name) == (
            "lazy",
            b.node.member_id,
            "b",
        )
        assert laggard.acked_revision == registered
        assert 250 <= told.waited_ms < 1_500
        await leave(*clients)


@on_loop
async def test_who_is_not_concerned_or_leaves_is_not_waited_for(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = made.registries["a"]
        service = registry.service
        await service.register(slow())
        tagged = await client(registry, "tagged", acks=False, selection=Selection(tags=("x",)))
        leaves = await client(registry, "leaves", acks=False)
        waiting = asyncio.create_task(service.drain(PAYMENT, wait_s=5))
        await until(lambda: service.subscribers._waiting)
        await leaves.leave()
        told = (await waiting).acknowledged
        assert told is not None
        assert (told.complete, told.acknowledged) == (True, 1)
        assert told.waited_ms < 2_000
        # Draining what is drained already waits for the change that did it.
        late = await client(registry, "late")
        told = (await service.drain(PAYMENT, "payment-1", wait_s=1)).acknowledged
        assert told is not None
        assert told.acknowledged == 2
        await leave(tagged, late)


@on_loop
async def test_a_member_that_is_away_is_silent(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        follower = await made.follower()
        await follower.service.register(slow())
        leader = await made.leader()
        others = [each for each in made.registries.values() if each not in (follower, leader)]
        (away,) = others
        await away.stop()
        await away.node.stop()
        told = (await follower.service.deregister(ONE, wait_s=0.5)).acknowledged
        assert told is not None
        assert not told.complete
        assert told.silent_members == [away.node.member_id]


@on_loop
async def test_acknowledging_what_nobody_was_told(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = made.registries["a"]
        subscribers = registry.service.subscribers
        one = await client(registry, "one")
        assert not subscribers.ack("nobody", PAYMENT, 1)
        assert not subscribers.ack("one", "default", 1)
        with pytest.raises(EtcdError, match="is yet to come") as raised:
            subscribers.ack("one", PAYMENT, 10**6)
        assert raised.value.code is Code.OUT_OF_RANGE
        for question in (None, [], ["a", "b", b"k", 1, "x"]):
            with pytest.raises(EtcdError):
                await subscribers._answer(question)
        await one.leave()


@on_loop
async def test_what_is_owed_stays_bounded(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = made.registries["a"]
        lazy = await client(registry, "lazy", acks=False)
        subscriber = lazy.subscriber
        assert subscriber is not None
        for revision in range(10, 2_000):
            subscriber.owe(Batch(revision, revision, None))
        assert len(subscriber._owed) <= 256
        assert subscriber.has_acked(9)
        assert not subscriber.has_acked(10)
        subscriber.ack(1_000)
        assert subscriber.has_acked(1_000)
        assert not subscriber.has_acked(1_001)
        subscriber.ack(1_999)
        assert subscriber.has_acked(5_000)
        await lazy.leave()
