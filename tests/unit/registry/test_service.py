"""What front doors do with the registry: registering, heartbeats, status, drain, and asking."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from kvstore.errors import Code, EtcdError
from kvstore.registry.model import Instance, Invalid, Status, decode
from kvstore.registry.names import InstanceName, ServiceName, guard_key, instance_key
from kvstore.registry.selection import EVERYTHING, HEALTHY, Health, Selection
from kvstore.registry.service import RegistryService
from tests.unit.node.nodes import get, grant, keep_alive, put, until
from tests.unit.node.on_loop import on_loop

from .world import PAYMENT, payment, world

ONE = InstanceName(*PAYMENT, "payment-1")


def slow(number: int = 1, **fields: Any) -> Instance:
    """One that does not fall silent while a test runs."""
    return payment(number, ttl_s=20, grace_s=30, **fields)


async def names(service: RegistryService, selection: Selection = HEALTHY) -> list[str]:
    answer = await service.instances(PAYMENT, selection)
    return [entry.name.id for entry in answer.entries]


@on_loop
async def test_registering_twice_is_once_and_a_change_keeps_the_lease(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = made.registries["a"].service
        first = await service.register(slow())
        assert first.created
        again = await service.register(slow())
        assert not again.created
        assert again.entry.revision == first.entry.revision
        moved = await service.register(slow(version="2"))
        assert not moved.created
        assert (moved.entry.lease, moved.entry.created) == (first.entry.lease, first.entry.created)
        assert moved.entry.revision == first.entry.revision + 1
        assert moved.entry.known.registered_ms == first.entry.known.registered_ms
        # Another removal time is another lease; the old one is gone.
        other = await service.register(dataclasses.replace(slow(version="2"), grace_s=40))
        assert other.entry.lease != first.entry.lease
        assert await service.heartbeat([first.entry.lease, other.entry.lease]) == [0, 20]
        # What was told is what is stored.
        (kv,) = (await get(service.node, instance_key(ONE))).kvs
        assert kv.mod_revision == other.entry.revision
        assert (kv.value, kv.lease) == (other.entry.value, other.entry.lease)
        assert decode(kv.value, ONE).version == "2"


@on_loop
async def test_an_id_is_chosen_and_defaults_are_filled_in(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = made.registries["a"].service
        wanted = dataclasses.replace(slow(), id="", ttl_s=0)
        first, second = [await service.register(wanted) for _ in range(2)]
        assert first.entry.name != second.entry.name
        prefix, _, digits = first.entry.name.id.rpartition("-")
        assert (prefix, len(digits), int(digits, 16) > 0) == ("payment", 16, True)
        assert first.entry.known.ttl_s == 10


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no port": ({"ports": {}}, "the instance has no port"),
    "port 0": ({"ports": {"http": 0}}, "the port http is 0"),
    "huge port": ({"ports": {"http": 70_000}}, "the port http is 70000"),
    "negative ttl": ({"ttl_s": -1}, "the TTL is -1 s"),
    "huge ttl": ({"ttl_s": 10**9}, "the TTL is 1000000000 s"),
    "no service": ({"service": ""}, "the service has no name"),
    "service": ({"service": "Pay_ment"}, "not a DNS label"),
    "long service": ({"service": "a" * 64}, "64 characters long"),
    "namespace": ({"namespace": "-x"}, "not a DNS label"),
    "id": ({"id": "a b"}, "the instance id 'a b'"),
    "metadata": ({"metadata": {"k": "x" * 1_000_000}}, "the metadata takes 1000001 bytes"),
    "address": ({"address": ""}, "the instance has no address"),
    "value": ({"extra": {"x": "y" * 70_000}}, "65536 are allowed"),
}


@on_loop
async def test_bad_input_is_refused_with_a_sentence_and_stores_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = made.registries["a"].service
        before = service.node.revision
        for what, (fields, sentence) in BAD.items():
            with pytest.raises(Invalid, match=sentence):
                await service.register(dataclasses.replace(slow(), **fields))
            assert service.node.revision == before, what
        with pytest.raises(EtcdError, match="there is no namespace 'nowhere'") as raised:
            await service.register(dataclasses.replace(slow(), namespace="nowhere"))
        assert raised.value.code is Code.NOT_FOUND
        with pytest.raises(Invalid, match="512 are allowed"):
            await service.deregister(ONE, "x" * 513)
        assert service.node.revision == before
        assert service.node.lease_list() == []


@on_loop
async def test_many_register_and_change_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = made.registries["a"].service
        outcomes = await asyncio.gather(*(service.register(slow()) for _ in range(20)))
        assert sum(each.created for each in outcomes) == 1
        assert len({each.entry.lease for each in outcomes}) == 1
        states = [Status.UP, Status.DEGRADED, Status.OUT_OF_SERVICE]
        results = await asyncio.gather(
            *(service.override(ONE, states[i % 3]) for i in range(4)), return_exceptions=True
        )
        for result in results:
            assert not isinstance(result, EtcdError) or result.code is Code.ABORTED


@on_loop
async def test_heartbeats_by_lease_and_name_tell_the_ttl_and_leave_others_alone(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, "a") as made:
        service = made.registries["a"].service
        one = (await service.register(slow())).entry
        two = (await service.register(slow(2))).entry
        foreign = await grant(service.node, 60)
        unknown = InstanceName(*PAYMENT, "nobody")
        revision = service.node.revision
        ttls = await service.heartbeat([one.lease, foreign, 77, two.lease], [ONE, unknown])
        assert ttls == [20, 0, 0, 20, 20, 0]
        assert await service.heartbeat([], []) == []
        assert service.node.revision == revision
        assert await keep_alive(service.node, foreign) == 60
        await service.deregister(ONE)
        assert await service.heartbeat([one.lease], [ONE]) == [0, 0]


@on_loop
async def test_status_override_release_and_drain(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = made.registries["a"].service
        await service.register(slow())
        await service.register(slow(2))
        out = await service.override(ONE, Status.OUT_OF_SERVICE, "a new disk")
        assert (out.known.status, out.known.reason) == (
            Status.OUT_OF_SERVICE,
            ("overridden", "a new disk"),
        )
        # Neither a heartbeat, nor what it says, nor registering again ends that.
        await service.heartbeat([out.lease])
        assert (await service.report(ONE, Status.DEGRADED)).known.status is Status.OUT_OF_SERVICE
        assert (await service.register(slow())).entry.known.status is Status.OUT_OF_SERVICE
        assert await names(service) == ["payment-2"]
        assert (await service.override(ONE, None)).known.status is Status.UP
        drained = await service.drain(PAYMENT, text="maintenance")
        assert [each.known.status for each in drained.entries] == [Status.DRAINING] * 2
        assert len({each.revision for each in drained.entries}) == 1, "one change"
        assert await names(service) == []
        assert (await service.drain(PAYMENT)).entries[0].revision == drained.entries[0].revision
        back = await service.drain(PAYMENT, undo=True)
        assert [each.known.status for each in back.entries] == [Status.UP] * 2
        # What an operator set otherwise is not what draining undoes.
        await service.override(ONE, Status.OUT_OF_SERVICE)
        await service.drain(PAYMENT, undo=True)
        assert await names(service) == ["payment-2"]
        for call in (
            service.drain(PAYMENT, "nobody"),
            service.drain(ServiceName("default", "nobody")),
            service.report(InstanceName(*PAYMENT, "nobody"), Status.UP),
        ):
            with pytest.raises(EtcdError) as raised:
                await call
            assert raised.value.code is Code.NOT_FOUND


@on_loop
async def test_the_worst_result_of_several_checks_counts(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = made.registries["a"].service
        await service.register(slow(reported=Status.STARTING))

        async def found(name: str, status: Status) -> Instance:
            entry = await service.check_result(ONE, status, {"name": name, "output": "…"})
            return entry.known

        assert (await found("http", Status.UP)).status is Status.UP
        assert (await found("disk", Status.DOWN)).status is Status.DOWN
        still = await found("http", Status.DEGRADED)
        assert still.status is Status.DOWN
        assert still.check is not None
        assert {n: r["status"] for n, r in still.check["results"].items()} == {
            "http": "DEGRADED",
            "disk": "DOWN",
        }
        well = await found("disk", Status.UP)
        assert (well.status, well.reason.code) == (Status.DEGRADED, "check_failed")
        revision = service.node.revision
        await found("disk", Status.UP)
        assert service.node.revision == revision, "an output alone is no change"
        await service.report(ONE, Status.DRAINING)
        assert (await found("http", Status.UP)).status is Status.DRAINING
        with pytest.raises(Invalid, match="a check finds"):
            await found("http", Status.OUT_OF_SERVICE)


@on_loop
async def test_deregistering_tells_what_was_there(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = made.registries["a"].service
        entry = (await service.register(slow())).entry
        gone = await service.deregister(ONE, "moved")
        assert gone.last is not None
        assert (gone.last.value, gone.acknowledged) == (entry.value, None)
        assert (await service.deregister(ONE)).last is None
        assert service.node.lease_list() == []
        (_, last) = await service.history.since(ONE)
        assert (last.event, last.reason) == ("deregistered", ("deregistered", "moved"))


@on_loop
async def test_selections(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = made.registries["a"].service
        await service.register(slow(1, zone="west", tags=("a", "b"), version="1"))
        await service.register(slow(2, zone="east", tags=("a",), version="2"))
        await service.register(slow(3, zone="east", reported=Status.STARTING, version="2"))
        await service.register(slow(4, zone="", reported=Status.UNKNOWN))
        assert await names(service) == ["payment-1", "payment-2"]
        assert await names(service, EVERYTHING) == [f"payment-{i}" for i in (1, 2, 3, 4)]
        assert await names(service, Selection(tags=("b", "a"))) == ["payment-1"]
        assert await names(service, Selection(version="2")) == ["payment-2"]
        assert await names(service, Selection(prefer_zone="east")) == ["payment-2", "payment-1"]
        near = Selection(prefer_zone="east", only_preferred=True)
        assert await names(service, near) == ["payment-2"]
        far = Selection(prefer_zone="north", only_preferred=True)
        assert await names(service, far) == ["payment-1", "payment-2"]
        unknown = Selection(unknown_is_healthy=True)
        assert await names(service, unknown) == ["payment-1", "payment-2", "payment-4"]
        fall_back = Selection(Health.HEALTHY_OR_ELSE_ALL)
        assert not (await service.instances(PAYMENT, fall_back)).fell_back
        await service.drain(PAYMENT)
        answer = await service.instances(PAYMENT, fall_back)
        assert (answer.fell_back, len(answer.entries)) == (True, 4)


@on_loop
async def test_lists_namespaces_settings_and_strays(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = made.registries["a"].service
        assert await service.create_namespace("team")
        assert not await service.create_namespace("team")
        assert not await service.create_namespace("default")
        await service.register(slow(1, tags=("x",), version="1"))
        await service.register(slow(2, reported=Status.DEGRADED))
        await service.register(dataclasses.replace(slow(), namespace="team"))
        await put(service.node, b"/kvstore/services/default/payment/odd", b"not JSON")
        await put(service.node, b"/kvstore/services/default/payment/too/deep", b"{}")
        (summary,) = await service.services("default", "pay")
        assert (summary.instances, summary.routable) == (2, 2)
        assert summary.by_status == {"UP": 1, "DEGRADED": 1}
        assert (summary.tags, summary.versions) == (["x"], ["1"])
        assert [each.name.namespace for each in await service.services()] == ["default", "team"]
        answer = await service.instances(PAYMENT)
        assert [key.rpartition(b"payment/")[2] for key in sorted(answer.strays)] == [
            b"odd",
            b"too/deep",
        ]
        assert "not JSON" in answer.strays[b"/kvstore/services/default/payment/odd"]
        with pytest.raises(EtcdError, match="is not empty: there are instances of team/payment"):
            await service.delete_namespace("team")
        await service.deregister(InstanceName("team", "payment", "payment-1"))
        assert await service.delete_namespace("team")
        assert not await service.delete_namespace("team")
        with pytest.raises(EtcdError, match="there is no namespace"):
            await service.instances(ServiceName("team", "payment"))
        settings = await service.set_settings(PAYMENT, {"percent": 80})
        assert (settings.percent, settings.enabled) == (80, True)
        assert service.catalog.settings(PAYMENT).percent == 80
        assert service.catalog.has_settings(PAYMENT)
        with pytest.raises(Invalid, match="percent is from 0 to 100"):
            await service.set_settings(PAYMENT, {"percent": 180})
        await service.set_settings(PAYMENT, {})
        assert not service.catalog.has_settings(PAYMENT)


@on_loop
async def test_ending_a_guard_is_a_change_of_its_note(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        registry = made.registries["a"]
        service = registry.service
        # There is a note, but no guard: the leader would remove it.
        await registry._keeper.stop()
        assert await service.end_guard(PAYMENT, confirm=True) == 0
        note = {"silent": 4, "of": 5, "state": "holding"}
        await put(service.node, guard_key(PAYMENT), json.dumps(note).encode())
        assert await service.end_guard(PAYMENT, confirm=True) == 4
        (kv,) = (await get(service.node, guard_key(PAYMENT))).kvs
        assert json.loads(kv.value) == {**note, "state": "confirmed"}
        assert await service.end_guard(PAYMENT, confirm=False) == 4
        assert not (await get(service.node, guard_key(PAYMENT))).kvs


@on_loop
async def test_explanations(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        service = made.registries["a"].service
        await service.register(slow(tags=("x",)))
        well = await service.explain(ONE)
        assert well.routable
        assert all(finding.passes for finding in well.findings)
        assert [each.rule for each in well.findings] == [
            "registered",
            "lease",
            "heartbeat",
            "override",
            "reported",
            "check",
            "guard",
            "selection",
        ]
        assert well.verdict == "default/payment/payment-1 gets requests: it is UP"
        assert not (await service.explain(ONE, Selection(tags=("y",)))).findings[-1].passes
        await service.override(ONE, Status.OUT_OF_SERVICE, "disk")
        out = await service.explain(ONE)
        assert not out.routable
        assert "override: an operator set OUT_OF_SERVICE" in out.verdict
        assert [what.event for what in out.recent] == ["updated", "registered"]
        await service.deregister(ONE, "moved")
        gone = await service.explain(ONE)
        assert gone.entry is None
        assert "it is gone since" in gone.verdict
        assert "deregistered: moved" in gone.verdict
        await put(service.node, instance_key(ONE), b"[]")
        assert "its value is no instance" in (await service.explain(ONE)).verdict
        with pytest.raises(EtcdError) as raised:
            await service.explain(InstanceName(*PAYMENT, "never"))
        assert raised.value.code is Code.NOT_FOUND


@on_loop
async def test_three_members_agree_and_read_without_a_quorum(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        follower = await made.follower()
        entry = (await follower.service.register(slow())).entry
        # The member that answered has it, the others when asked for the newest.
        assert await names(follower.service) == ["payment-1"]
        for registry in made.registries.values():
            answer = await registry.service.instances(PAYMENT, linearizable=True)
            (found,) = answer.entries
            assert (found.value, found.revision, found.lease, found.created) == (
                entry.value,
                entry.revision,
                entry.lease,
                entry.created,
            )
            assert await registry.service.heartbeat([entry.lease], [ONE]) == [20, 20]


@pytest.mark.sim
@on_loop
async def test_without_a_quorum_readings_answer_and_changes_are_refused(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        follower = await made.follower()
        entry = (await follower.service.register(slow())).entry
        for registry in made.registries.values():
            if registry is not follower:
                await registry.stop()
                await registry.node.stop()
        await until(lambda: not follower.service.has_leader)
        assert await names(follower.service) == ["payment-1"]
        assert (await follower.service.explain(ONE)).routable
        outcomes = await asyncio.gather(
            follower.service.register(slow(2)),
            follower.service.deregister(ONE),
            follower.service.drain(PAYMENT),
            follower.service.heartbeat([entry.lease]),
            follower.service.instances(PAYMENT, linearizable=True),
            return_exceptions=True,
        )
        for outcome in outcomes:
            assert isinstance(outcome, EtcdError)
            assert outcome.code is Code.UNAVAILABLE
            assert "need a leader and a quorum" in outcome.message
