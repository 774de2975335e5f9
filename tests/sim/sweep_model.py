"""What the sweep's requests must do, written from etcd's API and not from the product's code.

A model keeps every revision's pairs. Requests are drawn so that each is valid where it stands,
so a log of them has exactly one outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kvstore.machine import run
from kvstore.machine.command import CommandKind
from kvstore.machine.view import View
from kvstore.pb import kv_pb2, rpc_pb2
from tests.sim.prng import Prng

__all__ = ("Model", "Request", "draw", "pairs_of")

KEYS: Final = tuple(b"key/%d" % number for number in range(9)) + (b"long/" + b"x" * 500,)
_EVERYTHING: Final = (b"\0", b"\0")


class Pair(NamedTuple):
    """A key's present pair."""

    value: bytes
    create: int
    mod: int
    version: int
    lease: int


Pairs = dict[bytes, Pair]


class Request(NamedTuple):
    """One write. What the fields mean depends on the kind."""

    kind: CommandKind
    key: bytes = b""
    value: bytes = b""
    number: int = 0
    """Lease or revision."""
    other: bytes = b""
    """A txn's deleted key; the end of a delete's range."""

    def payload(self) -> bytes:
        """The request's bytes."""
        put = rpc_pb2.PutRequest(key=self.key, value=self.value, lease=self.number)
        delete = rpc_pb2.DeleteRangeRequest(key=self.key, range_end=self.other)
        match self.kind:
            case CommandKind.PUT:
                return put.SerializeToString()
            case CommandKind.DELETE_RANGE:
                return delete.SerializeToString()
            case CommandKind.TXN:
                gone = rpc_pb2.DeleteRangeRequest(key=self.other)
                parts = (
                    rpc_pb2.RequestOp(request_put=put),
                    rpc_pb2.RequestOp(request_delete_range=gone),
                )
                return rpc_pb2.TxnRequest(success=parts).SerializeToString()
            case CommandKind.COMPACT:
                return rpc_pb2.CompactionRequest(revision=self.number).SerializeToString()
            case CommandKind.LEASE_GRANT:
                return rpc_pb2.LeaseGrantRequest(ID=self.number, TTL=3600).SerializeToString()
            case CommandKind.LEASE_REVOKE:
                return rpc_pb2.LeaseRevokeRequest(ID=self.number).SerializeToString()
        raise AssertionError(self.kind)


@dataclass
class Model:
    """The state after some requests; `history[r]` is what the pairs were at revision r."""

    revision: int = 1
    compacted: int = -1
    leases: frozenset[int] = frozenset()
    history: dict[int, Pairs] = field(default_factory=lambda: {1: {}})

    @property
    def pairs(self) -> Pairs:
        """What there is now."""
        return self.history[self.revision]

    def copy(self) -> Model:
        """The same state, which goes its own way."""
        return Model(self.revision, self.compacted, self.leases, self.history.copy())

    def apply(self, request: Request) -> None:
        """Carries out a request."""
        match request.kind:
            case CommandKind.PUT:
                self._change({}, {request.key: (request.value, request.number)})
            case CommandKind.TXN:
                gone = {request.other: None} if request.other in self.pairs else {}
                self._change(gone, {request.key: (request.value, request.number)})
            case CommandKind.DELETE_RANGE:
                end = request.other or request.key + b"\0"
                self._change({key: None for key in self.pairs if request.key <= key < end}, {})
            case CommandKind.COMPACT:
                self.compacted = request.number
            case CommandKind.LEASE_GRANT:
                self.leases |= {request.number}
            case CommandKind.LEASE_REVOKE:
                self.leases -= {request.number}
                held = {k: None for k, pair in self.pairs.items() if pair.lease == request.number}
                self._change(held, {})

    def _change(self, gone: dict[bytes, None], puts: dict[bytes, tuple[bytes, int]]) -> None:
        if not gone and not puts:
            return
        now = self.revision + 1
        pairs = {key: pair for key, pair in self.pairs.items() if key not in gone}
        for key, (value, lease) in puts.items():
            old = pairs.get(key)
            create, version = (old.create, old.version + 1) if old else (now, 1)
            pairs[key] = Pair(value, create, now, version, lease)
        self.history[now] = pairs
        self.revision = now


def draw(model: Model, prng: Prng) -> Request:
    """A request that is valid in this state."""
    leases = sorted(model.leases)
    kind = prng.weighted(
        (
            (10, CommandKind.PUT),
            (3, CommandKind.DELETE_RANGE),
            (3, CommandKind.TXN),
            (2, CommandKind.COMPACT),
            (1, CommandKind.LEASE_GRANT),
            (1, CommandKind.LEASE_REVOKE),
        )
    )
    key, other = prng.shuffled(KEYS)[:2]
    value = (b"%d " % prng.below(1_000_000)) * prng.pick((1, 8, 120))
    lease = prng.pick(leases) if leases and prng.chance(1, 3) else 0
    lowest = max(model.compacted + 1, 1)
    if kind is CommandKind.COMPACT and lowest <= model.revision:
        # Often at the newest revision: what a delete left there must not take it along.
        at = model.revision if prng.chance(1, 2) else prng.between(lowest, model.revision)
        return Request(kind, number=at)
    if kind is CommandKind.LEASE_GRANT:
        return Request(kind, number=prng.between(1, 1 << 40))
    if kind is CommandKind.LEASE_REVOKE and leases:
        return Request(kind, number=prng.pick(leases))
    if kind is CommandKind.DELETE_RANGE:
        return Request(kind, key, other=max(key, other) if prng.chance(1, 4) else b"")
    if kind is CommandKind.TXN:
        return Request(kind, key, value, lease, other)
    return Request(CommandKind.PUT, key, value, lease)


def pairs_of(view: View, revision: int) -> Pairs:
    """What the product says there was at a revision."""
    first, last = _EVERYTHING
    answer = run(view.range(rpc_pb2.RangeRequest(key=first, range_end=last, revision=revision)))
    found: list[kv_pb2.KeyValue] = list(rpc_pb2.RangeResponse.FromString(answer.body).kvs)
    return {
        kv.key: Pair(kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
        for kv in found
    }
