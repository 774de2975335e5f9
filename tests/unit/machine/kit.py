"""A machine to play with: commands in, results out, on either kind of store."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from kvstore.machine import ApplyBatch, CommandKind, Machine, MachineConfig, Result, encode, run
from kvstore.pb.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)
from kvstore.storage.store import Store
from raft.types import ConfChange, Entry, EntryKind

__all__ = ("Bench", "finish", "tiny_slices")

KINDS = {
    PutRequest: CommandKind.PUT,
    DeleteRangeRequest: CommandKind.DELETE_RANGE,
    TxnRequest: CommandKind.TXN,
    CompactionRequest: CommandKind.COMPACT,
    LeaseGrantRequest: CommandKind.LEASE_GRANT,
    LeaseRevokeRequest: CommandKind.LEASE_REVOKE,
}


def finish(batch: ApplyBatch, max_ops: int = 512) -> ApplyBatch:
    """Steps a batch to its end."""
    while not batch.step(max_ops):
        pass
    return batch


_TINY = {
    "mvcc.STALE_RUN": 1,
    "range_cache.RANGE_CACHE_KEYS": 1,
    "ranges.SLICE_RECORDS": 2,
    "ranges.SLICE_VALUES": 2,
    "txn.SLICE_OPERATIONS": 1,
    "txn.SLICE_VALUES": 1,
    "draft.SLICE_DELETES": 1,
    "leases.SLICE_DELETES": 1,
    "batch.SLICE_BATCH": 1,
    "leases.SLICE_RECORDS": 1,
    "hashing.SLICE_RECORDS": 1,
    "hashing.SLICE_VALUES": 1,
}


@contextmanager
def tiny_slices() -> Iterator[None]:
    """Every slice a record or two long, so that small histories cross all their borders."""
    with ExitStack() as stack:
        for name, value in _TINY.items():
            stack.enter_context(patch(f"kvstore.machine.{name}", value))
        yield


class Bench:
    """A machine and a log of one term that grows by what is asked."""

    def __init__(self, store: Store, config: MachineConfig | None = None) -> None:
        self.store = store
        self.config = config
        self.machine = Machine(store, config)
        self.term = 1
        self.last: ApplyBatch | None = None

    def reopen(self) -> None:
        """A new machine on the same store, as after a restart."""
        self.machine = Machine(self.store, self.config)

    def entry(self, request: Any, request_id: int = 1, kind: CommandKind | None = None) -> Entry:
        """The next log entry: of a protobuf request, of bytes (with a kind), or ConfChange."""
        index = self.machine.applied_index + 1
        if isinstance(request, ConfChange):
            return Entry(index, self.term, EntryKind.CONF_CHANGE, request.encode())
        payload = request if isinstance(request, bytes) else request.SerializeToString()
        data = encode(kind or KINDS[type(request)], request_id, payload)
        return Entry(index, self.term, EntryKind.NORMAL, data)

    def apply(
        self,
        request: Any,
        kind: CommandKind | None = None,
        *,
        waiting: Container[int] | None = None,
    ) -> Result:
        """Applies one request as a batch of its own; the batch stays in `last`."""
        self.last = finish(self.machine.begin([self.entry(request, 1, kind)], waiting))
        return self.last.results[0]

    def apply_all(self, requests: Iterable[Any], max_ops: int = 512) -> list[Result]:
        """Applies requests as one batch."""
        entries = []
        for offset, request in enumerate(requests):
            entry = self.entry(request, offset + 1)
            entries.append(entry._replace(index=entry.index + offset))
        self.last = finish(self.machine.begin(entries), max_ops)
        return self.last.results

    def put(self, key: bytes, value: bytes = b"", **fields: Any) -> Result:
        return self.apply(PutRequest(key=key, value=value, **fields))

    def delete(self, key: bytes, range_end: bytes = b"", **fields: Any) -> Result:
        return self.apply(DeleteRangeRequest(key=key, range_end=range_end, **fields))

    def txn(self, request: TxnRequest) -> TxnResponse:
        """Applies a transaction that must succeed; its response carries no header."""
        result = self.apply(request)
        assert result.error is None, result.error
        return TxnResponse.FromString(result.body)

    def compact(self, revision: int) -> Result:
        return self.apply(CompactionRequest(revision=revision))

    def sweep(self, max_revisions: int = 500) -> None:
        while not self.machine.sweep(max_revisions):
            pass

    def range(self, key: bytes, range_end: bytes = b"", **fields: Any) -> RangeResponse:
        """Reads the committed state; the response carries no header."""
        with self.machine.view() as view:
            request = RangeRequest(key=key, range_end=range_end, **fields)
            return RangeResponse.FromString(run(view.range(request)).body)

    def pairs(self, revision: int = 0) -> dict[bytes, bytes]:
        """Every key and value at a revision."""
        answer = self.range(b"\0", b"\0", revision=revision)
        return {kv.key: kv.value for kv in answer.kvs}

    def hash_kv(self, revision: int = 0) -> int:
        with self.machine.view() as view:
            return run(view.hash_kv(revision)).hash

    def hash(self) -> int:
        with self.machine.view() as view:
            return run(view.hash())
