"""Transactions: comparisons written as Python comparisons, operations, and the builder.

    Txn().when(Version("k") == 0).then(Put("k", "v")).otherwise(Get("k"))

A `Txn` is itself an operation, so transactions nest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, Self, TypeVar

from kvstore.client.call import Effect, Method, Unary
from kvstore.client.keys import Key, span
from kvstore.client.requests import delete_request, put_request, range_request
from kvstore.client.values import SortOrder, SortTarget, TxnResult, txn_result
from kvstore.pb import rpc_pb2 as pb

__all__ = (
    "Compare",
    "CreateRevision",
    "Delete",
    "Get",
    "LeaseOf",
    "ModRevision",
    "Op",
    "Put",
    "Txn",
    "Value",
    "Version",
)

_TXN = Method("/etcdserverpb.KV/Txn", pb.TxnResponse)

V = TypeVar("V")


class Compare:
    """A condition of a transaction; made by comparing a subject such as `Version("k")`."""

    __slots__ = ("message",)

    def __init__(self, message: pb.Compare) -> None:
        self.message = message

    def __bool__(self) -> bool:
        raise TypeError("a Compare is decided by the server; pass it to Txn.when(...)")


class _Subject(Generic[V]):
    """A property of a key, or of every key of a range (then all of them must satisfy it)."""

    __slots__ = ("_end", "_key")
    _target = pb.Compare.VERSION
    _field = ""

    def __init__(
        self, key: Key, *, prefix: bool = False, from_key: bool = False, range_end: Key = b""
    ) -> None:
        self._key, self._end = span(key, prefix=prefix, from_key=from_key, range_end=range_end)

    def _compare(self, result: pb.Compare.CompareResult, operand: object) -> Compare:
        if isinstance(operand, str):
            operand = operand.encode()
        fields: dict[str, Any] = {self._field: operand}
        return Compare(
            pb.Compare(
                result=result,
                target=self._target,
                key=self._key,
                range_end=self._end,
                **fields,
            )
        )

    def __eq__(self, operand: V) -> Compare:  # type: ignore[override]
        return self._compare(pb.Compare.EQUAL, operand)

    def __ne__(self, operand: V) -> Compare:  # type: ignore[override]
        return self._compare(pb.Compare.NOT_EQUAL, operand)

    def __gt__(self, operand: V) -> Compare:
        return self._compare(pb.Compare.GREATER, operand)

    def __lt__(self, operand: V) -> Compare:
        return self._compare(pb.Compare.LESS, operand)

    __hash__ = None  # type: ignore[assignment]  # equality makes a condition, not a truth value


class Version(_Subject[int]):
    """Number of puts since the key was created; 0 = there is no such key."""

    __slots__ = ()
    _target, _field = pb.Compare.VERSION, "version"


class CreateRevision(_Subject[int]):
    """Revision that created the key; 0 = there is no such key."""

    __slots__ = ()
    _target, _field = pb.Compare.CREATE, "create_revision"


class ModRevision(_Subject[int]):
    """Revision of the key's newest put; 0 = there is no such key."""

    __slots__ = ()
    _target, _field = pb.Compare.MOD, "mod_revision"


class Value(_Subject[Key]):
    """The value, by byte order. A key that does not exist satisfies no condition on it."""

    __slots__ = ()
    _target, _field = pb.Compare.VALUE, "value"


class LeaseOf(_Subject[int]):
    """Id of the lease the key hangs on; 0 = none."""

    __slots__ = ()
    _target, _field = pb.Compare.LEASE, "lease"


class Op:
    """An operation inside a transaction."""

    __slots__ = ("message",)

    def __init__(self, message: pb.RequestOp) -> None:
        self.message = message


class Put(Op):
    """Write a key; options as `Client.put`."""

    __slots__ = ()

    def __init__(
        self,
        key: Key,
        value: Key = b"",
        *,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> None:
        request = put_request(
            key,
            value,
            lease=lease,
            prev_kv=prev_kv,
            ignore_value=ignore_value,
            ignore_lease=ignore_lease,
        )
        super().__init__(pb.RequestOp(request_put=request))


class Get(Op):
    """Read a key or a range; options as `Client.range`."""

    __slots__ = ()

    def __init__(
        self,
        key: Key,
        *,
        prefix: bool = False,
        from_key: bool = False,
        range_end: Key = b"",
        limit: int = 0,
        revision: int = 0,
        sort_order: SortOrder = SortOrder.NONE,
        sort_target: SortTarget = SortTarget.KEY,
        serializable: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        min_mod_revision: int = 0,
        max_mod_revision: int = 0,
        min_create_revision: int = 0,
        max_create_revision: int = 0,
    ) -> None:
        request = range_request(
            key,
            prefix=prefix,
            from_key=from_key,
            range_end=range_end,
            limit=limit,
            revision=revision,
            sort_order=sort_order,
            sort_target=sort_target,
            serializable=serializable,
            keys_only=keys_only,
            count_only=count_only,
            min_mod_revision=min_mod_revision,
            max_mod_revision=max_mod_revision,
            min_create_revision=min_create_revision,
            max_create_revision=max_create_revision,
        )
        super().__init__(pb.RequestOp(request_range=request))


class Delete(Op):
    """Delete a key or a range; options as `Client.delete`."""

    __slots__ = ()

    def __init__(
        self,
        key: Key,
        *,
        prefix: bool = False,
        from_key: bool = False,
        range_end: Key = b"",
        prev_kv: bool = False,
    ) -> None:
        request = delete_request(
            key, prefix=prefix, from_key=from_key, range_end=range_end, prev_kv=prev_kv
        )
        super().__init__(pb.RequestOp(request_delete_range=request))


class Txn:
    """If all conditions hold, do one list of operations, else the other; all in one revision.

    Each of `when`, `then` and `otherwise` adds to what was given before and returns the builder.
    """

    def __init__(self) -> None:
        self._request = pb.TxnRequest()

    def when(self, *conditions: Compare | Iterable[Compare]) -> Self:
        """Add conditions, one by one or as lists (a lock's `guard()`); none at all is true."""
        for each in conditions:
            several = (each,) if isinstance(each, Compare) else each
            self._request.compare.extend(one.message for one in several)
        return self

    def then(self, *operations: Op | Txn) -> Self:
        """Add operations for the case that every condition holds."""
        self._request.success.extend(map(_operation, operations))
        return self

    def otherwise(self, *operations: Op | Txn) -> Self:
        """Add operations for the case that some condition fails."""
        self._request.failure.extend(map(_operation, operations))
        return self

    def build(self, timeout: float | None = None) -> Unary[TxnResult]:
        """The call. A transaction that can only read is repeated like a read."""
        request = self._request
        effect = Effect.READ if _reads_only(request) else Effect.WRITE
        return Unary(_TXN, request, effect, txn_result, timeout)

    @property
    def request(self) -> pb.TxnRequest:
        """The protobuf request as built so far."""
        return self._request


def _operation(operation: Op | Txn) -> pb.RequestOp:
    if isinstance(operation, Txn):
        return pb.RequestOp(request_txn=operation.request)
    return operation.message


def _reads_only(request: pb.TxnRequest) -> bool:
    for branch in (request.success, request.failure):
        for op in branch:
            kind = op.WhichOneof("request")
            if kind == "request_txn":
                if not _reads_only(op.request_txn):
                    return False
            elif kind != "request_range":
                return False
    return True
