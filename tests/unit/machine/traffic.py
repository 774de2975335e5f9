"""Random requests that meet often: few keys, few leases, recent revisions."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from kvstore.pb.rpc_pb2 import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

__all__ = ("Traffic",)

# With zero bytes and extensions of each other, where order is hard.
KEYS = (b"a", b"a\0", b"a\0\xff", b"ab", b"b", b"b\xff", b"c/1", b"c/2", b"\0", b"\xff\xff")
ENDS = (b"", b"", b"\0", b"b", b"a\0\0", b"c0", b"\xff")
VALUES = (b"", b"1", b"two", b"\0\xff")
LEASES = (11, 12, 13)


class Traffic:
    """Random requests; `revision` tells the present revision, which many of them refer to."""

    def __init__(self, seed: int, revision: Callable[[], int]) -> None:
        self.random = random.Random(seed)
        self.revision = revision

    def put(self) -> PutRequest:
        pick = self.random
        request = PutRequest(key=pick.choice(KEYS), prev_kv=pick.random() < 0.3)
        if pick.random() < 0.1:
            request.ignore_value = True
        else:
            request.value = pick.choice(VALUES)
        if pick.random() < 0.1:
            request.ignore_lease = True
        elif pick.random() < 0.4:
            request.lease = pick.choice(LEASES)
        return request

    def delete(self) -> DeleteRangeRequest:
        pick = self.random
        return DeleteRangeRequest(
            key=pick.choice(KEYS), range_end=pick.choice(ENDS), prev_kv=pick.random() < 0.5
        )

    def range(self) -> RangeRequest:
        pick = self.random
        revision = self.revision()
        target = pick.choice((0, 0, 1, 2, 3, 4))
        request = RangeRequest(
            key=pick.choice(KEYS),
            range_end=pick.choice(ENDS),
            limit=pick.choice((0, 0, 1, 2, 5, -1)),
            sort_target=target,
            sort_order=pick.choice((0, 1, 2)),
            keys_only=pick.random() < 0.2,
            count_only=pick.random() < 0.1,
        )
        if target in (1, 2, 3, 4):
            # etcd's sort is unstable: without equal values there is nothing to differ in.
            request.sort_target = pick.choice((0, 3))
        if pick.random() < 0.4:
            request.revision = revision + pick.randint(-8, 2)
        for field in ("min_mod", "max_mod", "min_create", "max_create"):
            if pick.random() < 0.1:
                setattr(request, f"{field}_revision", revision - pick.randint(0, 20))
        return request

    def compare(self) -> Compare:
        pick = self.random
        compare = Compare(
            result=pick.choice((0, 0, 1, 2, 3)),
            target=pick.choice((0, 1, 2, 3, 4)),
            key=pick.choice(KEYS),
            range_end=pick.choice((b"", b"", *ENDS)),
        )
        recent = self.revision() - pick.randint(0, 10)
        operand = pick.choice(
            (
                {"version": pick.randint(0, 3)},
                {"create_revision": pick.choice((0, recent))},
                {"mod_revision": pick.choice((0, recent))},
                {"value": pick.choice(VALUES)},
                {"lease": pick.choice((0, *LEASES))},
                {},
            )
        )
        compare.MergeFrom(Compare(**operand))
        return compare

    def op(self, depth: int) -> RequestOp:
        pick = self.random.random()
        if pick < 0.4:
            return RequestOp(request_put=self.put())
        if pick < 0.6:
            return RequestOp(request_delete_range=self.delete())
        if pick < 0.85 or depth == 0:
            return RequestOp(request_range=self.range())
        return RequestOp(request_txn=self.txn(depth - 1))

    def txn(self, depth: int = 2) -> TxnRequest:
        pick = self.random
        return TxnRequest(
            compare=[self.compare() for _ in range(pick.choice((0, 1, 1, 2)))],
            success=[self.op(depth) for _ in range(pick.randint(0, 3))],
            failure=[self.op(depth) for _ in range(pick.randint(0, 3))],
        )

    def request(self) -> Any:
        pick = self.random
        roll = pick.random()
        if roll < 0.3:
            return self.put()
        if roll < 0.4:
            return self.delete()
        if roll < 0.6:
            return self.range()
        if roll < 0.85:
            return self.txn()
        if roll < 0.92:
            return LeaseGrantRequest(ID=pick.choice(LEASES), TTL=5_000)
        if roll < 0.97:
            return LeaseRevokeRequest(ID=pick.choice(LEASES))
        # Physical: until etcd has committed its own sweep, a hash at a revision where nothing
        # is live differs from what the same call gives 100 ms later.
        revision = self.revision() - pick.randint(-1, 15)
        return CompactionRequest(revision=revision, physical=True)
