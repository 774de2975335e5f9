"""What a state machine should do, written as plainly as possible: a dict for every revision.

Nothing here is shared with the machine but the messages and the errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.machine.command import ANY_REVISION, BatchAction, BatchItem
from kvstore.pb.kv_pb2 import KeyValue
from kvstore.pb.rpc_pb2 import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)

__all__ = ("Event", "Model")

Pairs = dict[bytes, KeyValue]


class Event(NamedTuple):
    """What a watcher would see."""

    revision: int
    sub: int
    deleted: bool
    kv: bytes


def _covers(key: bytes, low: bytes, end: bytes) -> bool:
    if not end:
        return key == low
    return key >= low and (end == b"\0" or key < end)


@dataclass
class Model:
    """The whole history; `states[r]` is the state at revision r."""

    states: list[Pairs] = field(default_factory=lambda: [{}, {}])
    events: list[Event] = field(default_factory=list)
    compacted: int = -1
    leases: dict[int, int] = field(default_factory=dict)
    _now: Pairs = field(default_factory=dict)
    _changes: int = 0

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    def apply(self, request: Any) -> Any:
        """The response without header, or the error."""
        self._now = dict(self.states[-1])
        self._changes = 0
        try:
            answer = self._do(request)
        except EtcdError as error:
            assert not self._changes
            return error
        if self._changes:
            self.states.append(self._now)
        return answer

    def apply_batch(self, items: Iterable[BatchItem], *, full: bool = False) -> list[bool]:
        """Which items of a batch applied; all that do share one revision. `full`: no space."""
        self._now = dict(self.states[-1])
        self._changes = 0
        applied = [self._batch_item(item, full) for item in items]
        if self._changes:
            self.states.append(self._now)
        return applied

    def _batch_item(self, item: BatchItem, full: bool) -> bool:
        before = self._now.get(item.key)
        actual = before.mod_revision if before is not None else 0
        if item.expected_mod not in (ANY_REVISION, actual):
            return False
        old = before.lease if before is not None else 0
        if item.action == BatchAction.DELETE:
            if before is None:
                return False
            self._remove(item.key)
        elif full:
            return False
        elif item.action == BatchAction.PUT_NEW_LEASE:
            if not item.lease or item.ttl_s < 1 or item.lease in self.leases:
                return False
            self.leases[item.lease] = item.ttl_s
            self._put(PutRequest(key=item.key, value=item.value, lease=item.lease))
        else:
            lease = old if item.action == BatchAction.PUT_KEEP else item.lease
            if lease != old and lease not in self.leases:
                return False
            self._put(PutRequest(key=item.key, value=item.value, lease=lease))
            return True
        # A lease that the registry gave ends with the last of its keys.
        if old and not any(kv.lease == old for kv in self._now.values()):
            self.leases.pop(old, None)
        return True

    def _do(self, request: Any) -> Any:
        match request:
            case PutRequest():
                if request.lease and request.lease not in self.leases:
                    raise errors.LEASE_NOT_FOUND
                if (request.ignore_value or request.ignore_lease) and request.key not in self._now:
                    raise errors.KEY_NOT_FOUND
                return self._put(request)
            case DeleteRangeRequest():
                return self._delete(request)
            case TxnRequest():
                return self._txn(request)
            case LeaseGrantRequest():
                if request.ID in self.leases:
                    raise errors.LEASE_EXISTS
                self.leases[request.ID] = max(request.TTL, 2)
                return LeaseGrantResponse(ID=request.ID, TTL=self.leases[request.ID])
            case LeaseRevokeRequest():
                if request.ID not in self.leases:
                    raise errors.LEASE_NOT_FOUND
                del self.leases[request.ID]
                for key in self.lease_keys(request.ID):
                    self._remove(key)
            case CompactionRequest():
                if request.revision <= self.compacted:
                    raise errors.COMPACTED
                if request.revision > self.revision:
                    raise errors.FUTURE_REVISION
                self.compacted = request.revision
        return None

    def lease_keys(self, lease: int) -> list[bytes]:
        state = self._now if self._changes else self.states[-1]
        return sorted(key for key, kv in state.items() if kv.lease == lease)

    def range(self, request: RangeRequest) -> RangeResponse:
        """Of committed states."""
        if request.revision > self.revision:
            raise errors.FUTURE_REVISION
        if 0 < request.revision < self.compacted:
            raise errors.COMPACTED
        at = request.revision if request.revision > 0 else self.revision
        return self._select(self.states[at], request)

    @staticmethod
    def _select(state: Pairs, request: RangeRequest) -> RangeResponse:
        pairs = [
            state[key] for key in sorted(state) if _covers(key, request.key, request.range_end)
        ]
        count = len(pairs)
        if request.count_only:
            return RangeResponse(count=count)
        bounds = ("min_mod", "max_mod", "min_create", "max_create")
        filtered = any(getattr(request, f"{bound}_revision") for bound in bounds)
        if request.sort_order == 0 and not filtered and request.limit > 0:
            del pairs[request.limit + 1 :]
        for bound in bounds:
            limit = getattr(request, f"{bound}_revision")
            name = f"{bound[4:]}_revision"
            if limit and bound.startswith("min"):
                pairs = [kv for kv in pairs if getattr(kv, name) >= limit]
            elif limit:
                pairs = [kv for kv in pairs if getattr(kv, name) <= limit]
        target = ("key", "version", "create_revision", "mod_revision", "value")[request.sort_target]
        pairs.sort(key=lambda kv: getattr(kv, target), reverse=request.sort_order == 2)
        more = 0 < request.limit < len(pairs)
        if more:
            del pairs[request.limit :]
        told = RangeResponse(kvs=pairs, more=more, count=count)
        if request.keys_only:
            for kv in told.kvs:
                kv.ClearField("value")
        return told

    def _event(self, deleted: bool, kv: KeyValue) -> None:
        encoded = kv.SerializeToString()
        self.events.append(Event(self.revision + 1, self._changes, deleted, encoded))
        self._changes += 1

    def _put(self, request: PutRequest) -> PutResponse:
        before = self._now.get(request.key)
        main = self.revision + 1
        kv = KeyValue(key=request.key, mod_revision=main, create_revision=main, version=1)
        kv.value, kv.lease = request.value, request.lease
        if before is not None:
            kv.create_revision, kv.version = before.create_revision, before.version + 1
            kv.value = before.value if request.ignore_value else kv.value
            kv.lease = before.lease if request.ignore_lease else kv.lease
        self._now[request.key] = kv
        self._event(False, kv)
        return PutResponse(prev_kv=before if request.prev_kv else None)

    def _remove(self, key: bytes) -> None:
        del self._now[key]
        self._event(True, KeyValue(key=key, mod_revision=self.revision + 1))

    def _delete(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        keys = sorted(key for key in self._now if _covers(key, request.key, request.range_end))
        previous = [self._now[key] for key in keys] if request.prev_kv else []
        for key in keys:
            self._remove(key)
        return DeleteRangeResponse(deleted=len(keys), prev_kvs=previous)

    # Transactions

    def _txn(self, request: TxnRequest) -> TxnResponse:
        # The verdicts of all guards on the path, in the order in which the path meets them.
        verdicts: list[bool] = []
        self._judge(request, verdicts)
        for check in (self._check_put, self._check_range):
            self._check(request, iter(verdicts), check)
        return self._run(request, iter(verdicts))

    def _judge(self, request: TxnRequest, verdicts: list[bool]) -> None:
        verdict = all(self._holds(compare) for compare in request.compare)
        verdicts.append(verdict)
        for op in request.success if verdict else request.failure:
            if op.HasField("request_txn"):
                self._judge(op.request_txn, verdicts)

    def _holds(self, compare: Compare) -> bool:
        keys = [key for key in self._now if _covers(key, compare.key, compare.range_end)]
        if not keys and compare.target == Compare.VALUE:
            return False
        pairs = [self._now[key] for key in keys] or [KeyValue()]
        return all(self._one_holds(compare, kv) for kv in pairs)

    @staticmethod
    def _one_holds(compare: Compare, kv: KeyValue) -> bool:
        name = ("version", "create_revision", "mod_revision", "value", "lease")[compare.target]
        actual, wanted = getattr(kv, name), getattr(compare, name)
        return (actual == wanted, actual > wanted, actual < wanted, actual != wanted)[
            compare.result
        ]

    def _check(self, request: TxnRequest, verdicts: Iterator[bool], check: Any) -> None:
        for op in request.success if next(verdicts) else request.failure:
            if op.HasField("request_txn"):
                self._check(op.request_txn, verdicts, check)
            else:
                check(op)

    def _check_put(self, op: Any) -> None:
        put = op.request_put
        if op.HasField("request_put"):
            if (put.ignore_value or put.ignore_lease) and put.key not in self._now:
                raise errors.KEY_NOT_FOUND
            if put.lease and put.lease not in self.leases:
                raise errors.LEASE_NOT_FOUND

    def _check_range(self, op: Any) -> None:
        revision = op.request_range.revision
        if revision > self.revision:
            raise errors.FUTURE_REVISION
        if revision and revision < self.compacted:
            raise errors.COMPACTED

    def _run(self, request: TxnRequest, verdicts: Iterator[bool]) -> TxnResponse:
        answer = TxnResponse(succeeded=next(verdicts))
        for op in request.success if answer.succeeded else request.failure:
            told = ResponseOp()
            if op.HasField("request_put"):
                told.response_put.CopyFrom(self._put(op.request_put))
            elif op.HasField("request_delete_range"):
                told.response_delete_range.CopyFrom(self._delete(op.request_delete_range))
            elif op.HasField("request_range"):
                ranged = op.request_range
                at = ranged.revision
                state = self.states[at] if at > 0 else self._now
                told.response_range.CopyFrom(self._select(state, ranged))
            else:
                told.response_txn.CopyFrom(self._run(op.request_txn, verdicts))
                told.response_txn.header.SetInParent()
                answer.responses.append(told)
                continue
            inner = getattr(told, str(told.WhichOneof("response")))
            inner.header.revision = self.revision + (1 if self._changes else 0)
            answer.responses.append(told)
        return answer
