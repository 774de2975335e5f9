"""The life of instances on real members: silence, return, grace, guard, and changes of leader.

Most of it is waiting for deadlines, too long for `make verify`.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from kvstore.errors import TIMEOUT
from kvstore.machine import ANY_REVISION, BatchAction, BatchItem
from kvstore.registry import limits
from kvstore.registry.catalog import Catalog
from kvstore.registry.model import Instance, Reason, Status, encode
from kvstore.registry.names import (
    InstanceName,
    ServiceName,
    guard_key,
    instance_key,
    settings_key,
)
from tests.unit.node.nodes import get, grant, keep_alive, put, until
from tests.unit.node.on_loop import on_loop

from .world import PAYMENT, Observer, beat, beating, deregister, payment, register, world

pytestmark = pytest.mark.sim

SLACK_S = 1.0
"""How late a deadline may be acted on, commit and all."""


def instance(catalog: Catalog, id_: str) -> Instance:
    entry = catalog.entry(InstanceName(*PAYMENT, id_))
    assert entry is not None
    assert entry.instance is not None, entry.problem
    return entry.instance


def statuses(catalog: Catalog) -> dict[str, Status]:
    service = catalog.service(PAYMENT)
    return {each.id: each.status for each in service.instances()} if service else {}


@on_loop
async def test_silence_return_and_removal_within_their_times(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        leader, follower = await made.leader(), await made.follower()
        seen = Observer(follower)
        loop = asyncio.get_running_loop()
        began = loop.time()
        [lease] = await register(follower.node, payment(1, ttl_s=1, grace_s=2))
        # The catalog of the member that answered has it already.
        assert statuses(follower.catalog) == {"payment-1": Status.UP}
        answered = loop.time()
        await until(lambda: seen.when("unhealthy", "payment-1"))
        assert began + 1 <= seen.when("unhealthy", "payment-1") <= answered + 1 + SLACK_S
        down = instance(follower.catalog, "payment-1")
        assert (down.status, down.reason.code) == (Status.DOWN, "missed_heartbeat")
        assert down.reason.text == "no heartbeat for 1 s"
        # A plain keep-alive of the lease is a heartbeat.
        assert await keep_alive(follower.node, lease) == 3
        await until(lambda: seen.when("recovered", "payment-1"))
        last = loop.time()
        assert await beat(leader.node, [lease]) == [3]
        heard = loop.time()
        await until(lambda: seen.when("expired", "payment-1"))
        assert last + 1 <= seen.when("unhealthy", "payment-1") <= heard + 1 + SLACK_S
        assert last + 3 <= seen.when("expired", "payment-1") <= heard + 3 + SLACK_S
        assert seen.events() == ["registered", "unhealthy", "recovered", "unhealthy", "expired"]
        assert await beat(leader.node, [lease]) == [0]
        assert lease not in leader.node.machine.leases
        assert follower.catalog.service(PAYMENT) is None


@on_loop
async def test_a_heartbeat_that_overtakes_the_decision_wins(tmp_path: Path) -> None:
    """It comes while DOWN is on its way into the log: it is answered, and UP follows at once."""
    async with world(tmp_path, "a") as made:
        registry = made.registries["a"]
        node, seen = registry.node, Observer(registry)
        [lease] = await register(node, payment(1, ttl_s=1, grace_s=20))
        submit, proposed, go_on = node.submit_batch, asyncio.Event(), asyncio.Event()

        async def late(items: Any, **options: Any) -> Any:
            if items:
                proposed.set()
                await go_on.wait()
            return await submit(items, **options)

        with patch.object(node, "submit_batch", late):
            await proposed.wait()
            assert await beat(node, [lease]) == [21]
            go_on.set()
            await until(lambda: "recovered" in seen.events())
            assert seen.events() == ["registered", "unhealthy", "recovered"]
            assert seen.when("recovered", "payment-1") - seen.when("unhealthy", "payment-1") < 0.5
            # It stays so, and the next silence is found again.
            await beat(node, [lease])
            await asyncio.sleep(0.5)
            assert instance(registry.catalog, "payment-1").status is Status.UP
            await until(lambda: seen.events()[-1] == "unhealthy")


@on_loop
async def test_a_heartbeat_in_time_whose_confirmation_is_late_counts(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = made.registries["a"]
        node, seen = registry.node, Observer(registry)
        [lease] = await register(node, payment(1, ttl_s=1, grace_s=20))
        for _ in range(3):
            await asyncio.sleep(1.05)
            await beat(node, [lease])
        assert seen.events() == ["registered"]


@on_loop
async def test_heartbeats_keep_an_instance_up_and_out_of_the_log(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        follower = await made.follower()
        seen = Observer(follower)
        leases = await register(follower.node, payment(1), payment(2))
        revision = follower.node.revision
        async with beating(follower.node, leases):
            await asyncio.sleep(2.5)
        assert seen.events() == ["registered", "registered"]
        assert follower.node.revision == revision


@on_loop
async def test_after_a_change_of_leader_never_earlier_and_hardly_later(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        old = await made.leader()
        loop = asyncio.get_running_loop()
        await register(old.node, payment(1, ttl_s=2, grace_s=1))
        await asyncio.sleep(1.0)
        heir = await made.follower()
        seen = Observer(heir)
        asked = loop.time()
        await old.node.move_leader(heir.node.member_id, 5.0)
        await put(heir.node, b"committed")
        led = loop.time()
        await until(lambda: seen.when("expired", "payment-1"))
        assert asked + 2 <= seen.when("unhealthy", "payment-1") <= led + 2 + SLACK_S
        assert asked + 3 <= seen.when("expired", "payment-1") <= led + 3 + SLACK_S


@on_loop
async def test_a_new_leader_goes_on_where_the_dead_one_stopped(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        old = await made.leader()
        other = await made.follower()
        seen = Observer(other)
        await register(old.node, payment(1, ttl_s=1, grace_s=3))
        await until(lambda: seen.when("unhealthy", "payment-1"))
        await old.stop()
        await old.node.stop()
        led = asyncio.get_running_loop().time()
        await until(lambda: seen.when("expired", "payment-1"))
        # Silent already, it has its whole TTL and grace again, and is not told silent twice.
        assert seen.when("expired", "payment-1") >= led + 3.5
        assert [event for event in seen.events() if event != "registered"] == [
            "unhealthy",
            "expired",
        ]


@on_loop
async def test_deregistration_is_at_once_and_says_why(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        seen = Observer(registry)
        leases = await register(registry.node, payment(1), payment(2))
        await deregister(registry.node, InstanceName(*PAYMENT, "payment-1"), "SIGTERM")
        assert seen.events("payment-1") == ["registered", "deregistered"]
        assert seen.deltas[-1][1].reason.text == "SIGTERM"
        assert leases[0] not in registry.node.machine.leases
        assert leases[1] in registry.node.machine.leases


@on_loop
async def test_leases_that_the_registry_does_not_own_end_as_in_etcd(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        seen = Observer(registry)
        lease = await grant(registry.node, 1)
        value = b'{"address":"10.0.0.9","port":80,"ttl_s":1,"grace_s":60}'
        await put(registry.node, b"/kvstore/services/default/payment/by-hand", value, lease)
        assert instance(registry.catalog, "by-hand").status is Status.UP
        await until(lambda: seen.when("expired", "by-hand"))
        assert seen.events() == ["registered", "expired"]


def _all_stale(catalog: Catalog, count: int) -> bool:
    service = catalog.service(PAYMENT)
    if service is None:
        return False
    return sum(each.stale and each.status is Status.UP for each in service.instances()) == count


@on_loop
async def test_many_at_once_are_held_and_go_when_an_operator_confirms(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        leader, follower = await made.leader(), await made.follower()
        leases = await register(leader.node, *(payment(n, grace_s=0) for n in range(10)))
        async with beating(follower.node, leases[5:]):
            await until(lambda: _all_stale(follower.catalog, 5))
            note = follower.catalog.guards[PAYMENT].told
            assert (note["silent"], note["of"], note["state"]) == (5, 10, "holding")
            assert (await get(follower.node, guard_key(PAYMENT))).count == 1
            # Neither their grace nor their leases end meanwhile; heartbeats still count.
            await asyncio.sleep(1.5)
            assert _all_stale(follower.catalog, 5)
            async with beating(leader.node, leases[:1]):
                await until(lambda: _all_stale(follower.catalog, 4))
                told = json.dumps({**follower.catalog.guards[PAYMENT].told, "state": "confirmed"})
                seen = Observer(follower)
                confirm = BatchItem(
                    guard_key(PAYMENT), ANY_REVISION, BatchAction.PUT_KEEP, told.encode()
                )
                await follower.node.submit_batch([confirm])
                await until(lambda: PAYMENT not in follower.catalog.guards)
                await until(lambda: len(statuses(follower.catalog)) == 6)
                assert seen.events("payment-1") == ["unhealthy", "expired"]


@on_loop
async def test_who_is_confirmed_to_be_gone_goes_down_and_away_however_long_the_grace(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        seen = Observer(registry)
        await register(registry.node, *(payment(n, grace_s=3600) for n in range(3)))
        await until(lambda: _all_stale(registry.catalog, 3))
        await until(lambda: PAYMENT in registry.catalog.guards)
        told = json.dumps({**registry.catalog.guards[PAYMENT].told, "state": "confirmed"})
        await registry.node.submit_batch(
            [BatchItem(guard_key(PAYMENT), ANY_REVISION, BatchAction.PUT_KEEP, told.encode())]
        )
        await until(lambda: not statuses(registry.catalog))
        for number in range(3):
            assert seen.events(f"payment-{number}")[-2:] == ["unhealthy", "expired"]
            down, gone = (seen.when(word, f"payment-{number}") for word in ("unhealthy", "expired"))
            assert gone - down >= 1.0, "who watches sees it DOWN first"


@on_loop
async def test_a_guard_ends_by_itself_when_they_come_back(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        seen = Observer(registry)
        leases = await register(registry.node, *(payment(n, grace_s=5) for n in range(4)))
        await until(lambda: _all_stale(registry.catalog, 4))
        async with beating(registry.node, leases):
            await until(lambda: _all_stale(registry.catalog, 0))
            await until(lambda: PAYMENT not in registry.catalog.guards)
            assert set(statuses(registry.catalog).values()) == {Status.UP}
        assert seen.events("payment-0")[:2] == ["registered", "updated"]


@on_loop
async def test_a_guard_is_lifted_by_deleting_its_key_and_grace_counts_from_then(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        seen = Observer(registry)
        await register(registry.node, *(payment(n, grace_s=1) for n in range(3)))
        await until(lambda: _all_stale(registry.catalog, 3))
        await until(lambda: PAYMENT in registry.catalog.guards)
        await asyncio.sleep(1.2)
        lifted = asyncio.get_running_loop().time()
        await registry.node.submit_batch(
            [BatchItem(guard_key(PAYMENT), ANY_REVISION, BatchAction.DELETE)]
        )
        await until(lambda: seen.when("unhealthy", "payment-2"))
        await until(lambda: seen.when("expired", "payment-2"))
        assert seen.when("expired", "payment-2") >= lifted + 1


@on_loop
async def test_a_guard_outlives_its_leader(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        old, heir = await made.leader(), await made.follower()
        await register(old.node, *(payment(n, grace_s=0) for n in range(3)))
        await until(lambda: _all_stale(heir.catalog, 3))
        since = heir.catalog.guards[PAYMENT].told["since"]
        await old.node.move_leader(heir.node.member_id, 5.0)
        await asyncio.sleep(2.5)
        assert _all_stale(heir.catalog, 3)
        note = heir.catalog.guards[PAYMENT].told
        assert (note["since"], note["held_by"]) == (since, heir.node.config.name)


@on_loop
async def test_a_note_that_was_written_when_its_guard_had_ended_goes(tmp_path: Path) -> None:
    """The leader gave up on writing it, the guard ended, and then it was committed."""
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        [lease] = await register(registry.node, payment(1, ttl_s=20))
        assert await beat(registry.node, [lease])
        await put(registry.node, guard_key(PAYMENT), b'{"state":"holding","silent":3}')
        assert PAYMENT in registry.catalog.guards
        await until(lambda: PAYMENT not in registry.catalog.guards)
        assert statuses(registry.catalog) == {"payment-1": Status.UP}


@on_loop
async def test_who_was_held_is_held_on_when_the_guard_engages_anew_before_its_end_is_told(
    tmp_path: Path,
) -> None:
    """Nothing could be written between; to those who read, it was one guard all the time."""
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        node, seen = registry.node, Observer(registry)
        leases = await register(node, *(payment(n, grace_s=1) for n in range(6)))
        with ExitStack() as meanwhile:
            async with beating(node, leases[3:]):
                await until(lambda: _all_stale(registry.catalog, 3))
                await until(lambda: PAYMENT in registry.catalog.guards)
                guard = registry._keeper._services[PAYMENT].guard

                async def refused(*_: Any, **__: Any) -> Any:
                    raise TIMEOUT

                meanwhile.enter_context(patch.object(node, "submit_batch", refused))
                async with beating(node, leases[2:3]):
                    await until(lambda: not guard.engaged)
                    await asyncio.sleep(1.5)  # The grace of the other two is over.
            await until(lambda: guard.engaged)
        await until(lambda: _all_stale(registry.catalog, 6))
        await asyncio.sleep(2)
        assert _all_stale(registry.catalog, 6)
        assert "unhealthy" not in seen.events()


@on_loop
async def test_who_is_registered_again_was_heard(tmp_path: Path) -> None:
    """Its heartbeat went to the leader before; what it wrote is committed by this one."""
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        seen = Observer(registry)
        await register(registry.node, payment(1, ttl_s=1, grace_s=20))
        await until(lambda: seen.when("unhealthy", "payment-1"))
        entry = registry.catalog.entry(InstanceName(*PAYMENT, "payment-1"))
        assert entry is not None
        again = entry.known.changed(Reason("recovered"), registry.node.wall_ms(), silent=False)
        item = BatchItem(
            instance_key(entry.name), entry.revision, BatchAction.PUT_KEEP, encode(again)
        )
        await registry.node.submit_batch([item])
        back = seen.when("recovered", "payment-1")
        assert back
        await until(lambda: seen.when("unhealthy", "payment-1") > back)
        assert back + 1 <= seen.when("unhealthy", "payment-1") <= back + 1 + SLACK_S


@on_loop
async def test_settings_switch_the_guard_off(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        await put(registry.node, settings_key(PAYMENT), b'{"guard":{"enabled":false}}')
        await register(registry.node, *(payment(n, grace_s=1) for n in range(5)))
        await until(lambda: set(statuses(registry.catalog).values()) == {Status.DOWN})
        await until(lambda: registry.catalog.instances == 0)


@on_loop
async def test_a_few_of_many_are_not_held(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        leases = await register(registry.node, *(payment(n, grace_s=1) for n in range(10)))
        async with beating(registry.node, leases[2:]):
            await until(lambda: registry.catalog.instances == 8)
            assert not registry.catalog.guards


@on_loop
async def test_log_time_goes_on_while_there_are_instances(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        with patch.object(limits, "CLOCK_STEP_S", 0.2):
            await register(registry.node, payment(1, ttl_s=600))
            first, revision = registry.node.machine.clock_ms, registry.node.revision
            await until(lambda: registry.node.machine.clock_ms > first + 500)
            assert registry.node.revision == revision
            assert abs(registry.node.machine.clock_ms - registry.node.wall_ms()) < 2_000


@on_loop
async def test_thousands_at_once_are_written_and_removed_quickly(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        service = ServiceName("default", "many")
        await put(registry.node, settings_key(service), b'{"guard":{"enabled":false}}')
        many = [payment(n, ttl_s=2, grace_s=1, service="many") for n in range(3_000)]
        for at in range(0, 3_000, 1_000):
            await register(registry.node, *many[at : at + 1_000])
        first = registry.node.revision
        await until(lambda: registry.catalog.instances == 0, patience_s=20.0)
        assert len(registry.node.machine.leases) == 0
        # Two changes of each, in full entries but for a few.
        full = 2 * 3_000 // limits.KEEPER_BATCH_ITEMS
        assert full <= registry.node.revision - first <= full + 20


@on_loop
async def test_the_guard_counts_all_who_are_due_before_any_is_written(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = await made.leader()
        seen = Observer(registry)
        # A look at a hundredth of them at a time would never see too many fall silent at once.
        with patch.object(limits, "LIVENESS_TURN_MAX", 2):
            lately = [payment(n, ttl_s=1, grace_s=60) for n in range(200)]
            leases = await register(registry.node, *lately)
            await beat(registry.node, leases)  # one deadline for all
            await until(lambda: _all_stale(registry.catalog, 200), patience_s=20.0)
        assert not any("unhealthy" in seen.events(f"payment-{n}") for n in range(200))
