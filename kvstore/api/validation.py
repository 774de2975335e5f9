"""Checks of a request before it costs anything: no raft, no reads; etcd's order and messages."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError, Message

from kvstore.api.facade import Node
from kvstore.api.limits import CHECKED_AT_ONCE, TXN_LEVELS_MAX
from kvstore.api.nesting import levels
from kvstore.errors import (
    DUPLICATE_KEY,
    EMPTY_KEY,
    INVALID_SORT_OPTION,
    KEY_NOT_FOUND,
    LEASE_PROVIDED,
    MEMBER_BAD_URLS,
    NO_SPACE,
    REQUEST_TOO_LARGE,
    TOO_MANY_OPS,
    VALUE_PROVIDED,
    Code,
    EtcdError,
)
from kvstore.pb import rpc_pb2

__all__ = (
    "LEASE_COST_BYTES",
    "Steps",
    "TXN_TOO_DEEP",
    "check_delete",
    "check_peer_urls",
    "check_put",
    "check_quota",
    "check_range",
    "check_size",
    "check_txn",
    "is_read_only",
    "is_serializable",
    "parse",
    "parse_streamed",
    "parse_txn",
    "put_cost",
    "stream_order_error",
    "txn_cost",
)

M = TypeVar("M", bound=Message)
T = TypeVar("T")

Steps = Generator[None, None, T]
"""A check in slices: yields where others may have their turn, then returns or raises EtcdError."""

TXN_TOO_DEEP = EtcdError(
    Code.INVALID_ARGUMENT,
    f"kvstore: transactions are nested in more than {TXN_LEVELS_MAX} levels",
)

LEASE_COST_BYTES = 64
"""What a lease is taken to add to the database, for the quota."""

_KEY_OVERHEAD_BYTES = 256
_SORT_ORDERS = len(rpc_pb2.RangeRequest.SortOrder.keys())
_SORT_TARGETS = len(rpc_pb2.RangeRequest.SortTarget.keys())
_KEY = rpc_pb2.RangeRequest.KEY
_DESCEND = rpc_pb2.RangeRequest.DESCEND


def parse(kind: type[M], payload: bytes) -> M:
    """Decodes a request; undecodable bytes are answered as grpc-go answers them."""
    try:
        message: M = kind.FromString(payload)
    except DecodeError as error:
        raise EtcdError(Code.INTERNAL, f"grpc: error unmarshalling request: {error}") from None
    return message


def parse_txn(payload: bytes) -> rpc_pb2.TxnRequest:
    """`parse` for transactions, of which one that only nests too deep is told apart."""
    try:
        return parse(rpc_pb2.TxnRequest, payload)
    except EtcdError:
        if levels(payload) > TXN_LEVELS_MAX:
            raise TXN_TOO_DEEP from None
        raise


def parse_streamed(kind: type[M], payload: bytes) -> M:
    """`parse` for a message of a stream, where grpc-go words the error differently."""
    try:
        message: M = kind.FromString(payload)
    except DecodeError as error:
        raise EtcdError(
            Code.INTERNAL, f"grpc: failed to unmarshal the received message: {error}"
        ) from None
    return message


def check_quota(node: Node, cost_bytes: int) -> None:
    """Refuses what would add data beyond the quota; what adds none always passes.

    Comes before the request's own checks, as in etcd. The node raises the NOSPACE alarm.
    """
    if cost_bytes and node.over_quota(cost_bytes):
        raise NO_SPACE


def check_size(payload: bytes, max_request_bytes: int) -> None:
    """Refuses a request that is larger than a log entry may be."""
    if len(payload) > max_request_bytes:
        raise REQUEST_TOO_LARGE


def check_range(request: rpc_pb2.RangeRequest) -> None:
    """Range: a key, and sort options within their enums."""
    if not request.key:
        raise EMPTY_KEY
    if not (0 <= request.sort_order < _SORT_ORDERS and 0 <= request.sort_target < _SORT_TARGETS):
        raise INVALID_SORT_OPTION


def stream_order_error(request: rpc_pb2.RangeRequest) -> EtcdError | None:
    """Why RangeStream cannot serve this request, None when it can."""
    if request.sort_target != _KEY or request.sort_order == _DESCEND:
        return EtcdError(Code.UNIMPLEMENTED, "RangeStream does not support custom sort orders")
    if (
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    ):
        return EtcdError(Code.UNIMPLEMENTED, "RangeStream does not support revision filters")
    return None


def check_put(request: rpc_pb2.PutRequest) -> None:
    """Put: a key, and nothing given that is to be ignored."""
    if not request.key:
        raise EMPTY_KEY
    if request.ignore_value and request.value:
        raise VALUE_PROVIDED
    if request.ignore_lease and request.lease:
        raise LEASE_PROVIDED


def check_delete(request: rpc_pb2.DeleteRangeRequest) -> None:
    """DeleteRange: a key."""
    if not request.key:
        raise EMPTY_KEY


class _Pace:
    """Counts operations: a request of a megabyte holds a hundred thousand nested ones."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = CHECKED_AT_ONCE

    def full(self) -> bool:
        """Counts one; whether it is time to yield."""
        self._left -= 1
        if self._left:
            return False
        self._left = CHECKED_AT_ONCE
        return True


def check_txn(request: rpc_pb2.TxnRequest, max_ops: int) -> Steps[None]:
    """Txn: number of operations, each operation by itself, then keys changed twice."""
    pace = _Pace()
    yield from _check_ops(request, max_ops, 0, pace)
    for branch in (request.success, request.failure):
        if _changes_twice_possible(branch):
            yield from _changes(branch, pace)


def _check_ops(request: rpc_pb2.TxnRequest, budget: int, level: int, pace: _Pace) -> Steps[None]:
    """Nested transactions get what their parent's own widest list leaves of the budget."""
    if level > TXN_LEVELS_MAX:
        raise TXN_TOO_DEEP
    used = max(len(request.compare), len(request.success), len(request.failure))
    if used > budget:
        raise TOO_MANY_OPS
    for compare in request.compare:
        if not compare.key:
            raise EMPTY_KEY
    for branch in (request.success, request.failure):
        for op in branch:
            if pace.full():
                yield
            which = op.WhichOneof("request")
            if which == "request_put":
                check_put(op.request_put)
            elif which == "request_range":
                check_range(op.request_range)
            elif which == "request_delete_range":
                check_delete(op.request_delete_range)
            elif which == "request_txn":
                yield from _check_ops(op.request_txn, budget - used, level + 1, pace)
            else:
                raise KEY_NOT_FOUND


class _Spans:
    """A set of keys made of half-open intervals, kept sorted and apart from one another."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[bytes] = []
        self._ends: list[bytes] = []

    def add(self, start: bytes, end: bytes) -> None:
        """Adds [start, end), merging what it touches; an empty interval adds nothing."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def update(self, other: _Spans, pace: _Pace) -> Steps[None]:
        """Adds every interval of another set, which is used up."""
        if len(other._starts) > len(self._starts):
            self._starts, other._starts = other._starts, self._starts
            self._ends, other._ends = other._ends, self._ends
        for start, end in zip(other._starts, other._ends, strict=True):
            if pace.full():
                yield
            self.add(start, end)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __contains__(self, key: bytes) -> bool:
        place = bisect_right(self._starts, key) - 1
        return place >= 0 and key < self._ends[place]


def _changes_twice_possible(ops: Sequence[rpc_pb2.RequestOp]) -> bool:
    """Lists of one plain operation are most of all transactions and need no closer look."""
    return len(ops) > 1 or any(op.HasField("request_txn") for op in ops)


def _changes(ops: Iterable[rpc_pb2.RequestOp], pace: _Pace) -> Steps[tuple[set[bytes], _Spans]]:
    """The keys that one branch puts and the ranges that it deletes; refuses a key changed twice.

    Deletes may overlap one another; a put may overlap neither another put nor a delete. The two
    branches of a nested transaction exclude each other. A nested put is held against the deletes
    of its own level and of nested siblings before it, but not after it: etcd's quirk, kept.
    """
    deletes = _Spans()
    nested: list[rpc_pb2.TxnRequest] = []
    own: list[bytes] = []
    for op in ops:
        if pace.full():
            yield
        which = op.WhichOneof("request")
        if which == "request_delete_range":
            request = op.request_delete_range
            deletes.add(request.key, request.range_end or request.key + b"\x00")
        elif which == "request_txn":
            nested.append(op.request_txn)
        elif which == "request_put":
            own.append(op.request_put.key)
    puts: set[bytes] = set()
    for txn in nested:
        inner, success_deletes = yield from _changes(txn.success, pace)
        failure_puts, failure_deletes = yield from _changes(txn.failure, pace)
        inner = _united(inner, failure_puts)
        if not puts.isdisjoint(inner):
            raise DUPLICATE_KEY
        if deletes:
            for key in inner:
                if pace.full():
                    yield
                if key in deletes:
                    raise DUPLICATE_KEY
        puts = _united(puts, inner)
        yield from deletes.update(success_deletes, pace)
        yield from deletes.update(failure_deletes, pace)
    for key in own:
        if key in puts or key in deletes:
            raise DUPLICATE_KEY
        puts.add(key)
    return puts, deletes


def _united(one: set[bytes], other: set[bytes]) -> set[bytes]:
    """Both sets in the larger of the two: the same keys are not copied at every level."""
    if len(one) < len(other):
        one, other = other, one
    one |= other
    return one


def is_read_only(request: rpc_pb2.TxnRequest) -> bool:
    """Only ranges in both lists; a nested transaction counts as a write whatever is in it."""
    return all(
        op.HasField("request_range") for ops in (request.success, request.failure) for op in ops
    )


def is_serializable(request: rpc_pb2.TxnRequest) -> bool:
    """Every range asks for a local read; so does, oddly, a transaction without any operation."""
    return all(
        op.request_range.serializable for ops in (request.success, request.failure) for op in ops
    )


def put_cost(request: rpc_pb2.PutRequest) -> int:
    """Bytes that a put is taken to add to the database."""
    return _KEY_OVERHEAD_BYTES + len(request.key) + len(request.value)


def txn_cost(request: rpc_pb2.TxnRequest) -> Steps[int]:
    """Bytes that the dearer branch adds; 0 when neither puts anything."""
    return (yield from _txn_cost(request, _Pace()))


def _txn_cost(request: rpc_pb2.TxnRequest, pace: _Pace) -> Steps[int]:
    costs = []
    for branch in (request.success, request.failure):
        cost = 0
        for op in branch:
            if pace.full():
                yield
            which = op.WhichOneof("request")
            if which == "request_put":
                cost += put_cost(op.request_put)
            elif which == "request_txn":
                cost += yield from _txn_cost(op.request_txn, pace)
        costs.append(cost)
    return max(costs)


def check_peer_urls(urls: Sequence[str]) -> list[str]:
    """A new member's peer URLs, trimmed and sorted; refuses an empty list and unusable ones."""
    if not urls:
        raise MEMBER_BAD_URLS
    trimmed = sorted(url.strip() for url in urls)
    for url in trimmed:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise MEMBER_BAD_URLS from None
        if parts.scheme in ("unix", "unixs"):
            continue
        if parts.scheme not in ("http", "https") or port is None or parts.path:
            raise MEMBER_BAD_URLS
    return trimmed
