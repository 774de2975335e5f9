"""What a write may add to the store, estimated before it is proposed (etcd's estimates)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kvstore.machine.command import BatchAction, BatchItem, CommandKind, read_batch
from kvstore.pb.rpc_pb2 import PutRequest, RequestOp, TxnRequest

__all__ = (
    "DEFAULT_QUOTA_BYTES",
    "LEASE_GRANT_COST_BYTES",
    "batch_cost",
    "cost_bytes",
    "put_cost",
    "txn_cost",
)

DEFAULT_QUOTA_BYTES: Final = 2 * 1024**3
PUT_OVERHEAD_BYTES: Final = 256
LEASE_GRANT_COST_BYTES: Final = 64


def put_cost(request: PutRequest) -> int:
    """Bytes that a put may add."""
    return PUT_OVERHEAD_BYTES + len(request.key) + len(request.value)


def txn_cost(request: TxnRequest) -> int:
    """Bytes that a transaction may add: its dearer branch. 0 exactly if it can put nothing."""
    return max(_ops_cost(request.success), _ops_cost(request.failure))


def batch_cost(items: Iterable[BatchItem]) -> int:
    """Bytes that a batch may add. 0 exactly if it only deletes."""
    cost = 0
    for item in items:
        if item.action != BatchAction.DELETE:
            cost += PUT_OVERHEAD_BYTES + len(item.key) + len(item.value)
            if item.action == BatchAction.PUT_NEW_LEASE:
                cost += LEASE_GRANT_COST_BYTES
    return cost


def _ops_cost(ops: Iterable[RequestOp]) -> int:
    cost = 0
    for op in ops:
        kind = op.WhichOneof("request")
        if kind == "request_put":
            cost += put_cost(op.request_put)
        elif kind == "request_txn":
            cost += txn_cost(op.request_txn)
    return cost


def cost_bytes(kind: CommandKind, payload: bytes) -> int:
    """The estimate for a command; 0 for those that are allowed when the quota is exhausted."""
    if kind == CommandKind.PUT:
        return put_cost(PutRequest.FromString(payload))
    if kind == CommandKind.TXN:
        return txn_cost(TxnRequest.FromString(payload))
    if kind == CommandKind.BATCH:
        return batch_cost(read_batch(payload)[2])
    return LEASE_GRANT_COST_BYTES if kind == CommandKind.LEASE_GRANT else 0
