"""Writes on their way through the log: ids, the pending table, and the queue before Raft.

A write gets a request id that no other write of any member ever had, waits in the queue until
there is a leader to give it to, and then in the pending table until its entry is applied here
or its time is over. After a timeout its outcome is unknown: it may still be applied.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, NamedTuple

from kvstore.errors import EtcdError
from kvstore.node.limits import (
    MAX_PENDING_WRITES,
    MAX_QUEUED_WRITE_BYTES,
    MAX_QUEUED_WRITES,
    PROPOSE_CHUNK_BYTES,
)

__all__ = ("Done", "Pending", "Proposals", "RequestIds")

Done = Callable[[Any, EtcdError | None], None]
"""Gets (value, None) or (None, error); called exactly once."""

_MASK_16 = (1 << 16) - 1
_MASK_48 = (1 << 48) - 1


class RequestIds:
    """Numbers unique over members and restarts: 16 bits of the member, 40 of the start, a counter.

    The start time in milliseconds occupies the bits above the lowest 8, so a member would have
    to write 256 times per millisecond for its whole life to run into its next start's numbers.
    """

    def __init__(self, member_id: int, start_ms: int) -> None:
        self._prefix = (member_id & _MASK_16) << 48
        self._suffix = (start_ms << 8) & _MASK_48

    def next(self) -> int:
        """A number that was never given out before; never 0."""
        self._suffix = (self._suffix + 1) & _MASK_48
        return self._prefix | self._suffix or self.next()


class Pending(NamedTuple):
    """One write that waits to be applied."""

    done: Done
    started: float
    """When it arrived, in seconds of the member's clock."""


class Proposals:
    """The pending table and the queue in front of Raft.

    Invariants: every queued entry has its request id in the table, or asked for no answer;
    the table is ordered by arrival, and since all requests wait equally long, by deadline too.
    """

    def __init__(self, ids: RequestIds, timeout_s: float) -> None:
        self._ids = ids
        self._timeout_s = timeout_s
        self._pending: dict[int, Pending] = {}
        self._queue: list[tuple[int, bytes]] = []
        self._queued_bytes = 0

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def waiting(self) -> Container[int]:
        """The request ids whose results somebody waits for."""
        return self._pending

    @property
    def queued(self) -> int:
        """How many entries wait in front of Raft."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """True when one more write must be refused."""
        return (
            len(self._queue) >= MAX_QUEUED_WRITES
            or self._queued_bytes >= MAX_QUEUED_WRITE_BYTES
            or len(self._pending) >= MAX_PENDING_WRITES
        )

    def new_id(self) -> int:
        """A request id for an entry that is about to be built."""
        return self._ids.next()

    def wait(self, request_id: int, done: Done, now: float) -> None:
        """Registers who wants the outcome."""
        self._pending[request_id] = Pending(done, now)

    def enqueue(self, request_id: int, data: bytes) -> None:
        """Puts an entry into the queue in front of Raft."""
        self._queue.append((request_id, data))
        self._queued_bytes += len(data)

    def take_chunk(self) -> list[tuple[int, bytes]]:
        """The next entries to propose, about PROPOSE_CHUNK_BYTES of them; empty when none."""
        queue = self._queue
        size = 0
        count = 0
        for _, data in queue:
            if count and size + len(data) > PROPOSE_CHUNK_BYTES:
                break
            size += len(data)
            count += 1
        if count == len(queue):
            self._queue = []
            self._queued_bytes = 0
            return queue
        self._queue = queue[count:]
        self._queued_bytes -= size
        return queue[:count]

    def put_back(self, chunk: list[tuple[int, bytes]]) -> None:
        """Returns a chunk to the head of the queue: there was nobody to give it to."""
        self._queue = chunk + self._queue
        self._queued_bytes += sum(len(data) for _, data in chunk)

    def settle(self, request_id: int) -> Pending | None:
        """Removes and returns who waited for this request, if anybody still does."""
        return self._pending.pop(request_id, None)

    def expired(self, now: float) -> list[Pending]:
        """Removes and returns the writes whose time is over; those still queued are forgotten."""
        limit = now - self._timeout_s
        over: list[Pending] = []
        gone: set[int] = set()
        for request_id, pending in self._pending.items():
            if pending.started > limit:
                break
            over.append(pending)
            gone.add(request_id)
        for request_id in gone:
            del self._pending[request_id]
        if gone and self._queue:
            self._queue = [item for item in self._queue if item[0] not in gone]
            self._queued_bytes = sum(len(data) for _, data in self._queue)
        return over

    def close(self) -> list[Pending]:
        """Removes and returns everything that waits; the member stops."""
        everything = list(self._pending.values())
        self._pending.clear()
        self._queue = []
        self._queued_bytes = 0
        return everything
