"""Watching services: who is told of what, how often, and what a thousand of them cost."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import pytest

from kvstore.errors import NO_LEADER, EtcdError
from kvstore.registry import limits
from kvstore.registry.feeds import ALL_NAMESPACES, Batch, Progress, Scope, Subscriber
from kvstore.registry.model import Instance, Status
from kvstore.registry.names import InstanceName, ServiceName, instance_key
from kvstore.registry.selection import EVERYTHING, HEALTHY, Health, Selection
from kvstore.registry.service import RegistryService
from tests.unit.node.nodes import put, until
from tests.unit.node.on_loop import on_loop

from .world import PAYMENT, World, payment, world

T = TypeVar("T")
ONE = InstanceName(*PAYMENT, "payment-1")
OTHER = ServiceName("default", "search")


def slow(number: int = 1, **fields: Any) -> Instance:
    return payment(number, ttl_s=20, grace_s=30, **fields)


async def soon(work: Awaitable[T]) -> T:
    return await asyncio.wait_for(work, 5)


async def batch(subscriber: Subscriber) -> Batch:
    told = await soon(subscriber.next())
    assert isinstance(told, Batch), told
    return told


def events(told: Batch) -> list[tuple[str, str, bool]]:
    return [(each.event, each.entry.name.id, each.left) for each in told.events]


async def quiet(subscriber: Subscriber) -> bool:
    """Nothing is there for it, after whatever is under way."""
    for _ in range(5):
        await asyncio.sleep(0)
    return subscriber.place == subscriber.feed.end and not subscriber.anew


async def subscribe(
    service: RegistryService,
    scope: Scope = PAYMENT,
    selection: Selection = HEALTHY,
    **options: Any,
) -> tuple[Subscriber, list[str]]:
    """A subscriber, and what it was told at first."""
    subscriber = await service.watching.subscribe(scope, selection, **options)
    first = await batch(subscriber)
    assert first.is_snapshot
    return subscriber, [entry.name.id for entry in first.entries]


def single(made: World) -> RegistryService:
    return made.registries["a"].service


@on_loop
async def test_the_state_first_then_each_change_with_its_reason(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = single(made)
        await service.register(slow())
        subscriber, first = await subscribe(service)
        assert first == ["payment-1"]
        registered = await service.register(slow(2))
        told = await batch(subscriber)
        assert events(told) == [("registered", "payment-2", False)]
        assert told.revision == told.events[0].revision == registered.entry.revision
        await service.override(ONE, Status.DRAINING, "an upgrade")
        told = await batch(subscriber)
        assert events(told) == [("drained", "payment-1", True)]
        assert told.events[0].reason == ("drained", "an upgrade")
        # What is not in the answer can change or go without anybody being told.
        await service.report(ONE, Status.DEGRADED)
        await service.deregister(ONE)
        assert await quiet(subscriber)
        await service.deregister(InstanceName(*PAYMENT, "payment-2"), "done")
        told = await batch(subscriber)
        assert events(told) == [("deregistered", "payment-2", True)]
        assert told.events[0].reason == ("deregistered", "done")
        subscriber.close()
        with pytest.raises(EtcdError):
            await subscriber.next()
        assert service.watching.feeds() == []


@on_loop
async def test_what_does_not_change_the_answer_wakes_nobody(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = single(made)
        await service.register(slow(tags=("x",)))
        entry = (await service.register(slow(2))).entry
        tagged, first = await subscribe(service, PAYMENT, Selection(tags=("x",)))
        assert first == ["payment-1"]
        other, _ = await subscribe(service, OTHER)
        await service.override(entry.name, Status.DRAINING)
        await service.heartbeat([entry.lease])
        await service.register(slow(2))
        value = service.catalog.entry(ONE)
        assert value is not None
        await put(service.node, instance_key(ONE), value.value, value.lease)
        assert await quiet(tagged)
        assert await quiet(other)
        assert other.feed.flushes == 0, "it never had to look"
        assert tagged.feed.flushes > 0
        # A value that is no instance is no longer in the answer.
        await put(service.node, instance_key(ONE), b"oops")
        told = await batch(tagged)
        assert events(told) == [("updated", "payment-1", True)]
        assert "not JSON" in told.events[0].reason.text


@on_loop
async def test_changes_of_one_entry_of_the_log_are_one_batch(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = single(made)
        for number in range(50):
            await service.register(slow(number))
        one, _ = await subscribe(service)
        two, _ = await subscribe(service)
        assert one.feed is two.feed
        await service.drain(PAYMENT)
        told = await batch(one)
        assert len(told.events) == 50
        assert await batch(two) is told, "the same object, so it is encoded once"


@on_loop
async def test_all_services_of_a_namespace_or_of_all(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = single(made)
        await service.create_namespace("team")
        default, _ = await subscribe(service, "default")
        everything, _ = await subscribe(service, ALL_NAMESPACES, EVERYTHING)
        await service.register(slow())
        assert events(await batch(default)) == [("registered", "payment-1", False)]
        await batch(everything)
        await service.register(dataclasses.replace(slow(), namespace="team"))
        told = await batch(everything)
        assert told.events[0].entry.name.namespace == "team"
        assert await quiet(default)


@on_loop
async def test_where_the_whole_service_decides(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = single(made)
        await service.register(slow(1, zone="west"))
        await service.register(slow(2, zone="east", reported=Status.STARTING))
        fall_back, first = await subscribe(service, PAYMENT, Selection(Health.HEALTHY_OR_ELSE_ALL))
        assert first == ["payment-1"]
        near = Selection(prefer_zone="east", only_preferred=True)
        nearest, first = await subscribe(service, PAYMENT, near)
        assert first == ["payment-1"]
        await service.report(ONE, Status.DOWN)
        assert sorted(events(await batch(fall_back))) == [
            ("updated", "payment-1", False),
            ("updated", "payment-2", False),
        ]
        assert events(await batch(nearest)) == [("updated", "payment-1", True)]
        await service.report(ONE, Status.UP)
        assert sorted(events(await batch(fall_back))) == [
            ("updated", "payment-1", False),
            ("updated", "payment-2", True),
        ]
        assert events(await batch(nearest)) == [("updated", "payment-1", False)]
        await service.report(InstanceName(*PAYMENT, "payment-2"), Status.UP)
        assert sorted(events(await batch(nearest))) == [
            ("updated", "payment-1", True),
            ("updated", "payment-2", False),
        ]


@on_loop
async def test_going_on_after_a_revision(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = single(made)
        start = (await service.register(slow())).entry.revision
        await service.register(slow(2))
        await service.override(ONE, Status.DRAINING)
        watching = service.watching
        back = await watching.subscribe(PAYMENT, HEALTHY, after_revision=start)
        told = await batch(back)
        assert not told.is_snapshot
        assert events(told) == [
            ("registered", "payment-2", False),
            ("drained", "payment-1", True),
        ]
        newest = await watching.subscribe(PAYMENT, HEALTHY, after_revision=told.revision)
        assert isinstance(await soon(newest.next()), Progress)
        await service.deregister(InstanceName(*PAYMENT, "payment-2"))
        assert events(await batch(newest)) == [("deregistered", "payment-2", True)]
        # A revision that not even the cluster has reached (it was restored): it begins anew.
        with patch.object(limits, "RESUME_WAIT_S", 0.05):
            ahead = await watching.subscribe(PAYMENT, HEALTHY, after_revision=10**6)
        assert (await batch(ahead)).is_snapshot


@on_loop
async def test_a_member_that_is_behind_and_alone_takes_nobody_back_in_time(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = single(made)
        told = (await service.register(slow())).entry.revision

        async def cut_off() -> None:
            raise EtcdError(NO_LEADER.code, NO_LEADER.message)

        with (
            patch.object(limits, "RESUME_WAIT_S", 0.05),
            patch.object(service.node, "linearize", cut_off),
            pytest.raises(EtcdError, match=f"up to revision {told} only .* told up to 1000"),
        ):
            await service.watching.subscribe(PAYMENT, HEALTHY, after_revision=1000)


@on_loop
async def test_what_is_too_long_ago_begins_anew(tmp_path: Path) -> None:
    with patch.object(limits, "RECENT_DELTAS", 3):
        async with world(tmp_path, "a") as made:
            service = single(made)
            start = (await service.register(slow())).entry.revision
            for number in range(2, 5):
                await service.register(slow(number))
            again = await service.watching.subscribe(PAYMENT, HEALTHY, after_revision=start)
            assert not (await batch(again)).is_snapshot
            await service.register(slow(5))
            again = await service.watching.subscribe(PAYMENT, HEALTHY, after_revision=start)
            assert (await batch(again)).is_snapshot


@on_loop
async def test_a_slow_subscriber_gets_the_state_again_and_nothing_piles_up(
    tmp_path: Path,
) -> None:
    with patch.object(limits, "SUBSCRIBER_EVENTS_MAX", 5):
        async with world(tmp_path, "a") as made:
            service = single(made)
            quick, _ = await subscribe(service)
            stalled, _ = await subscribe(service)
            for number in range(20):
                await service.register(slow(number))
                await batch(quick)
            feed = stalled.feed
            assert feed.end - feed.oldest <= 5
            told = await batch(stalled)
            assert told.is_snapshot
            assert len(told.entries) == 20
            assert await quiet(stalled)
            feed.tidy()
            assert feed.oldest == feed.end, "what everybody has is let go"


@on_loop
async def test_a_thousand_subscribers_are_told_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = single(made)
        await service.register(slow())
        many = [(await subscribe(service))[0] for _ in range(1_000)]
        others = [(await subscribe(service, OTHER))[0] for _ in range(1_000)]
        loop = asyncio.get_running_loop()
        told: list[float] = []

        async def listen(subscriber: Subscriber) -> None:
            first = await batch(subscriber)
            assert events(first) == [("drained", "payment-1", True)]
            told.append(loop.time())

        tasks = [asyncio.ensure_future(listen(each)) for each in many]
        await asyncio.sleep(0)
        began = loop.time()
        await service.drain(PAYMENT, "payment-1")
        await soon(asyncio.gather(*tasks))
        assert max(told) - began < 1.0
        assert many[0].feed.flushes == 1, "one look for all of them"
        assert all([await quiet(each) for each in others[:5]])
        assert others[0].feed.flushes == 0
        for each in (*many, *others):
            each.close()
        assert service.watching.feeds() == []


@on_loop
async def test_a_quiet_stream_says_how_far_it_is_and_that_the_leader_is_gone(
    tmp_path: Path,
) -> None:
    with patch.object(limits, "WATCH_TICK_S", 0.02), patch.object(limits, "WATCH_PROGRESS_S", 0.1):
        async with world(tmp_path, "a", "b") as made:
            follower = await made.follower()
            service = follower.service
            subscriber, _ = await subscribe(service)
            await service.register(dataclasses.replace(slow(), service=OTHER.service))
            told = await soon(subscriber.next())
            assert isinstance(told, Progress)
            assert told.revision == service.node.revision
            leader = await made.leader()
            await leader.stop()
            await leader.node.stop()
            with patch.object(limits, "WATCH_PROGRESS_S", 60.0):
                await until(lambda: not service.has_leader)
                # Those that were under way come first; then the one for the leader that is gone.
                assert isinstance(await soon(subscriber.next()), Progress)


@on_loop
async def test_reading_anew_begins_everything_anew(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = single(made)
        await service.register(slow())
        plain, _ = await subscribe(service)
        whole, _ = await subscribe(service, PAYMENT, Selection(Health.HEALTHY_OR_ELSE_ALL))
        revision = service.catalog.revision
        service.catalog.changed(None)
        for subscriber in (plain, whole):
            told = await batch(subscriber)
            assert told.is_snapshot
            assert [entry.name for entry in told.entries] == [ONE]
        await service.deregister(ONE)
        for subscriber in (plain, whole):
            assert events(await batch(subscriber)) == [("deregistered", "payment-1", True)]
        await until(lambda: service.catalog.revision > revision)
