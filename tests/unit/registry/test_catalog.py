"""What every member has in memory of all services."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import patch

import pytest

from kvstore.errors import EtcdError
from kvstore.machine import ANY_REVISION, BatchAction, BatchItem, CommandKind
from kvstore.node.member import MemberCore
from kvstore.pb import rpc_pb2
from kvstore.registry import limits
from kvstore.registry.model import Status
from kvstore.registry.names import InstanceName, ServiceName, namespace_key, settings_key
from kvstore.registry.registry import Registry
from tests.unit.node.nodes import grant, put, until
from tests.unit.node.on_loop import on_loop

from .world import PAYMENT, Observer, deregister, payment, register, world

ONE = b"/kvstore/services/default/payment/one"
VALUE = b'{"address":"10.0.0.1","port":80}'


@on_loop
async def test_a_change_is_there_before_its_writer_is_answered(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        for registry in made.registries.values():
            revision = await put(registry.node, ONE, b'{"address":"h","port":%d}' % 80)
            entry = registry.catalog.entry(InstanceName(*PAYMENT, "one"))
            assert entry is not None
            assert registry.catalog.revision >= revision
            await deregister(registry.node, entry.name)
            assert registry.catalog.entry(entry.name) is None


@on_loop
async def test_revision_and_subscribers_move_only_with_the_answer(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        catalog, node = registry.catalog, registry.node
        seen, all_seen = Observer(registry), Observer(registry, None)
        first = await put(node, ONE, VALUE)
        assert catalog.service_revision(PAYMENT) == first
        await put(node, ONE, VALUE)
        await put(node, b"/kvstore/services/default/other/x", VALUE)
        await put(node, b"elsewhere", VALUE)
        assert (seen.wakes, all_seen.wakes) == (1, 2)
        assert catalog.service_revision(PAYMENT) == first
        entry = catalog.entry(InstanceName(*PAYMENT, "one"))
        assert entry is not None
        assert entry.revision == first + 1
        changed = await put(node, ONE, VALUE.replace(b"80", b"81"))
        assert catalog.service_revision(PAYMENT) == changed
        assert seen.events() == ["registered", "updated"]
        assert seen.deltas[-1][1].reason.text == "written by a client"
        seen.subscription.close()
        seen.subscription.close()
        await put(node, ONE, VALUE)
        assert (seen.wakes, all_seen.wakes) == (2, 4)


@on_loop
async def test_the_revision_of_a_service_does_not_fall_when_it_empties(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        await put(registry.node, ONE, VALUE)
        await deregister(registry.node, InstanceName(*PAYMENT, "one"))
        gone = registry.node.revision
        assert registry.catalog.service_revision(PAYMENT) == gone
        assert PAYMENT not in registry.catalog.services
        await put(registry.node, b"x")
        back = await put(registry.node, ONE, VALUE)
        assert registry.catalog.service_revision(PAYMENT) == back


@on_loop
async def test_what_is_no_instance_is_told_and_not_fatal(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        catalog = registry.catalog
        await put(registry.node, ONE, b"not JSON")
        entry = catalog.entry(InstanceName(*PAYMENT, "one"))
        assert entry is not None
        assert entry.instance is None
        assert "not JSON" in entry.problem
        service = catalog.service(PAYMENT)
        assert service is not None
        assert list(service.instances()) == []
        stray = b"/kvstore/services/Payment"
        await put(registry.node, stray, VALUE)
        assert list(catalog.strays) == [stray]
        await put(registry.node, settings_key(PAYMENT), b'{"guard":7}')
        assert settings_key(PAYMENT) in catalog.strays
        await put(registry.node, settings_key(PAYMENT), b'{"guard":{"percent":50}}')
        assert catalog.settings(PAYMENT).percent == 50
        await registry.node.submit_batch(
            [
                BatchItem(key, ANY_REVISION, BatchAction.DELETE)
                for key in (stray, settings_key(PAYMENT))
            ]
        )
        assert not catalog.strays
        assert catalog.settings(PAYMENT).percent == limits.GUARD_PERCENT


@on_loop
async def test_namespaces_are_made_explicitly(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        catalog = registry.catalog
        assert catalog.namespaces == ["default"]
        assert not catalog.has_namespace("team")
        await put(registry.node, namespace_key("team"), b"{}")
        assert catalog.namespaces == ["default", "team"]
        assert catalog.has_namespace("team")
        await registry.node.submit_batch(
            [BatchItem(namespace_key("team"), ANY_REVISION, BatchAction.DELETE)]
        )
        assert not catalog.has_namespace("team")


@on_loop
async def test_who_begins_later_reads_everything(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        await register(registry.node, *(payment(n, ttl_s=60) for n in range(25)))
        await put(registry.node, namespace_key("team"), b"{}")
        with patch("kvstore.registry.catalog.REBUILD_SLICE_INSTANCES", 4):
            late = await made.add("a")
        assert late.catalog.instances == 25
        assert late.catalog.has_namespace("team")
        assert late.catalog.service_revision(PAYMENT) <= late.node.revision


@on_loop
async def test_too_much_to_be_listed_is_read_anew_and_nothing_is_missed(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        node, seen = registry.node, Observer(registry)
        await register(node, *(payment(n, ttl_s=60) for n in range(30)))
        with (
            patch("kvstore.machine.draft.CHANGES_MAX", 10),
            patch("kvstore.registry.catalog.REBUILD_SLICE_INSTANCES", 1),
        ):
            request = rpc_pb2.DeleteRangeRequest(
                key=b"/kvstore/services/default/payment/payment-1",
                range_end=b"/kvstore/services/default/payment/payment-3",
            )
            await node.submit(CommandKind.DELETE_RANGE, request.SerializeToString())
            # The old content answers until then; what comes meanwhile is not lost.
            assert registry.catalog.instances == 30
            await asyncio.gather(
                register(node, payment(100, ttl_s=60)),
                deregister(node, InstanceName(*PAYMENT, "payment-3")),
            )
            await until(lambda: seen.anew)
        service = registry.catalog.service(PAYMENT)
        assert service is not None
        assert sorted(service.entries) == sorted(f"payment-{n}" for n in (0, 4, 5, 6, 7, 8, 9, 100))
        assert registry.catalog.instances == 8


@on_loop
async def test_a_member_that_gets_a_snapshot_has_what_is_in_it(tmp_path: Path) -> None:
    small = {"snapshot_count": 50, "snapshot_catchup_entries": 10, "snapshot_min_wal_bytes": 0}
    async with world(tmp_path, "a", "b", "c", **small) as made:
        behind = await made.follower()
        name = behind.node.config.name
        await behind.stop()
        await behind.node.stop()
        leader = await made.leader()
        await register(leader.node, *(payment(n, ttl_s=60) for n in range(5)))
        for number in range(200):
            await put(leader.node, b"k%d" % number)
        cluster = made.nodes.urls("a", "b", "c")
        await made.nodes.start(name, cluster)
        back = await made.add(name)
        await until(lambda: back.catalog.instances == 5)
        assert back.node.machine.clock_ms == leader.node.machine.clock_ms


@on_loop
async def test_the_revision_does_not_fall_while_everything_is_read_anew(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        catalog, node = registry.catalog, registry.node
        for number in (1, 2):
            await register(node, payment(number, ttl_s=20))
            await put(node, b"other", b"%d" % number)
            before = catalog.revision
            assert before == node.revision
            registry.changed(None)
            assert catalog.revision == before
            await catalog.wait_in_step()
            assert catalog.revision == before
        # What is read anew twice in a row has not become older.
        registry.changed(None)
        assert catalog.revision == before


@on_loop
async def test_it_answers_without_a_quorum(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        left = await made.leader()
        await register(left.node, payment(1, ttl_s=1, grace_s=1))
        for registry in list(made.registries.values()):
            if registry is not left:
                await registry.stop()
                await registry.node.stop()
        await until(lambda: not left.node.leader_id)
        await asyncio.sleep(2.5)
        entry = left.catalog.entry(InstanceName(*PAYMENT, "payment-1"))
        assert entry is not None
        assert entry.instance is not None
        assert entry.instance.status is Status.UP
        with pytest.raises(EtcdError):
            await grant(left.node, 5)


@on_loop
async def test_the_reason_of_an_end_is_told_to_those_who_watch(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        node, seen = registry.node, Observer(registry)
        leases = await register(node, *(payment(n, ttl_s=60) for n in range(3)))
        revoke = rpc_pb2.LeaseRevokeRequest(ID=leases[0])
        await node.submit(CommandKind.LEASE_REVOKE, revoke.SerializeToString())
        delete = rpc_pb2.DeleteRangeRequest(key=b"/kvstore/services/default/payment/payment-1")
        await node.submit(CommandKind.DELETE_RANGE, delete.SerializeToString())
        await deregister(node, InstanceName(*PAYMENT, "payment-2"), "SIGTERM")
        told = [(d.event, d.reason.text) for _, d in seen.deltas if d.after is None]
        assert told == [
            ("deregistered", "its lease was revoked"),
            ("deregistered", "deleted by a client"),
            ("deregistered", "SIGTERM"),
        ]
        assert registry.catalog.service(ServiceName("default", "payment")) is None


@on_loop
async def test_a_member_that_was_added_denies_nothing_before_it_has_caught_up(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, "a", strict_reconfig_check=False) as made:
        first = made.nodes.by_name["a"]
        await register(first, payment(1, ttl_s=60))
        cluster = made.nodes.urls("a", "b")
        await first.member_add(list(cluster["b"]), True)
        # Nothing comes from the others: it has joined, and knows only of itself.
        with patch.object(MemberCore, "receive", lambda *_: None):
            joined = await made.nodes.start("b", cluster, initial_cluster_state="existing")
            registry = Registry(joined)
            made.registries["b"] = registry
            registry.start()
            await registry.catalog.wait_in_step()
            assert not joined.joined
            assert not registry.catalog.ready
        await registry.catalog.wait_ready()
        assert joined.joined
        assert registry.catalog.instances == 1
