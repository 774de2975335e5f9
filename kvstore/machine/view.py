"""Reading one committed state: ranges, read-only transactions, history and hashes.

A view pins a read transaction, so what it answers does not move while batches are applied; pinned
pages cannot be reused, so a view lives for seconds at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import TracebackType

from kvstore.machine.hashing import HashAnswer, hash_kv, hash_state
from kvstore.machine.jobs import Job
from kvstore.machine.journal import JournalRecord, journal_at, journal_oldest, journal_scan
from kvstore.machine.leases import attached_keys
from kvstore.machine.mvcc import newest, stored
from kvstore.machine.range_cache import RangeCache
from kvstore.machine.ranges import CountCache, RangeAnswer, RangeReader
from kvstore.machine.results import DELETE, PUT, Change
from kvstore.machine.tables import REVISIONS, revision_key
from kvstore.machine.txn import read_txn
from kvstore.machine.wire import tombstone_event
from kvstore.pb.kv_pb2 import KeyValue
from kvstore.pb.rpc_pb2 import RangeRequest, TxnRequest
from kvstore.storage.store import ReadTxn

__all__ = ("View",)

_REVISION_KEY_BYTES = 16


class View:
    """The state as of `revision`. A context manager; close it as soon as the answer is made."""

    __slots__ = ("_reader", "_txn", "compact_revision", "revision")

    def __init__(
        self,
        txn: ReadTxn,
        revision: int,
        compact_revision: int,
        counts: CountCache,
        cache: RangeCache,
    ) -> None:
        self._txn = txn
        self._reader = RangeReader(txn, revision, compact_revision, counts, cache)
        self.revision = revision
        self.compact_revision = compact_revision
        """-1 when never compacted."""

    def __enter__(self) -> View:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the pinned state. Idempotent."""
        self._txn.close()

    def range(self, request: RangeRequest) -> Job[RangeAnswer]:
        """Answers a range. Raises COMPACTED or FUTURE_REVISION."""
        return self._reader.range(request)

    def read_txn(self, request: TxnRequest) -> Job[bytes]:
        """Answers a transaction of ranges only: a TxnResponse without header.

        Raises COMPACTED or FUTURE_REVISION.
        """
        return read_txn(self._reader, request)

    def hash_kv(self, revision: int) -> Job[HashAnswer]:
        """etcd's HashKV at `revision`, 0 for the newest. Raises COMPACTED or FUTURE_REVISION."""
        return hash_kv(self._txn, self.revision, self.compact_revision, revision)

    def hash(self) -> Job[int]:
        """A CRC-32C over everything applied; equal on members at equal applied index and term."""
        return hash_state(self._txn, self.compact_revision)

    def lease_keys(self, lease_id: int) -> Job[list[bytes]]:
        """The keys attached to a lease, in key order; none for an unknown lease."""
        return attached_keys(self._txn, lease_id)

    def previous(self, key: bytes, revision: int) -> bytes | None:
        """The encoded pair of `key` at `revision`.

        None if it did not exist there, or if that can no longer be known (compacted).
        """
        if revision < self.compact_revision:
            return None
        version = newest(self._txn, key, revision)
        return stored(self._txn, version) if version is not None else None

    def changes(self, start_revision: int, stop_revision: int) -> Iterator[Change]:
        """The events of start_revision <= revision < stop_revision, ascending, read as drawn.

        The caller sees to start_revision >= compact_revision (below it, history has gaps) and
        draws a bounded number per turn.
        """
        start = revision_key(max(start_revision, 0), 0)
        stop = revision_key(max(stop_revision, 0), 0)
        for at, stored_kv in self._txn.scan(REVISIONS, start, stop):
            main, sub = int.from_bytes(at[:8]), int.from_bytes(at[8:_REVISION_KEY_BYTES])
            kv = KeyValue.FromString(stored_kv)
            if len(at) == _REVISION_KEY_BYTES:
                yield Change(main, sub, PUT, kv.key, stored_kv, kv.version == 1, kv.lease)
            else:
                event = tombstone_event(kv.key, main)
                yield Change(main, sub, DELETE, kv.key, event, False, 0)

    # The journal (see `journal`): it reaches back further than `compact_revision`.

    def journal_since(self, revision: int, limit: int) -> list[JournalRecord]:
        """The first `limit` records of `revision` and later, ascending."""
        return list(islice(self.journal(revision), limit))

    def journal(
        self, start_revision: int, stop_revision: int | None = None, *, newest_first: bool = False
    ) -> Iterator[JournalRecord]:
        """The records of start_revision <= revision < stop_revision, read as they are drawn.

        The caller draws a bounded number per turn.
        """
        return journal_scan(self._txn, start_revision, stop_revision, newest_first=newest_first)

    def journal_at(self, revision: int, sub: int) -> JournalRecord | None:
        """The record of one change; None if it is not kept, or was of another key."""
        return journal_at(self._txn, revision, sub)

    def journal_oldest(self) -> JournalRecord | None:
        """Where the journal begins; None while it is empty."""
        return journal_oldest(self._txn)
