"""Transactions: guards, checks before the first write, then the operations of the taken path.

Order, as etcd's: every guard on the path (nested ones too) is judged against the state before the
transaction; then the puts of the path are checked (key for ignore_*, lease), then its ranges
(revision). Only then is anything written, so what fails has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import NamedTuple, TypeVar

from kvstore import errors
from kvstore.machine.draft import Draft
from kvstore.machine.jobs import Job
from kvstore.machine.limits import SLICE_OPERATIONS, SLICE_VALUES
from kvstore.machine.mvcc import fetch, newest, stored
from kvstore.machine.ranges import RangeReader, select
from kvstore.machine.tables import Version, range_bounds
from kvstore.machine.wire import bytes_field, int_field, varint
from kvstore.pb.kv_pb2 import KeyValue
from kvstore.pb.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RequestOp,
    TxnRequest,
)

__all__ = ("TxnPath", "choose_path", "delete_range", "put", "read_txn", "write_txn")

_HEADER = 1
_PREV_KV = b"\x12"
_PREV_KVS = b"\x1a"
_DELETED_FIELD = 2
_SUCCEEDED = b"\x10\x01"
_RESPONSES_FIELD = 3
_REVISION_FIELD = 3
_OP_FIELD = {
    "request_range": 1,
    "request_put": 2,
    "request_delete_range": 3,
    "request_txn": 4,
}
_ABSENT = Version(0, 0, 0, 0, 0)
_Operand = TypeVar("_Operand", int, bytes)


class TxnPath(NamedTuple):
    """Which branch a transaction takes, and the paths of the transactions nested in it."""

    succeeded: bool
    ops: Sequence[RequestOp]
    nested: list[TxnPath]
    """One for each nested transaction among `ops`, in order."""


class _Pace:
    """Counts operations: nested transactions may hold tens of thousands in one request."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = SLICE_OPERATIONS

    def full(self) -> bool:
        """Counts one; whether it is time to yield."""
        self._left -= 1
        if self._left:
            return False
        self._left = SLICE_OPERATIONS
        return True


def choose_path(reader: RangeReader, request: TxnRequest, pace: _Pace) -> Job[TxnPath]:
    """Judges all guards that matter, against the state of `reader`."""
    succeeded = True
    for compare in request.compare:
        if pace.full():
            yield
        holds = yield from _holds(reader, compare)
        if not holds:
            succeeded = False
            break
    ops = request.success if succeeded else request.failure
    nested = []
    for op in ops:
        if pace.full():
            yield
        if op.WhichOneof("request") == "request_txn":
            path = yield from choose_path(reader, op.request_txn, pace)
            nested.append(path)
    return TxnPath(succeeded, ops, nested)


def _holds(reader: RangeReader, compare: Compare) -> Job[bool]:
    """Whether one guard holds: for every key of its range, or for the absence of any."""
    txn, revision = reader.txn, reader.revision
    by_value = compare.target == Compare.VALUE
    if not compare.range_end:
        version = newest(txn, compare.key, revision)
        if version is None:
            return _absent_holds(compare)
        return _version_holds(compare, version, _value(stored(txn, version)) if by_value else b"")
    found, _ = yield from select(txn, range_bounds(compare.key, compare.range_end), revision, None)
    if not found:
        return _absent_holds(compare)
    for at in range(0, len(found), SLICE_VALUES):
        if at:
            yield
        some = found[at : at + SLICE_VALUES]
        values = map(_value, fetch(txn, some)) if by_value else repeat(b"")
        for item, value in zip(some, values, strict=False):
            if not _version_holds(compare, Version.read(*item), value):
                return False
    return True


def _value(kv: bytes) -> bytes:
    value: bytes = KeyValue.FromString(kv).value
    return value


def _absent_holds(compare: Compare) -> bool:
    # A value cannot be compared with no value: on the wire, none and empty look the same.
    return compare.target != Compare.VALUE and _version_holds(compare, _ABSENT, b"")


def _version_holds(compare: Compare, version: Version, value: bytes) -> bool:
    """Whether one guard holds for one key; an operand that is not given is zero or empty."""
    match compare.target:
        case Compare.VALUE:
            return _compares(compare.result, value, compare.value)
        case Compare.VERSION:
            return _compares(compare.result, version.version, compare.version)
        case Compare.CREATE:
            return _compares(compare.result, version.create, compare.create_revision)
        case Compare.MOD:
            return _compares(compare.result, version.main, compare.mod_revision)
        case Compare.LEASE:
            return _compares(compare.result, version.lease, compare.lease)
        case _:
            # etcd takes an unknown target for "equal" …
            return _compares(compare.result, 0, 0)


def _compares(result: int, actual: _Operand, wanted: _Operand) -> bool:
    match result:
        case Compare.EQUAL:
            return actual == wanted
        case Compare.NOT_EQUAL:
            return actual != wanted
        case Compare.GREATER:
            return actual > wanted
        case Compare.LESS:
            return actual < wanted
        case _:
            # … and an unknown result for "true".
            return True


def _ops_on(path: TxnPath) -> Iterator[RequestOp]:
    """Every operation that a path will run, nested transactions replaced by theirs."""
    nested = iter(path.nested)
    for op in path.ops:
        if op.WhichOneof("request") == "request_txn":
            yield from _ops_on(next(nested))
        else:
            yield op


def _check_puts(draft: Draft, path: TxnPath, pace: _Pace) -> Job[None]:
    for op in _ops_on(path):
        if pace.full():
            yield
        if op.WhichOneof("request") == "request_put":
            put = op.request_put
            if (put.ignore_value or put.ignore_lease) and draft.newest(put.key) is None:
                raise errors.KEY_NOT_FOUND
            if put.lease and draft.lease(put.lease) is None:
                raise errors.LEASE_NOT_FOUND


def _check_ranges(reader: RangeReader, path: TxnPath, pace: _Pace) -> Job[None]:
    for op in _ops_on(path):
        if pace.full():
            yield
        if op.WhichOneof("request") == "request_range":
            revision = op.request_range.revision
            if revision > reader.revision:
                raise errors.FUTURE_REVISION
            # etcd compares a negative revision too, though a plain range takes it for "latest".
            if revision and revision < reader.compact_revision:
                raise errors.COMPACTED


def write_txn(draft: Draft, request: TxnRequest) -> Job[bytes]:
    """Applies a transaction; returns its TxnResponse without header."""
    reader = draft.reader()
    pace = _Pace()
    path = yield from choose_path(reader, request, pace)
    yield from _check_puts(draft, path, pace)
    yield from _check_ranges(reader, path, pace)
    return (yield from _execute(draft, path, pace))


def read_txn(reader: RangeReader, request: TxnRequest) -> Job[bytes]:
    """Answers a transaction that only reads; returns its TxnResponse without header."""
    pace = _Pace()
    path = yield from choose_path(reader, request, pace)
    yield from _check_ranges(reader, path, pace)
    parts = [_SUCCEEDED if path.succeeded else b""]
    for op in path.ops:
        assert op.WhichOneof("request") == "request_range", "a read-only transaction writes"
        answer = yield from reader.range(op.request_range)
        parts.append(_response(1, _nested_header(reader.revision) + answer.body))
    return b"".join(parts)


def _execute(draft: Draft, path: TxnPath, pace: _Pace) -> Job[bytes]:
    wanted = draft.wanted
    parts = [_SUCCEEDED if path.succeeded else b""]
    nested = iter(path.nested)
    for op in path.ops:
        if pace.full():
            yield
        kind = op.WhichOneof("request")
        header = b""
        body = b""
        if kind == "request_range":
            if wanted:
                reader = draft.reader()
                answer = yield from reader.range(op.request_range)
                body = answer.body
        elif kind == "request_put":
            body = put(draft, op.request_put, draft.newest(op.request_put.key))
        elif kind == "request_delete_range":
            body = yield from delete_range(draft, op.request_delete_range)
        elif kind == "request_txn":
            body = yield from _execute(draft, next(nested), pace)
            header = _EMPTY_HEADER
        if wanted:
            header = header or _nested_header(draft.reading_revision)
            parts.append(_response(_OP_FIELD[kind], header + body) if kind else _NO_RESPONSE)
    return b"".join(parts) if wanted else b""


_EMPTY_HEADER = bytes_field(_HEADER, b"")
"""What etcd puts in front of a nested transaction's response."""
_NO_RESPONSE = bytes_field(_RESPONSES_FIELD, b"")


def _nested_header(revision: int) -> bytes:
    return bytes_field(_HEADER, int_field(_REVISION_FIELD, revision))


def _response(field: int, body: bytes) -> bytes:
    return bytes_field(_RESPONSES_FIELD, bytes_field(field, body))


def put(draft: Draft, request: PutRequest, before: Version | None) -> bytes:
    """Writes one pair that has passed the checks; returns its PutResponse without header.

    `before` is the key's live version.
    """
    value = request.value
    lease = request.lease
    body = b""
    if before is not None:
        if request.ignore_value:
            value = KeyValue.FromString(draft.stored(before)).value
        if request.ignore_lease:
            lease = before.lease
        if request.prev_kv and draft.wanted:
            kv = draft.stored(before)
            body = b"".join((_PREV_KV, varint(len(kv)), kv))
    draft.put(request.key, value, lease, before)
    return body


def delete_range(draft: Draft, request: DeleteRangeRequest) -> Job[bytes]:
    """Deletes a range; returns its DeleteRangeResponse without header."""
    previous: list[bytes] | None = [] if request.prev_kv and draft.wanted else None
    deleted = yield from draft.delete_range(request.key, request.range_end, previous)
    parts = [int_field(_DELETED_FIELD, deleted)]
    for kv in previous or ():
        parts += (_PREV_KVS, varint(len(kv)), kv)
    return b"".join(parts)
