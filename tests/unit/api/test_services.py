"""What needs a server that the test can reach into: guards, quota, failures, streams' ends."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from prometheus_client import CollectorRegistry, generate_latest

from kvstore import errors
from kvstore.api.facade import Write
from kvstore.api.guard import Guard
from kvstore.machine.command import CommandKind
from kvstore.pb import health_pb2, reflection_pb2, rpc_pb2, v3lock_pb2
from tests.unit.api.client import Client, create, op_delete, op_put, op_txn
from tests.unit.api.conftest import Local
from tests.unit.api.local_node import LocalNode
from tests.unit.api.test_semantics import raises


def test_write_kinds_are_the_machines() -> None:
    assert {kind.name: kind.value for kind in Write} == {
        kind.name: kind.value for kind in CommandKind if kind.name in Write.__members__
    }


# Guards


def test_a_learner_serves_status_local_reads_and_snapshots_only(local: Local, wire: Client) -> None:
    wire.put(b"a", b"1")
    local.node.is_learner = True
    assert wire.maintenance("Status").version
    assert wire.range(b"a", serializable=True).count == 1
    assert len(list(wire.snapshot())) > 1
    refused = errors.NOT_SUPPORTED_FOR_LEARNER
    with raises(refused):
        wire.range(b"a")
    with raises(refused):
        wire.put(b"a")
    with raises(refused):
        wire.cluster("MemberList")
    with raises(refused):
        wire.watch_stream().receive()
    with raises(refused):
        next(wire.observe(b"x"))


def test_hasleader_is_refused_without_a_leader(local: Local) -> None:
    local.node.leader_id = 0
    demanding = Client(local.channel, metadata=[("hasleader", "true")])
    with raises(errors.NO_LEADER):
        demanding.put(b"a")
    with raises(errors.NO_LEADER):
        demanding.range(b"a", serializable=True)
    with raises(errors.NO_LEADER):
        demanding.watch_stream().receive()
    Client(local.channel).range(b"a", serializable=True)


@pytest.fixture
def impatient(kind: str) -> Iterator[Local]:
    """A server that looks for its leader every 30 ms."""
    server = Local(kind, election_ms=30)
    yield server
    server.close()


def test_streams_that_want_a_leader_end_after_three_checks_without(impatient: Local) -> None:
    demanding = Client(impatient.channel, metadata=[("hasleader", "true")])
    content = Client(impatient.channel)
    watch, keep_alive = demanding.watch_stream(), demanding.keep_alive_stream()
    other = content.watch_stream()
    observe = demanding.observe(b"nobody")
    for stream in (watch, other):
        stream.send(create(b"a"))
        assert stream.receive().created
    keep_alive.send(rpc_pb2.LeaseKeepAliveRequest(ID=1))
    keep_alive.receive()
    impatient.node.leader_id = 0
    time.sleep(0.04)
    impatient.node.leader_id = 1
    time.sleep(0.1)
    content.put(b"a", b"1")
    assert watch.receive().events, "a short absence ends nothing"
    impatient.node.leader_id = 0
    for stream in (watch, keep_alive):
        with raises(errors.NO_LEADER):
            stream.receive()
    with raises(errors.NO_LEADER):
        next(observe)
    content.put(b"a", b"2")
    assert [one.kv.value for one in other.receive().events] == [b"1"]
    assert other.receive().events[0].kv.value == b"2", "one that does not ask for it stays"
    other.cancel()


def test_client_versions_are_counted(local: Local) -> None:
    for version in ("3.6", "3.6", "3.5"):
        Client(local.channel, metadata=[("client-api-version", version)]).range(b"a")
    Client(local.channel).range(b"a")
    for number in range(100):
        Client(local.channel, metadata=[("client-api-version", f"x{number}")]).range(b"a")
    registry = CollectorRegistry()
    registry.register(local.api.collector)
    text = generate_latest(registry).decode()
    line = 'etcd_server_client_requests_total{client_api_version="%s",type="unary"} %s'
    for version, count in (("3.6", "2.0"), ("3.5", "1.0"), ("unknown", "1.0")):
        assert line % (version, count) in text
    assert text.count("etcd_server_client_requests_total{") < 80, "labels are bounded"


def test_what_was_seen_of_one_call_is_not_believed_of_another() -> None:
    node = LocalNode()
    guard = Guard(node)
    plain, demanding = {"client-api-version": "3.5"}, {"hasleader": "true"}
    assert [guard.admit("unary", plain) for _ in range(3)] == [False] * 3
    assert guard.admit("stream", plain) is False
    assert [guard.admit("unary", demanding) for _ in range(2)] == [True] * 2
    assert guard.clients == {
        ("unary", "3.5"): 3,
        ("stream", "3.5"): 1,
        ("unary", "unknown"): 2,
    }
    node.leader_id = 0
    assert guard.admit("unary", plain) is False
    with pytest.raises(errors.EtcdError, match=errors.NO_LEADER.message):
        guard.admit("unary", demanding)


def test_calls_are_counted_per_method_and_code(local: Local, wire: Client) -> None:
    wire.put(b"a")
    with raises(errors.EMPTY_KEY):
        wire.put(b"")
    stream = wire.watch_stream()
    stream.send(create(b"a"))
    stream.receive()
    stream.cancel()
    registry = CollectorRegistry()
    registry.register(local.api.collector)

    def value(name: str, **labels: str) -> float:
        sample: float | None = registry.get_sample_value(name, labels)
        assert sample is not None, (name, labels)
        return sample

    put = {"grpc_type": "unary", "grpc_service": "etcdserverpb.KV", "grpc_method": "Put"}
    assert value("grpc_server_started_total", **put) == 2
    assert value("grpc_server_handled_total", **put, grpc_code="OK") == 1
    assert value("grpc_server_handled_total", **put, grpc_code="InvalidArgument") == 1
    assert value("grpc_server_msg_sent_total", **put) == 1
    watch = {
        "grpc_type": "bidi_stream",
        "grpc_service": "etcdserverpb.Watch",
        "grpc_method": "Watch",
    }
    assert value("grpc_server_msg_received_total", **watch) == 1
    deadline = time.monotonic() + 5
    while value("grpc_server_handled_total", **watch, grpc_code="Canceled") != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert value("etcd_network_client_grpc_received_bytes_total") > 0
    snapshot = dict(put, grpc_type="server_stream", grpc_service="etcdserverpb.Maintenance")
    snapshot["grpc_method"] = "Snapshot"
    assert value("grpc_server_started_total", **snapshot) == 0, "there before its first call"


# Requests that are refused before raft


def test_quota_refuses_what_adds_data(local: Local, wire: Client) -> None:
    wire.put(b"a")
    local.node.full = True
    for call in (
        lambda: wire.put(b"a"),
        lambda: wire.put(b""),  # the quota is looked at first, as in etcd
        lambda: wire.txn([], [op_put(b"a")]),
        lambda: wire.txn([], [], [op_txn([], [op_put(b"a")])]),
        lambda: wire.grant(5),
    ):
        with raises(errors.NO_SPACE):
            call()  # type: ignore[no-untyped-call]
    wire.range(b"a")
    wire.txn([], [op_delete(b"b")])
    assert wire.delete(b"a").deleted == 1


def test_undecodable_requests(local: Local, wire: Client) -> None:
    for path in ("KV/Put", "KV/Range", "Lease/LeaseGrant", "Cluster/MemberList"):
        with pytest.raises(grpc.RpcError) as raised:
            local.unary(f"/etcdserverpb.{path}", b"\xff\xff\xff")
        error: Any = raised.value
        assert error.code() == grpc.StatusCode.INTERNAL
        assert error.details().startswith("grpc: error unmarshalling request: ")
    stream = local.channel.stream_stream("/etcdserverpb.Watch/Watch")
    with pytest.raises(grpc.RpcError) as raised:
        list(stream(iter([b"\xff\xff\xff"]), timeout=5))
    error = raised.value
    assert error.code() == grpc.StatusCode.INTERNAL
    assert error.details().startswith("grpc: failed to unmarshal the received message")


def test_a_put_whose_client_has_left_is_still_applied(local: Local, wire: Client) -> None:
    held: list[Any] = []
    local.node.held_writes = held
    call = local.channel.unary_unary("/etcdserverpb.KV/Put").future(
        rpc_pb2.PutRequest(key=b"late", value=b"1").SerializeToString()
    )
    deadline = time.monotonic() + 5
    while not held and time.monotonic() < deadline:
        time.sleep(0.01)
    call.cancel()
    time.sleep(0.1)
    local.node.held_writes = None
    local.thread.call(held[0])
    assert wire.range(b"late").kvs[0].value == b"1"


def test_a_lock_given_up_before_its_write_is_applied_leaves_no_key(
    local: Local, wire: Client
) -> None:
    lease = wire.grant(60).ID
    held: list[Any] = []
    local.node.held_writes = held
    call = local.channel.unary_unary("/v3lockpb.Lock/Lock").future(
        v3lock_pb2.LockRequest(name=b"l", lease=lease).SerializeToString()
    )
    deadline = time.monotonic() + 5
    while not held and time.monotonic() < deadline:
        time.sleep(0.01)
    call.cancel()
    time.sleep(0.1)
    local.node.held_writes = None
    local.thread.call(held[0])
    while wire.range(b"l/", b"l0").count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert wire.range(b"l/", b"l0").count == 0


# Streams


def test_a_stalled_watcher_slows_no_writer_and_misses_nothing(local: Local, wire: Client) -> None:
    ready = threading.Event()
    call = local.channel.unary_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=rpc_pb2.WatchResponse.FromString,
    )(create(b"k"))
    assert next(call).created
    ready.set()
    start = time.monotonic()
    for number in range(400):
        wire.put(b"k", b"%06d" % number + bytes(50_000))
    assert time.monotonic() - start < 10
    seen: list[int] = []
    while len(seen) < 400:
        seen += [int(event.kv.value[:6]) for event in next(call).events]
    assert seen == list(range(400))
    call.cancel()


def test_snapshot_is_whole_sectors_and_a_hash(wire: Client) -> None:
    chunks = list(wire.snapshot())
    content, digest = b"".join(chunk.blob for chunk in chunks[:-1]), chunks[-1].blob
    assert len(content) % 512 == 0
    assert content.rstrip(b"\0").endswith(b"tail")
    assert hashlib.sha256(content).digest() == digest
    remaining = len(content)
    for chunk in chunks[:-1]:
        remaining -= len(chunk.blob)
        assert chunk.remaining_bytes == remaining
        assert chunk.version == "3.6.0"
    assert chunks[-1].remaining_bytes == 0
    assert not any(chunk.HasField("header") for chunk in chunks)


def test_keep_alive_stream_ends_with_the_lessors_error(local: Local, wire: Client) -> None:
    local.node.lease_keep_alive = (  # type: ignore[method-assign]
        lambda lease_id, done: done(None, errors.TIMEOUT)
    )
    stream = wire.keep_alive_stream()
    stream.send(rpc_pb2.LeaseKeepAliveRequest(ID=1))
    with raises(errors.TIMEOUT):
        stream.receive()


def test_keep_alives_answered_out_of_order_leave_in_order(local: Local, wire: Client) -> None:
    asked: list[Any] = []
    local.node.lease_keep_alive = (  # type: ignore[method-assign]
        lambda lease_id, done: asked.append((lease_id, done))
    )
    stream = wire.keep_alive_stream()
    for lease_id in (1, 2, 3):
        stream.send(rpc_pb2.LeaseKeepAliveRequest(ID=lease_id))
    stream.finish()
    deadline = time.monotonic() + 5
    while len(asked) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    for lease_id, done in reversed(asked):
        local.thread.call(done, lease_id * 10, None)
    answers = [stream.receive() for _ in range(3)]
    assert [(one.ID, one.TTL) for one in answers] == [(1, 10), (2, 20), (3, 30)]
    assert stream.receive() is None


# Other services


def test_move_leader_is_empty_and_downgrade_unimplemented(local: Local, wire: Client) -> None:
    assert not wire.maintenance("MoveLeader", targetID=local.node.member_id).HasField("header")
    assert local.node.moved_to == local.node.member_id
    with pytest.raises(grpc.RpcError) as raised:
        wire.maintenance("Downgrade", version="3.5")
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_alarms(wire: Client) -> None:
    act = rpc_pb2.AlarmRequest
    wire.maintenance("Alarm", action=act.ACTIVATE, memberID=5, alarm=rpc_pb2.NOSPACE)
    for wanted in (rpc_pb2.NONE, rpc_pb2.NOSPACE):
        (alarm,) = wire.maintenance("Alarm", alarm=wanted).alarms
        assert (alarm.memberID, alarm.alarm) == (5, rpc_pb2.NOSPACE)
    assert not wire.maintenance("Alarm", alarm=rpc_pb2.CORRUPT).alarms
    with raises(errors.NO_SPACE):
        wire.put(b"a", b"1")
    wire.maintenance("Alarm", action=act.DEACTIVATE, memberID=5, alarm=rpc_pb2.NOSPACE)
    wire.put(b"a", b"1")


def test_member_calls(wire: Client) -> None:
    added = wire.cluster("MemberAdd", peerURLs=["http://b:2", " http://a:1 "], isLearner=True)
    assert list(added.member.peerURLs) == ["http://a:1", "http://b:2"]
    assert added.member.isLearner
    assert [member.ID for member in added.members] == sorted(member.ID for member in added.members)
    assert added.header.revision == 0
    (member,) = wire.cluster("MemberList").members
    updated = wire.cluster("MemberUpdate", ID=member.ID, peerURLs=["anything"])
    assert list(updated.members[0].peerURLs) == ["anything"]
    with raises(errors.MEMBER_NOT_LEARNER):
        wire.cluster("MemberPromote", ID=member.ID)


def health(wire: Client, service: str = "") -> Any:
    request = health_pb2.HealthCheckRequest(service=service)
    return wire.unary("/grpc.health.v1.Health/Check", request, health_pb2.HealthCheckResponse)


def test_health(local: Local, wire: Client) -> None:
    serving, not_serving, unknown = 1, 2, 3
    assert health(wire).status == serving
    with pytest.raises(grpc.RpcError) as raised:
        health(wire, "no.such")
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    watch = "/grpc.health.v1.Health/Watch"
    request = health_pb2.HealthCheckRequest(service="no.such")
    stream = wire.stream(watch, request, health_pb2.HealthCheckResponse)
    assert next(stream).status == unknown
    stream.cancel()
    stream = wire.stream(watch, health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse)
    assert next(stream).status == serving
    local.thread.call(local.api.health.set_serving, False)
    assert next(stream).status == not_serving
    assert health(wire).status == not_serving
    stream.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_every_service(wire: Client, version: str) -> None:
    stream = wire.bidi(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest,
        reflection_pb2.ServerReflectionResponse,
    )

    def ask(**question: Any) -> Any:
        stream.send(reflection_pb2.ServerReflectionRequest(host="h", **question))
        answer = stream.receive()
        assert answer.valid_host == "h"
        return answer

    listed = ask(list_services="*").list_services_response.service
    names = {service.name for service in listed}
    assert {"etcdserverpb.KV", "v3lockpb.Lock", "grpc.health.v1.Health"} <= names
    for name in names:
        files = ask(file_containing_symbol=name).file_descriptor_response.file_descriptor_proto
        pool = descriptor_pool.DescriptorPool()
        for content in files:  # in an order that a pool takes: imports first
            pool.Add(FileDescriptorProto.FromString(content))
        assert pool.FindServiceByName(name)
    assert ask(file_by_filename="kv.proto").HasField("file_descriptor_response")
    assert ask(file_containing_symbol="no.Such").error_response.error_code == 5
    assert ask(file_by_filename="no.proto").error_response.error_code == 5
    assert ask().error_response.error_code == 3
    kind = "etcdserverpb.PutRequest"
    numbers = ask(all_extension_numbers_of_type=kind).all_extension_numbers_response
    assert numbers.base_type_name == kind
    stream.finish()
    assert stream.receive() is None
