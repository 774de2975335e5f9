"""Targets: every gRPC method of a member, from the bytes of its request to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from google.protobuf import message_factory

from kvstore.api.call import BidiMethod, Call, Method, MethodTable, StreamMethod, UnaryMethod
from kvstore.api.encoding import length_delimited
from kvstore.api.services.registration import build_api
from kvstore.errors import Code, EtcdError
from kvstore.pb import (
    health_pb2,
    pool,
    reflection_pb2,
    rpc_pb2,
    v3election_pb2,
    v3lock_pb2,
)
from tests.fuzz.protobuf import WORDS, mender
from tests.fuzz.registry import Feed, Target
from tests.fuzz.sockets import settle
from tests.unit.api.local_node import CLUSTER_ID, MEMBER_ID, LocalNode

__all__ = ("TARGETS", "nested", "request_class", "requests", "serve")

Patience = Callable[[], Coroutine[Any, Any, None]]
_FRESH_EVERY = 400
"""So many inputs go to one node, which gathers keys and leases; then comes a new one."""
_ANSWER_BYTES_MAX = 8 * 1024**2
_LEASE = 7
_UNREADABLE = ("grpc: error unmarshalling request", "grpc: failed to unmarshal")
"""How etcd answers bytes that are no such message: the only answers with the code INTERNAL."""


class _Call(Call):
    """A call whose transport is the test."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload, {}, "test", None)
        self.outcome: bytes | EtcdError | None = None
        self.ended = asyncio.get_running_loop().create_future()

    def _send(self, body: bytes, error: EtcdError | None) -> None:
        self.outcome = error or body
        if not self.ended.done():
            self.ended.set_result(None)


class _Outlet:
    """A stream whose transport is the test."""

    metadata: Mapping[str, str | bytes] = {}
    peer = "test"

    def __init__(self) -> None:
        self.finished = False
        self.error: EtcdError | None = None

    def wake(self) -> None:
        pass

    def finish(self, error: EtcdError | None) -> None:
        self.finished = True
        self.error = self.error or error


async def serve(method: Method, data: bytes, patience: Patience) -> None:
    """One call with this request, up to its end, or `patience`: then the client leaves.

    Raises the EtcdError that the client would be told. None may be INTERNAL, which is what a
    handler's mistake is, but for a request that cannot be decoded.
    """
    try:
        if isinstance(method, UnaryMethod):
            await _unary(method, data, patience)
        elif isinstance(method, StreamMethod):
            await _stream(method, data, patience)
        else:
            assert isinstance(method, BidiMethod), method
            await _session(method, data)
    except EtcdError as error:
        if error.code is Code.INTERNAL:
            assert error.message.startswith(_UNREADABLE), error
        raise


async def _unary(method: UnaryMethod, data: bytes, patience: Patience) -> None:
    call = _Call(data)
    answer = method.handler(call)
    if asyncio.iscoroutine(answer):
        task = asyncio.ensure_future(answer)
        await _until(task, patience)
        if not task.done():
            # A lock that somebody holds, a leader who is still to come: the client leaves.
            task.cancel()
            await asyncio.wait((task,))
        if not task.cancelled():
            answer = task.result()
    elif answer is None:
        await _until(call.ended, patience)
    if isinstance(call.outcome, EtcdError):
        raise call.outcome
    call.cancel()


async def _until(task: asyncio.Future[Any], patience: Patience) -> None:
    """Waits for either."""
    waiting = asyncio.ensure_future(patience())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


async def _stream(method: StreamMethod, data: bytes, patience: Patience) -> None:
    messages = method.handler(_Call(data))
    task = asyncio.ensure_future(_drawn(messages))
    await _until(task, patience)
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.result()


async def _drawn(messages: Any) -> None:
    size = 0
    async for message in messages:
        size += len(message)
        assert size <= _ANSWER_BYTES_MAX


async def _session(method: BidiMethod, data: bytes) -> None:
    outlet = _Outlet()
    session = method.handler(outlet)
    try:
        for _ in range(2):
            if session.accepting and not outlet.finished:
                session.received(data)
            for _ in range(3):
                await settle(1)
                session.take(16, 65_536)
        session.half_closed()
        session.take(1000, 1_000_000)
    finally:
        session.closed()
        await settle(1)
    if outlet.error is not None:
        raise outlet.error


def _open(path: str) -> Any:
    @contextmanager
    def opened() -> Iterator[Feed]:
        with asyncio.Runner() as runner:
            node: LocalNode | None = None
            table = MethodTable()
            taken = 0

            async def fresh() -> tuple[LocalNode, MethodTable]:
                made = LocalNode()
                _populate(made)
                return made, build_api(made).table

            def feed(data: bytes) -> None:
                nonlocal node, table, taken
                if taken % _FRESH_EVERY == 0:
                    node, table = runner.run(fresh())
                taken += 1
                method = table.get(path)
                assert method is not None
                runner.run(serve(method, data, lambda: settle(40)))

            yield feed

    return opened


def _populate(node: LocalNode) -> None:
    """Keys, a lease, some history: what requests may refer to."""

    def write(kind: int, request: Any) -> None:
        node.write(kind, request.SerializeToString(), lambda _answer, error: _no(error))

    write(5, rpc_pb2.LeaseGrantRequest(ID=_LEASE, TTL=1000))
    for number in range(30):
        write(1, rpc_pb2.PutRequest(key=b"k%d" % number, value=b"v" * number, lease=_LEASE))
    write(1, rpc_pb2.PutRequest(key=b"e/7", value=b"leader", lease=_LEASE))
    write(2, rpc_pb2.DeleteRangeRequest(key=b"k1", range_end=b"k2"))
    write(4, rpc_pb2.CompactionRequest(revision=5))


def _no(error: EtcdError | None) -> None:
    assert error is None, error


# ---- requests -----------------------------------------------------------------------------------

_Range = rpc_pb2.RangeRequest
_Compare = rpc_pb2.Compare


def _txn() -> rpc_pb2.TxnRequest:
    request = rpc_pb2.TxnRequest()
    for target, field in enumerate(
        ("version", "create_revision", "mod_revision", "value", "lease")
    ):
        compare = request.compare.add(key=b"k2", target=target, result=_Compare.GREATER)  # type: ignore[arg-type]
        setattr(compare, field, b"" if field == "value" else 1)
    request.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=b"new", value=b"1"))
    request.success.add().request_range.CopyFrom(_Range(key=b"k", range_end=b"l", limit=3))
    request.failure.add().request_delete_range.key = b"k3"
    inner = request.failure.add().request_txn
    inner.compare.add(key=b"k", range_end=b"\0", target=_Compare.LEASE, lease=_LEASE)
    inner.success.add().request_put.key = b"inner"
    return request


def nested(levels: int, last: bytes = b"") -> bytes:
    """The bytes of a transaction in a transaction …; `last` is the innermost one."""
    for _ in range(levels):
        last = length_delimited(2, length_delimited(4, last)) if len(last) < 2**27 else last
    return last


def _watch(**fields: Any) -> rpc_pb2.WatchRequest:
    return rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(**fields))


def requests() -> dict[str, Sequence[Any]]:
    """Well-formed requests by method; bytes count as they stand."""
    read_only = rpc_pb2.TxnRequest()
    read_only.success.add().request_range.key = b"k2"
    leader = v3election_pb2.LeaderKey(name=b"e", key=b"e/7", rev=3, lease=_LEASE)
    kv, lease, cluster = "/etcdserverpb.KV/", "/etcdserverpb.Lease/", "/etcdserverpb.Cluster/"
    maintenance, election = "/etcdserverpb.Maintenance/", "/v3electionpb.Election/"
    question = reflection_pb2.ServerReflectionRequest
    ranges = (
        _Range(key=b"k", range_end=b"l", limit=5, sort_order=2, sort_target=3),  # type: ignore[arg-type]
        _Range(key=b"\0", range_end=b"\0", keys_only=True, revision=20, min_mod_revision=3),
        _Range(key=b"k", range_end=b"l", count_only=True, serializable=True),
        _Range(),
        _Range(key=b"k", revision=1),
    )
    return {
        kv + "Range": ranges,
        kv + "RangeStream": (*ranges, _Range(key=b"\0", range_end=b"\0")),
        kv + "Put": (
            rpc_pb2.PutRequest(key=b"k", value=b"v", lease=_LEASE, prev_kv=True),
            rpc_pb2.PutRequest(key=b"k2", ignore_value=True, ignore_lease=True),
            rpc_pb2.PutRequest(key=b"k" * 900, value=bytes(5000)),
        ),
        kv + "DeleteRange": (
            rpc_pb2.DeleteRangeRequest(key=b"k5", prev_kv=True),
            rpc_pb2.DeleteRangeRequest(key=b"k1", range_end=b"k2"),
        ),
        kv + "Txn": (_txn(), read_only, nested(30), nested(45, _txn().SerializeToString())),
        kv + "Compact": (
            rpc_pb2.CompactionRequest(revision=9),
            rpc_pb2.CompactionRequest(revision=12, physical=True),
        ),
        "/etcdserverpb.Watch/Watch": (
            _watch(key=b"k", range_end=b"l", start_revision=6, prev_kv=True, fragment=True),
            _watch(key=b"\0", range_end=b"\0", progress_notify=True, filters=[0, 1], watch_id=3),
            _watch(key=b"k", start_revision=1),
            rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=0)),
            rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()),
        ),
        lease + "LeaseGrant": (
            rpc_pb2.LeaseGrantRequest(TTL=10),
            rpc_pb2.LeaseGrantRequest(ID=99, TTL=2**31),
        ),
        lease + "LeaseRevoke": (rpc_pb2.LeaseRevokeRequest(ID=_LEASE),),
        lease + "LeaseTimeToLive": (
            rpc_pb2.LeaseTimeToLiveRequest(ID=_LEASE, keys=True),
            rpc_pb2.LeaseTimeToLiveRequest(ID=8),
        ),
        lease + "LeaseKeepAlive": (rpc_pb2.LeaseKeepAliveRequest(ID=_LEASE),),
        cluster + "MemberAdd": (rpc_pb2.MemberAddRequest(peerURLs=["http://b:2380"]),),
        cluster + "MemberRemove": (rpc_pb2.MemberRemoveRequest(ID=MEMBER_ID),),
        cluster + "MemberUpdate": (
            rpc_pb2.MemberUpdateRequest(ID=MEMBER_ID, peerURLs=["http://b:1", "http://[::1]:2"]),
        ),
        cluster + "MemberPromote": (rpc_pb2.MemberPromoteRequest(ID=MEMBER_ID),),
        maintenance + "Alarm": (
            rpc_pb2.AlarmRequest(action=1, memberID=MEMBER_ID, alarm=1),  # type: ignore[arg-type]
            rpc_pb2.AlarmRequest(action=2, memberID=MEMBER_ID, alarm=1),  # type: ignore[arg-type]
        ),
        maintenance + "HashKV": (rpc_pb2.HashKVRequest(revision=9),),
        maintenance + "MoveLeader": (rpc_pb2.MoveLeaderRequest(targetID=MEMBER_ID),),
        maintenance + "Downgrade": (rpc_pb2.DowngradeRequest(version="3.5.0"),),
        "/v3lockpb.Lock/Lock": (v3lock_pb2.LockRequest(name=b"l", lease=_LEASE),),
        "/v3lockpb.Lock/Unlock": (v3lock_pb2.UnlockRequest(key=b"l/7"),),
        election + "Campaign": (
            v3election_pb2.CampaignRequest(name=b"e", lease=_LEASE, value=b"me"),
        ),
        election + "Proclaim": (v3election_pb2.ProclaimRequest(leader=leader, value=b"still"),),
        election + "Leader": (v3election_pb2.LeaderRequest(name=b"e"),),
        election + "Observe": (v3election_pb2.LeaderRequest(name=b"e"),),
        election + "Resign": (v3election_pb2.ResignRequest(leader=leader),),
        "/grpc.health.v1.Health/Check": (health_pb2.HealthCheckRequest(service=""),),
        "/grpc.health.v1.Health/Watch": (health_pb2.HealthCheckRequest(service="etcd"),),
        **{
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": (
                question(list_services="*"),
                question(file_by_filename="rpc.proto"),
                question(file_containing_symbol="etcdserverpb.KV", host="h"),
                question(all_extension_numbers_of_type="etcdserverpb.PutRequest"),
                question(),
            )
            for version in ("v1", "v1alpha")
        },
    }


_WORDS = (*WORDS, b"k2", b"http://b:2380", b"unix://x", CLUSTER_ID.to_bytes(8, "big"))
_AUTH = "/etcdserverpb.Auth/"
_NEVER_ACCEPT = (
    _AUTH,
    "/etcdserverpb.Cluster/MemberPromote",
    "/etcdserverpb.Maintenance/Downgrade",
)


def request_class(method: Method) -> Any:
    """What the method's requests are; the message of reflection for the older name of it, too."""
    service = method.service.replace("v1alpha", "v1")
    found = pool.Default().FindServiceByName(service).methods_by_name[method.name]
    return message_factory.GetMessageClass(found.input_type)


_COSTS = {"/etcdserverpb.KV/Txn": 1, "/etcdserverpb.KV/Range": 1, "/etcdserverpb.Watch/Watch": 1}
"""What has many fields gets more inputs; what has one code for all, fewer."""


def _target(method: Method, requests: Mapping[str, Sequence[Any]]) -> Target:
    given = requests.get(method.path, (b"",))
    seeds = [each if isinstance(each, bytes) else each.SerializeToString() for each in given]
    return Target(
        f"grpc {method.path}",
        _open(method.path),
        (EtcdError,),
        lambda: seeds,
        _WORDS,
        label=lambda error: error.code.name if isinstance(error, EtcdError) else "?",
        mend=mender(request_class(method)),
        memory_mib=64,
        cost=_COSTS.get(method.path, 2) if not method.path.startswith(_AUTH) else 10,
        accepts=not method.path.startswith(_NEVER_ACCEPT),
    )


def _every_method() -> list[Method]:
    """As the member's own table has them, so that none can be forgotten."""

    async def methods() -> list[Method]:
        return list(build_api(LocalNode()).table)

    return asyncio.run(methods())


TARGETS = tuple(_target(method, requests()) for method in _every_method())
