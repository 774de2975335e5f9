"""The requests of each load, made once by protobuf and cut where their keys go."""

from __future__ import annotations

import random
from functools import cache

from benchmarks.generator.requests import Method, key_of
from benchmarks.generator.watching import EVENT_BYTES, event_name
from kvstore.pb import rpc_pb2

__all__ = (
    "compare_and_put",
    "delete",
    "grant",
    "load",
    "load_batch",
    "numbered_put",
    "put",
    "range_keys",
    "refused_put",
    "value_of",
    "watch",
)

_LOAD_PUTS = 100
_LOAD_BYTES = 60_000
"""Of one transaction while a store is filled: etcd allows 128 puts in it, and takes no more bytes
of a request than these at once."""

_HOLES = 900_000_000_000
"""Numbers from here on stand for the keys that are cut out; no space is so large."""


@cache
def value_of(size: int) -> bytes:
    """Bytes without a pattern, the same each time."""
    return random.Random(size).randbytes(size)


def _method(path: str, message: bytes, offsets: tuple[int, ...], writes: int) -> Method:
    """Cuts the keys of `_HOLES` + i for i in 0 … len(offsets) - 1, in this order, out."""
    parts = []
    for hole in range(len(offsets)):
        before, found, message = message.partition(key_of(_HOLES + hole))
        assert found, f"key {hole} is not in the request"
        parts.append(before)
    return Method(path, (*parts, message), offsets, writes)


def put(value_bytes: int) -> Method:
    request = rpc_pb2.PutRequest(key=key_of(_HOLES), value=value_of(value_bytes))
    return _method("/etcdserverpb.KV/Put", request.SerializeToString(), (0,), 1)


def delete() -> Method:
    """Of one key that must exist: otherwise there is no revision."""
    request = rpc_pb2.DeleteRangeRequest(key=key_of(_HOLES))
    return _method("/etcdserverpb.KV/DeleteRange", request.SerializeToString(), (0,), 1)


def compare_and_put(value_bytes: int) -> Method:
    """If the key exists, then put; else read it, which makes no revision and so voids the run."""
    request = rpc_pb2.TxnRequest(
        compare=[
            rpc_pb2.Compare(
                result=rpc_pb2.Compare.GREATER,
                target=rpc_pb2.Compare.VERSION,
                key=key_of(_HOLES),
                version=0,
            )
        ],
        success=[
            rpc_pb2.RequestOp(
                request_put=rpc_pb2.PutRequest(key=key_of(_HOLES + 1), value=value_of(value_bytes))
            )
        ],
        failure=[rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key_of(_HOLES + 2)))],
    )
    return _method("/etcdserverpb.KV/Txn", request.SerializeToString(), (0, 0, 0), 1)


def refused_put(value_bytes: int) -> Method:
    """A put under a condition that no existing key meets: it fills the log, and changes nothing."""
    request = rpc_pb2.TxnRequest(
        compare=[
            rpc_pb2.Compare(
                result=rpc_pb2.Compare.EQUAL,
                target=rpc_pb2.Compare.VERSION,
                key=key_of(_HOLES),
                version=0,
            )
        ],
        success=[
            rpc_pb2.RequestOp(
                request_put=rpc_pb2.PutRequest(key=key_of(_HOLES + 1), value=value_of(value_bytes))
            )
        ],
    )
    return _method("/etcdserverpb.KV/Txn", request.SerializeToString(), (0, 0), 0)


def range_keys(count: int = 1, *, serializable: bool = False) -> Method:
    """One key, or `count` keys that follow one another."""
    request = rpc_pb2.RangeRequest(key=key_of(_HOLES), serializable=serializable)
    if count > 1:
        request.range_end = key_of(_HOLES + 1)
    message = request.SerializeToString()
    return _method("/etcdserverpb.KV/Range", message, (0,) if count == 1 else (0, count), 0)


def load_batch(value_bytes: int) -> int:
    """Puts in one transaction of `load`."""
    return max(1, min(_LOAD_PUTS, _LOAD_BYTES // (value_bytes + 64)))


def load(value_bytes: int, count: int = 0) -> Method:
    """A transaction that puts `count` keys that follow one another; 0: `load_batch`."""
    count = count or load_batch(value_bytes)
    request = rpc_pb2.TxnRequest(
        success=[
            rpc_pb2.RequestOp(
                request_put=rpc_pb2.PutRequest(
                    key=key_of(_HOLES + number), value=value_of(value_bytes)
                )
            )
            for number in range(count)
        ]
    )
    message = request.SerializeToString()
    return _method("/etcdserverpb.KV/Txn", message, tuple(range(count)), 1)


def grant(ttl_s: int) -> Method:
    """A lease whose id the server chooses."""
    request = rpc_pb2.LeaseGrantRequest(TTL=ttl_s)
    return Method("/etcdserverpb.Lease/LeaseGrant", (request.SerializeToString(),), (), 0)


def watch() -> Method:
    """Creates a watcher of one key."""
    create = rpc_pb2.WatchCreateRequest(key=key_of(_HOLES))
    message = rpc_pb2.WatchRequest(create_request=create).SerializeToString()
    return _method("/etcdserverpb.Watch/Watch", message, (0,), 0)


def numbered_put(value_bytes: int) -> Method:
    """A put with a second hole, where the value begins with the event's number."""
    name = event_name(_HOLES)
    value = name + value_of(value_bytes)[: value_bytes - EVENT_BYTES]
    message = rpc_pb2.PutRequest(key=key_of(_HOLES), value=value).SerializeToString()
    first, _, rest = message.partition(key_of(_HOLES))
    middle, _, last = rest.partition(name)
    return Method("/etcdserverpb.KV/Put", (first, middle, last), (0, 0), 1)
