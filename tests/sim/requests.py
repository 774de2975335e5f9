"""The history's requests and answers as etcd's messages, and back."""

from __future__ import annotations

from typing import Any, Final

from kvstore.pb import kv_pb2, rpc_pb2
from tests.linear.history import (
    KV,
    Compact,
    Compare,
    Delete,
    Event,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    Request,
    Response,
    Txn,
    WatchResponse,
)

__all__ = ("decode", "encode", "watch_response")

_TARGETS: Final = {
    "version": (rpc_pb2.Compare.VERSION, "version"),
    "create": (rpc_pb2.Compare.CREATE, "create_revision"),
    "mod": (rpc_pb2.Compare.MOD, "mod_revision"),
    "value": (rpc_pb2.Compare.VALUE, "value"),
    "lease": (rpc_pb2.Compare.LEASE, "lease"),
}
_RELATIONS: Final = {
    "=": rpc_pb2.Compare.EQUAL,
    ">": rpc_pb2.Compare.GREATER,
    "<": rpc_pb2.Compare.LESS,
    "!=": rpc_pb2.Compare.NOT_EQUAL,
}


def _range(request: Range) -> rpc_pb2.RangeRequest:
    return rpc_pb2.RangeRequest(
        key=request.key,
        range_end=request.end or b"",
        serializable=request.serializable,
        revision=request.revision,
        limit=request.limit,
        count_only=request.count_only,
    )


def _put(request: Put) -> rpc_pb2.PutRequest:
    return rpc_pb2.PutRequest(key=request.key, value=request.value, lease=request.lease)


def _delete(request: Delete) -> rpc_pb2.DeleteRangeRequest:
    return rpc_pb2.DeleteRangeRequest(key=request.key, range_end=request.end or b"")


def _compare(compare: Compare) -> rpc_pb2.Compare:
    target, field = _TARGETS[compare.target]
    relation = _RELATIONS[compare.relation]
    known: dict[str, Any] = {field: compare.operand}
    return rpc_pb2.Compare(key=compare.key, target=target, result=relation, **known)


def _operation(request: Request) -> rpc_pb2.RequestOp:
    if isinstance(request, Put):
        return rpc_pb2.RequestOp(request_put=_put(request))
    if isinstance(request, Range):
        return rpc_pb2.RequestOp(request_range=_range(request))
    if isinstance(request, Delete):
        return rpc_pb2.RequestOp(request_delete_range=_delete(request))
    assert isinstance(request, Txn), request
    return rpc_pb2.RequestOp(request_txn=_txn(request))


def _txn(request: Txn) -> rpc_pb2.TxnRequest:
    return rpc_pb2.TxnRequest(
        compare=[_compare(each) for each in request.compares],
        success=[_operation(each) for each in request.success],
        failure=[_operation(each) for each in request.failure],
    )


def encode(request: Request) -> tuple[str, bytes]:
    """The path of the method, and the request's bytes."""
    message: Any
    if isinstance(request, Put):
        path, message = "/etcdserverpb.KV/Put", _put(request)
    elif isinstance(request, Range):
        path, message = "/etcdserverpb.KV/Range", _range(request)
    elif isinstance(request, Delete):
        path, message = "/etcdserverpb.KV/DeleteRange", _delete(request)
    elif isinstance(request, Txn):
        path, message = "/etcdserverpb.KV/Txn", _txn(request)
    elif isinstance(request, Compact):
        path, message = (
            "/etcdserverpb.KV/Compact",
            rpc_pb2.CompactionRequest(revision=request.revision),
        )
    elif isinstance(request, LeaseGrant):
        path, message = (
            "/etcdserverpb.Lease/LeaseGrant",
            rpc_pb2.LeaseGrantRequest(ID=request.lease_id, TTL=request.ttl_s),
        )
    else:
        assert isinstance(request, LeaseRevoke), request
        path, message = (
            "/etcdserverpb.Lease/LeaseRevoke",
            rpc_pb2.LeaseRevokeRequest(ID=request.lease_id),
        )
    return path, message.SerializeToString()


def _kv(kv: kv_pb2.KeyValue) -> KV:
    return KV(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def _ranged(answer: rpc_pb2.RangeResponse) -> Response:
    return Response(answer.header.revision, tuple(map(_kv, answer.kvs)), answer.count)


def _transacted(answer: rpc_pb2.TxnResponse) -> Response:
    parts = []
    for each in answer.responses:
        kind = each.WhichOneof("response")
        if kind == "response_range":
            parts.append(_ranged(each.response_range))
        elif kind == "response_delete_range":
            deleted = each.response_delete_range
            parts.append(Response(deleted.header.revision, deleted=deleted.deleted))
        elif kind == "response_txn":
            parts.append(_transacted(each.response_txn))
        else:
            parts.append(Response(each.response_put.header.revision))
    return Response(answer.header.revision, succeeded=answer.succeeded, parts=tuple(parts))


def decode(request: Request, body: bytes) -> Response:
    """The answer to a request."""
    if isinstance(request, Put):
        return Response(rpc_pb2.PutResponse.FromString(body).header.revision)
    if isinstance(request, Range):
        return _ranged(rpc_pb2.RangeResponse.FromString(body))
    if isinstance(request, Delete):
        deleted = rpc_pb2.DeleteRangeResponse.FromString(body)
        return Response(deleted.header.revision, deleted=deleted.deleted)
    if isinstance(request, Txn):
        return _transacted(rpc_pb2.TxnResponse.FromString(body))
    if isinstance(request, Compact):
        return Response(rpc_pb2.CompactionResponse.FromString(body).header.revision)
    if isinstance(request, LeaseGrant):
        return Response(rpc_pb2.LeaseGrantResponse.FromString(body).header.revision)
    assert isinstance(request, LeaseRevoke), request
    return Response(rpc_pb2.LeaseRevokeResponse.FromString(body).header.revision)


def watch_response(at: int, message: rpc_pb2.WatchResponse) -> WatchResponse:
    """One message of a watch stream."""
    events = tuple(
        Event(
            "delete" if event.type == kv_pb2.Event.DELETE else "put",
            _kv(event.kv),
            _kv(event.prev_kv) if event.HasField("prev_kv") else None,
        )
        for event in message.events
    )
    quiet = not (events or message.created or message.canceled)
    return WatchResponse(
        at=at,
        revision=message.header.revision,
        events=events,
        progress=quiet and not message.fragment,
        fragment=message.fragment,
        canceled=message.canceled,
        compact_revision=message.compact_revision,
        created=message.created,
    )
