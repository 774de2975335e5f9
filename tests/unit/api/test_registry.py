"""kvstore.registry.v1 over each transport, on a real member."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.api.services.registration import build_api
from kvstore.pb import pool, reflection_pb2, rpc_pb2
from kvstore.pb import registry_pb2 as pb
from kvstore.registry.model import to_json
from kvstore.registry.registry import Registry
from tests.unit.api.serving import TRANSPORTS, UNLIMITED, transport
from tests.unit.node.nodes import until
from tests.unit.node.on_loop import on_loop
from tests.unit.registry.world import world

SERVICE = "/kvstore.registry.v1.Registry/"
NAME = pb.InstanceName(service="payment", id="payment-1")
PAYMENT = pb.ServiceName(service="payment")


class Caller:
    """Calls by the method's name."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def unary(self, path: str, request: Any, response: Any) -> Any:
        method = self.channel.unary_unary(path)
        return response.FromString(await method(request.SerializeToString(), timeout=10))

    async def __call__(self, name: str, /, **fields: Any) -> Any:
        request = getattr(pb, f"{name}Request")(**fields)
        return await self.unary(SERVICE + name, request, getattr(pb, f"{name}Response"))

    async def refused(self, name: str, /, **fields: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self(name, **fields)
        return raised.value.code(), raised.value.details() or ""

    def watch(self, **fields: Any) -> Watch:
        method = self.channel.unary_stream(SERVICE + "Watch")
        return Watch(method(pb.WatchRequest(**fields).SerializeToString()))

    async def get(self, key: str, end: str = "") -> Any:
        request = rpc_pb2.RangeRequest(key=key.encode(), range_end=end.encode())
        return await self.unary("/etcdserverpb.KV/Range", request, rpc_pb2.RangeResponse)

    async def put(self, key: str, value: bytes) -> None:
        request = rpc_pb2.PutRequest(key=key.encode(), value=value)
        await self.unary("/etcdserverpb.KV/Put", request, rpc_pb2.PutResponse)


class Watch:
    def __init__(self, call: Any) -> None:
        self._call = call

    async def next(self) -> Any:
        message = await asyncio.wait_for(self._call.read(), 5)
        assert message is not grpc.aio.EOF
        return pb.WatchResponse.FromString(message)

    def cancel(self) -> None:
        self._call.cancel()


@asynccontextmanager
async def served(
    kind: str, directory: Path, check_networks: Any = None
) -> AsyncIterator[tuple[Registry, Caller]]:
    async with world(directory, "a", check_networks=check_networks) as made:
        registry = made.registries["a"]
        api = build_api(registry.node, registry.service)
        front = transport(kind, api.table)
        (address,) = await front.listen("127.0.0.1:0")
        await front.start()
        try:
            async with grpc.aio.insecure_channel(address, options=UNLIMITED) as channel:
                yield registry, Caller(channel)
        finally:
            await front.stop(0)


def instance(number: int = 1, **fields: Any) -> Any:
    wanted: dict[str, Any] = {
        "name": pb.InstanceName(service="payment", id=f"payment-{number}"),
        "address": f"10.0.0.{number}",
        "ports": [pb.Port(name="http", number=8080), pb.Port(name="admin", number=81)],
        "zone": "west",
        "tags": ["a"],
        "metadata": {"k": "v"},
        "ttl_s": 20,
        **fields,
    }
    return pb.Instance(**wanted)


@pytest.mark.parametrize("kind", TRANSPORTS)
@on_loop
async def test_a_life_from_registering_to_the_history_of_it(kind: str, tmp_path: Path) -> None:
    async with served(kind, tmp_path) as (_, call):
        watch = call.watch(service=PAYMENT, subscriber_id="me")
        first = await watch.next()
        assert (first.is_snapshot, list(first.snapshot)) == (True, [])
        registered = await call("Register", instance=instance())
        assert registered.created
        told = registered.instance
        assert (told.status, told.routable, told.grace_s, told.weight) == (pb.UP, True, 30, 1)
        assert told.mod_revision == told.create_revision == registered.header.revision
        (event,) = (await watch.next()).events
        assert (event.event, event.revision) == ("registered", told.mod_revision)
        assert event.instance == told
        beat = await call("Heartbeat", leases=[told.lease, 5], instances=[NAME])
        assert list(beat.ttl_s) == [20, 0, 20]
        status = await call("SetStatus", name=NAME, override=pb.OUT_OF_SERVICE, reason="disk")
        assert status.instance.override == pb.OUT_OF_SERVICE
        told = await watch.next()
        assert (told.events[0].left, told.events[0].reason.text) == (True, "disk")
        ack = await call("Ack", subscriber_id="me", service=PAYMENT, revision=told.revision)
        assert ack.known
        released = await call("SetStatus", name=NAME, release=True)
        assert released.instance.status == pb.UP
        told = await watch.next()
        await call("Ack", subscriber_id="me", service=PAYMENT, revision=told.revision)
        wait = pb.WaitForSubscribers(timeout_ms=100)
        drained = await call("Drain", name=NAME, wait=wait)
        assert [each.status for each in drained.instances] == [pb.DRAINING]
        assert [each.id for each in drained.acknowledged.laggards] == ["me"]
        assert [each.member_name for each in drained.acknowledged.laggards] == ["a"]
        gone = await call("Deregister", name=NAME, reason="bye")
        assert (gone.existed, gone.last.status) == (True, pb.DRAINING)
        assert not (await call("Deregister", name=NAME)).existed
        past = await call("History", name=NAME, newest_first=True)
        assert [each.event.event for each in past.events] == [
            "deregistered",
            "drained",
            "updated",
            "updated",
            "registered",
        ]
        assert past.oldest_revision == registered.header.revision
        then = await call("History", name=NAME, revision=registered.header.revision)
        assert [each.status for each in then.instances] == [pb.UP]
        explained = await call("Explain", name=NAME)
        assert "bye" in explained.verdict
        watch.cancel()


@pytest.mark.parametrize("kind", TRANSPORTS)
@on_loop
async def test_heartbeats_of_a_stream_are_answered_in_order(kind: str, tmp_path: Path) -> None:
    async with served(kind, tmp_path) as (_, call):
        leases = [
            (await call("Register", instance=instance(n, ttl_s=10 + n))).instance.lease
            for n in range(1, 4)
        ]
        stream = call.channel.stream_stream(SERVICE + "HeartbeatStream")()
        for turn in range(30):
            # Some are known, some make the member look first: the order is kept all the same.
            ask = [leases[turn % 3]] if turn % 5 else [leases[0], 99, leases[2]]
            await stream.write(pb.HeartbeatRequest(leases=ask).SerializeToString())
        for turn in range(30):
            answer = pb.HeartbeatResponse.FromString(await asyncio.wait_for(stream.read(), 5))
            wanted = [11 + turn % 3] if turn % 5 else [11, 0, 13]
            assert list(answer.ttl_s) == wanted
        await stream.done_writing()
        assert await asyncio.wait_for(stream.read(), 5) is grpc.aio.EOF


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("Register", {}, "INVALID_ARGUMENT", "the request has no instance"),
    ("Register", {"instance": instance(ports=[])}, "INVALID_ARGUMENT", "has no port"),
    (
        "Register",
        {"instance": instance(ports=[pb.Port(name="x", number=1)] * 2)},
        "INVALID_ARGUMENT",
        "the port 'x' is given twice",
    ),
    ("Register", {"instance": instance(ttl_s=2**31)}, "INVALID_ARGUMENT", "the TTL is"),
    (
        "Register",
        {"instance": instance(metadata={"k": "x" * 2**20})},
        "INVALID_ARGUMENT",
        "the metadata takes",
    ),
    (
        "Register",
        {"instance": instance(name=pb.InstanceName(service="Pay ment"))},
        "INVALID_ARGUMENT",
        "is not a DNS label",
    ),
    (
        "Register",
        {"instance": instance(name=pb.InstanceName(namespace="nowhere", service="payment"))},
        "NOT_FOUND",
        "there is no namespace 'nowhere'",
    ),
    ("Register", {"instance": instance(reported=77)}, "INVALID_ARGUMENT", "a status is missing"),
    (
        "Register",
        {"instance": instance(checks=[pb.Check(name="x")])},
        "INVALID_ARGUMENT",
        "exactly one of http, tcp and grpc",
    ),
    (
        "Register",
        {"instance": instance(checks=[pb.Check(tcp=pb.TcpCheck())])},
        "FAILED_PRECONDITION",
        "no member runs any",
    ),
    ("Deregister", {}, "INVALID_ARGUMENT", "the service has no name"),
    ("Deregister", {"name": pb.InstanceName(service="a")}, "INVALID_ARGUMENT", "has no id"),
    ("SetStatus", {"name": NAME}, "INVALID_ARGUMENT", "one of reported, override"),
    ("SetStatus", {"name": NAME, "release": False}, "INVALID_ARGUMENT", "one of reported"),
    ("SetStatus", {"name": NAME, "reported": 0}, "INVALID_ARGUMENT", "a status is missing"),
    ("SetStatus", {"name": NAME, "reported": pb.UP}, "NOT_FOUND", "no instance default/payment"),
    ("Drain", {"name": NAME}, "NOT_FOUND", "no instance default/payment"),
    (
        "GetInstances",
        {"service": PAYMENT, "selection": pb.Selection(health=9)},  # type: ignore[arg-type]
        "INVALID_ARGUMENT",
        "selection.health is 9",
    ),
    (
        "GetInstances",
        {"service": pb.ServiceName(namespace="nowhere", service="a")},
        "NOT_FOUND",
        "no namespace",
    ),
    ("Ack", {"service": PAYMENT}, "INVALID_ARGUMENT", "the subscriber has no id"),
    ("Explain", {"name": NAME}, "NOT_FOUND", "no instance default/payment"),
    ("History", {"limit": 10_001}, "INVALID_ARGUMENT", "10000 is allowed"),
    ("History", {"name": NAME, "revision": 999}, "OUT_OF_RANGE", "yet to come"),
    (
        "SetSettings",
        {"service": PAYMENT, "settings": pb.Settings(guard_percent=101)},
        "INVALID_ARGUMENT",
        "percent is from 0 to 100",
    ),
    ("CreateNamespace", {"namespace": "A"}, "INVALID_ARGUMENT", "is not a DNS label"),
    ("DeleteNamespace", {"namespace": "default"}, "INVALID_ARGUMENT", "cannot be deleted"),
]


@on_loop
async def test_bad_requests_get_a_sentence_and_store_nothing(tmp_path: Path) -> None:
    async with served("http2", tmp_path) as (registry, call):
        before = registry.node.revision
        for name, fields, code, sentence in REFUSED:
            found, details = await call.refused(name, **fields)
            assert (found.name, sentence in details) == (code, True), (name, details)
        watch = call.watch(service=pb.ServiceName(namespace="nowhere", service="a"))
        with pytest.raises(grpc.aio.AioRpcError, match="there is no namespace"):
            await watch.next()
        watch = call.watch(service=PAYMENT, subscriber_id="x" * 129)
        with pytest.raises(grpc.aio.AioRpcError, match="129 characters long"):
            await watch.next()
        assert registry.node.revision == before
        assert registry.node.lease_list() == []


@on_loop
async def test_every_door_tells_the_same_instances_at_the_same_revision(tmp_path: Path) -> None:
    async with served("http2", tmp_path) as (registry, call):
        await call("CreateNamespace", namespace="team")
        await call("Register", instance=instance(1))
        name = pb.InstanceName(namespace="team", service="payment", id="x")
        await call("Register", instance=instance(2, name=name))
        prefix = "/kvstore/services/default/"
        await call.put(prefix + "payment/odd", b"[1]")
        await call.put(
            prefix + "payment/hand", b'{"address": "h", "port": 5, "status": "DEGRADED"}'
        )
        kvs = (await call.get(prefix, prefix[:-1] + "0")).kvs
        selection = pb.Selection(health=pb.Selection.ALL)
        answer = await call("GetInstances", service=PAYMENT, selection=selection)
        assert [each.name.id for each in answer.instances] == ["hand", "payment-1"]
        by_key = {kv.key.decode(): kv for kv in kvs}
        for each in answer.instances:
            kv = by_key[f"{prefix}payment/{each.name.id}"]
            assert (kv.mod_revision, kv.create_revision, kv.lease) == (
                each.mod_revision,
                each.create_revision,
                each.lease,
            )
            stored = json.loads(kv.value)
            assert stored["status"] == pb.Status.Name(each.status)
            assert stored["address"] == each.address
        (stray,) = answer.strays
        assert (stray.key, stray.problem) == (
            f"{prefix}payment/odd",
            "the value is JSON, but not an object",
        )
        entry = registry.catalog.on_lease(answer.instances[1].lease)
        assert entry is not None
        assert json.loads(by_key[f"{prefix}payment/payment-1"].value) == to_json(entry.known)
        # A plain deletion is a deregistration for those who watch.
        watch = call.watch(service=PAYMENT)
        await watch.next()
        request = rpc_pb2.DeleteRangeRequest(key=f"{prefix}payment/hand".encode())
        path = "/etcdserverpb.KV/DeleteRange"
        await call.unary(path, request, rpc_pb2.DeleteRangeResponse)
        (event,) = (await watch.next()).events
        assert (event.event, event.reason.text) == ("deregistered", "deleted by a client")
        watch.cancel()
        listed = await call("ListServices")
        assert [(each.name.namespace, each.instances) for each in listed.services] == [
            ("default", 1),
            ("team", 1),
        ]
        assert list((await call("ListNamespaces")).namespaces) == ["default", "team"]


@on_loop
async def test_settings_checks_and_results_come_back_as_they_were_given(tmp_path: Path) -> None:
    # No network: each check fails at once, and nobody is bothered.
    async with served("http2", tmp_path, ()) as (registry, call):
        await until(lambda: registry.catalog.checkers)
        checks = [
            pb.Check(
                name="ready",
                http=pb.HttpCheck(url="/healthz", method="GET", headers={"a": "b"}),
                interval_ms=5_000,
                timeout_ms=1_000,
                healthy_after=2,
                unhealthy_after=4,
            ),
            pb.Check(
                name="tcp",
                tcp=pb.TcpCheck(target="127.0.0.1:1"),
                interval_ms=1_000,
                timeout_ms=500,
                healthy_after=1,
                unhealthy_after=3,
            ),
            pb.Check(
                name="grpc",
                grpc=pb.GrpcCheck(service="x"),
                interval_ms=1_000,
                timeout_ms=500,
                healthy_after=1,
                unhealthy_after=3,
            ),
        ]
        registered = await call("Register", instance=instance(checks=checks, drain_s=7, weight=0))
        assert list(registered.instance.checks) == checks
        assert (registered.instance.drain_s, registered.instance.weight) == (7, 0)
        result = pb.CheckResult(
            name="ready", status=pb.DOWN, output="é" * 4_000, checked_at_ms=1_700_000_000_123
        )
        status = await call("SetStatus", name=NAME, check=result)
        (told,) = [each for each in status.instance.check_results if each.name == "ready"]
        assert (told.name, told.status, told.checked_at_ms) == (
            "ready",
            pb.DOWN,
            1_700_000_000_123,
        )
        assert told.output == "é" * 2_048
        assert status.instance.reason.code == "check_failed"
        given = pb.Settings(guard_percent=50, guard_hold_s=9)
        await call("SetSettings", service=PAYMENT, settings=given)
        settings = await call("GetSettings", service=PAYMENT)
        assert settings.stored
        assert (settings.settings.guard_percent, settings.settings.guard_hold_s) == (50, 9)
        assert settings.settings.guard_at_least == 3
        assert (await call("EndGuard", service=PAYMENT)).held == 0


@on_loop
async def test_reflection_lists_it_and_calls_are_counted(tmp_path: Path) -> None:
    async with served("http2", tmp_path) as (registry, call):
        await call("ListServices")
        stream = call.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        )()
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        await stream.write(request.SerializeToString())
        answer = reflection_pb2.ServerReflectionResponse.FromString(await stream.read())
        listed = [each.name for each in answer.list_services_response.service]
        assert "kvstore.registry.v1.Registry" in listed
        stream.cancel()
        table = build_api(registry.node, registry.service).table
        served_methods = {m.name for m in table if m.path.startswith(SERVICE)}
        declared = pool.Default().FindServiceByName("kvstore.registry.v1.Registry").methods
        assert served_methods == {method.name for method in declared}
