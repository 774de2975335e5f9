"""Channels follow the instances: made once, kept for a while after one left, then closed."""

from __future__ import annotations

import asyncio

from kvstore.client.registry import (
    HEALTHY,
    AsyncChannelPool,
    ChannelPool,
    Instance,
    RegistryHeader,
    Update,
)
from kvstore.client.registry.resolving import ResolverBase, Toolbox


class Channel:
    def __init__(self, target: str) -> None:
        self.target = target
        self.closed = False

    def close(self) -> None:
        self.closed = True


class AwaitedChannel(Channel):
    async def close(self) -> None:  # type: ignore[override]
        self.closed = True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def instance(id: str, created: int = 1) -> Instance:
    return Instance(
        service="s",
        id=id,
        address="h",
        ports={"grpc": 1, "admin": 2},
        create_revision=created,
    )


def resolver_of(*instances: Instance) -> ResolverBase:
    resolver = ResolverBase("default", "s", HEALTHY, Toolbox.make())
    tell(resolver, *instances)
    return resolver


def tell(resolver: ResolverBase, *instances: Instance) -> None:
    revision = resolver.view.revision + 1
    resolver._take(Update(RegistryHeader(), revision, is_snapshot=True, snapshot=instances))


def test_channels_are_kept_until_some_time_after_the_instance_left() -> None:
    clock = Clock()
    a, b = instance("a"), instance("b")
    resolver = resolver_of(a, b)
    pool = ChannelPool(resolver, Channel, port="admin", linger_s=5, clock=clock)
    channel = pool.channel(a)
    assert channel.target == "h:2"
    assert pool.channel(a) is channel
    tell(resolver, b)
    clock.now = 4.9
    pool.channel(b)
    assert not channel.closed
    clock.now = 5.0
    pool.channel(b)
    assert channel.closed


def test_one_that_comes_back_in_time_keeps_its_channel() -> None:
    clock = Clock()
    a, b = instance("a"), instance("b")
    resolver = resolver_of(a, b)
    pool = ChannelPool(resolver, Channel, linger_s=5, clock=clock)
    channel = pool.channel(a)
    tell(resolver, b)
    tell(resolver, a, b)
    clock.now = 9.0
    assert pool.channel(a) is channel
    # Registered anew: perhaps another process, and its predecessor's connection is dead.
    again = instance("a", created=7)
    tell(resolver, again, b)
    assert pool.channel(again) is not channel
    pool.close()
    assert channel.closed


def test_asyncio() -> None:
    async def main() -> None:
        clock = Clock()
        a, b = instance("a"), instance("b")
        resolver = resolver_of(a, b)
        pool = AsyncChannelPool(resolver, AwaitedChannel, linger_s=1, clock=clock)
        first, second = pool.channel(a), pool.channel(b)
        tell(resolver, b)
        clock.now = 2.0
        pool.channel(b)
        await asyncio.sleep(0)
        assert first.closed
        assert not second.closed
        await pool.close()
        assert second.closed

    asyncio.run(main())
