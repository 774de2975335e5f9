"""Who was there, when, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kvstore.errors import Code, EtcdError
from kvstore.machine import CommandKind
from kvstore.node.node import Node
from kvstore.pb import rpc_pb2
from kvstore.registry.history import Past
from kvstore.registry.model import Status, encode
from kvstore.registry.names import InstanceName, ServiceName, instance_key
from tests.unit.node.nodes import put, until
from tests.unit.node.on_loop import on_loop

from .world import PAYMENT, Observer, beat, deregister, payment, register, world


def told(past: Past) -> dict[str, Status | None]:
    return {
        then.name.id: None if then.instance is None else then.instance.status
        for then in past.instances
    }


async def compact(node: Node) -> None:
    request = rpc_pb2.CompactionRequest(revision=node.revision)
    await node.submit(CommandKind.COMPACT, request.SerializeToString())
    await until(lambda: node.machine.swept)


@on_loop
async def test_who_was_up_and_why_before_and_after_compaction(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        node, history, seen = registry.node, registry.history, Observer(registry)
        marks: dict[str, int] = {}
        [lease, _] = await register(node, payment(1, grace_s=60), payment(2, ttl_s=60))
        marks["registered"] = node.revision
        await until(lambda: seen.when("unhealthy", "payment-1"))
        marks["down"] = node.revision
        await beat(node, [lease])
        await until(lambda: seen.when("recovered", "payment-1"))
        marks["recovered"] = node.revision
        await deregister(node, InstanceName(*PAYMENT, "payment-1"), "SIGTERM")
        marks["gone"] = node.revision
        await put(node, b"unrelated")
        up, down = Status.UP, Status.DOWN
        expected: dict[str, dict[str, Status | None]] = {
            "registered": {"payment-1": up, "payment-2": up},
            "down": {"payment-1": down, "payment-2": up},
            "recovered": {"payment-1": up, "payment-2": up},
            "gone": {"payment-2": up},
        }
        events = await history.since(InstanceName(*PAYMENT, "payment-1"))
        assert [(what.event, what.revision) for what in events] == [
            ("registered", marks["registered"]),
            ("unhealthy", marks["down"]),
            ("recovered", marks["recovered"]),
            ("deregistered", marks["gone"]),
        ]
        assert events[1].reason.text == "no heartbeat for 1 s"
        assert events[3].reason.text == "SIGTERM"
        assert events[3].instance is not None
        for compacted in (False, True):
            if compacted:
                await compact(node)
            for mark, revision in marks.items():
                assert told(await history.at(PAYMENT, revision=revision)) == expected[mark], mark
            for what, mark in zip(events, marks, strict=True):
                past = await history.at(PAYMENT, time_ms=what.time_ms)
                assert told(past) == expected[mark], mark
                assert past.time_ms == what.time_ms
        assert await history.since(InstanceName(*PAYMENT, "payment-1")) == events


@on_loop
async def test_some_of_what_happened(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        history = registry.history
        await register(registry.node, *(payment(n, ttl_s=60) for n in range(3)))
        await register(registry.node, payment(1, ttl_s=60, service="other"))
        everything = await history.since(None)
        assert [what.name.id for what in everything] == [
            "payment-0",
            "payment-1",
            "payment-2",
            "other-1",
        ]
        assert await history.since(PAYMENT) == everything[:3]
        assert await history.since(PAYMENT, limit=2) == everything[:2]
        assert await history.since(PAYMENT, newest_first=True, limit=1) == everything[2:3]
        assert await history.since(None, revision=3) == everything[3:]
        assert await history.since(None, until=3) == everything[:3]
        assert (await history.at(ServiceName("default", "none"), revision=2)).instances == []


@on_loop
async def test_what_is_no_longer_kept_is_refused_with_where_it_begins(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        node, history = registry.node, registry.history
        await put(node, b"first")
        await register(node, payment(1, ttl_s=60))
        begun = (await history.since(None))[0]
        with pytest.raises(EtcdError, match="history is kept since 20") as refused:
            await history.at(PAYMENT, time_ms=begun.time_ms - 1)
        assert refused.value.code == Code.OUT_OF_RANGE
        assert f"(revision {begun.revision})" in refused.value.message
        with pytest.raises(EtcdError, match="history is kept since"):
            await history.since(PAYMENT, revision=begun.revision - 1)
        with pytest.raises(EtcdError, match="yet to come"):
            await history.at(PAYMENT, revision=node.revision + 1)
        with pytest.raises(EtcdError, match="count from 1"):
            await history.at(PAYMENT, revision=0)
        assert told(await history.at(PAYMENT, revision=begun.revision - 1)) == {}
        await compact(node)
        with pytest.raises(EtcdError, match="history is kept since"):
            await history.at(PAYMENT, revision=begun.revision - 1)
        late = await history.at(PAYMENT, time_ms=begun.time_ms + 10**9)
        assert told(late) == {"payment-1": Status.UP}


@on_loop
async def test_the_past_of_an_instance_whose_first_records_are_gone(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        node, history = registry.node, registry.history
        await register(node, *(payment(n, ttl_s=60) for n in (1, 2, 3, 4)))
        node.machine.config = replace(node.machine.config, journal_max_records=3)
        for number, service in ((1, PAYMENT.service), (2, PAYMENT.service), (1, "other")):
            wanted = payment(number, ttl_s=60, service=service, version="2")
            value = encode(wanted.changed(wanted.reason, 0, registered_ms=node.wall_ms()))
            await put(node, instance_key(wanted.name), value)
        await deregister(node, InstanceName(*PAYMENT, "payment-3"))
        for number in range(2):
            odd_key = b"/kvstore/services/default/payment/odd"
            await put(node, odd_key, b"not JSON %d" % number)
        await compact(node)
        # The journal begins with the end of payment-3: how the others were follows from that.
        begins = (await history.since(None))[0]
        assert (begins.event, begins.name.id) == ("deregistered", "payment-3")
        past = await history.at(PAYMENT, revision=begins.revision)
        assert told(past) == {
            "payment-1": Status.UP,
            "payment-2": Status.UP,
            "payment-4": Status.UP,
        }
        past = await history.at(PAYMENT, revision=begins.revision + 1)
        odd = past.instances[0]
        assert (odd.name.id, odd.instance) == ("odd", None)
        assert "not JSON" in odd.problem


@on_loop
async def test_what_cannot_be_known_any_more_is_said_to_be_unknown(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        node, history = registry.node, registry.history
        await register(node, payment(1, ttl_s=60), payment(2, ttl_s=60))
        node.machine.config = replace(node.machine.config, journal_max_records=3)
        await deregister(node, InstanceName(*PAYMENT, "payment-2"))
        entry = registry.catalog.entry(InstanceName(*PAYMENT, "payment-1"))
        assert entry is not None
        assert entry.instance is not None
        changed = replace(entry.instance, version="2")
        await put(node, instance_key(changed.name), encode(changed), entry.lease)
        await put(node, instance_key(changed.name), encode(replace(changed, version="3")))
        await compact(node)
        begins = (await history.since(None))[0]
        assert begins.event == "deregistered"
        [then] = (await history.at(PAYMENT, revision=begins.revision)).instances
        assert (then.name.id, then.instance) == ("payment-1", None)
        assert then.problem == "how it was at that time is no longer kept"
