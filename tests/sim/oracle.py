"""The oracle: every answer that a client got, held against the history of the log.

After openraft's fuzzer. Per answer: no phantom values, the newest pair and no other (predecessor
chain), absence where there was nothing (absence floor), the written where it was said to be
(durability). Per session: revisions never go back, and a client reads its own writes. Per
entry: one request stands at one place of the log only.

Needs no search: etcd's answers carry the revision they are true at. It trusts the order of the
history, which `tests.linear` judges by itself from what clients saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from raft.types import Entry
from tests.linear.history import (
    KV,
    Delete,
    Operation,
    Outcome,
    Put,
    Range,
    Response,
    Txn,
    covers,
)
from tests.sim.books.canon import canon_of
from tests.sim.books.writing import values_written
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("Oracle",)


class Oracle(Invariant):
    """Answers that are ahead of what anybody has applied wait until somebody has."""

    number = "oracle"
    title = "Every answer is one that the history of the log gives."
    source = "openraft tests-turmoil"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)
        self._written: set[bytes] = set()
        self._session: dict[int, int] = {}
        """Client → the highest revision it has been told linearizably."""
        self._waiting: list[Operation] = []
        self._places: dict[int, int] = {}
        """Request id → its index in the log."""
        self.judged = 0
        """Answers that were compared; a seed with few of them has shown little."""

    # ---- the log ---------------------------------------------------------------------------

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        for item in self._canon.read(p, entries, results):
            request_id = item.canon.request_id
            if item.first and request_id:
                first = self._places.setdefault(request_id, item.entry.index)
                if first != item.entry.index:
                    raise self.violated(
                        f"request {request_id:x} stands in the log at {first} and at "
                        f"{item.entry.index}"
                    )
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for op in waiting:
                self._judge_or_wait(op)

    # ---- the clients -----------------------------------------------------------------------

    def invoked(self, op: Operation) -> None:
        self._written.update(value for _, value in values_written(op.request))

    def completed(self, op: Operation) -> None:
        request = op.request
        if op.outcome is not Outcome.OK or not isinstance(request, Put | Range | Delete | Txn):
            return
        if not (isinstance(request, Range) and request.serializable):
            before = self._session.get(op.client, 0)
            if op.response.revision < before:
                raise self.violated(
                    f"client {op.client} was at revision {before} and is answered at "
                    f"{op.response.revision}: {request!r:.200}"
                )
            self._session[op.client] = op.response.revision
        self._judge_or_wait(op)

    def phase_ended(self, name: str) -> None:
        if name == "safety" or not self._waiting:
            return
        op = self._waiting[0]
        raise self.violated(
            f"{len(self._waiting)} answers speak of revisions that nobody has, the first to "
            f"client {op.client} of revision {op.response.revision}; the history ends at "
            f"{self._canon.last_revision}"
        )

    # ---- judging ---------------------------------------------------------------------------

    def _judge_or_wait(self, op: Operation) -> None:
        if op.response.revision > self._canon.last_revision:
            self._waiting.append(op)
            return
        self.judged += 1
        request, response = op.request, op.response
        if isinstance(request, Range):
            self._judge_read(op, request, response, response.revision)
        elif isinstance(request, Put):
            self._judge_puts(op, [request], response.revision)
        elif isinstance(request, Delete):
            self._judge_delete(op, request, response)
        else:
            self._judge_txn(op, request, response)

    def _judge_read(self, op: Operation, request: Range, told: Response, revision: int) -> None:
        revision = request.revision or revision
        expected = list(self._pairs(request.key, request.end, revision))
        if request.count_only:
            if told.count != len(expected):
                raise self.violated(
                    f"client {op.client} counted {told.count} in {request!r} at revision "
                    f"{revision}, there were {len(expected)}"
                )
            return
        if request.limit:
            expected = expected[: request.limit]
        found = list(told.kvs)
        if found != expected:
            raise self.violated(
                f"client {op.client} read {request!r} at revision {revision}: "
                f"{self._how(found, expected)}"
            )

    def _how(self, found: list[KV], expected: list[KV]) -> str:
        for kv in found:
            if kv not in expected:
                if kv.value not in self._written:
                    return f"{kv} is a phantom, nobody ever wrote it"
                return f"{kv} was not there; the history has {expected[:4]}"
        missing = [kv for kv in expected if kv not in found]
        return f"{missing[:3]} is missing" if missing else "the order is wrong"

    def _pairs(self, key: bytes, end: bytes | None, revision: int) -> Iterator[KV]:
        canon = self._canon
        keys = [key] if end is None else sorted(k for k in canon.timeline if covers(key, end, k))
        for each in keys:
            kv = canon.state_of_key(each, revision)
            if kv is not None:
                yield kv

    def _judge_puts(self, op: Operation, puts: Sequence[Put], revision: int) -> None:
        events = self._canon.events.get(revision, ())
        for put in puts:
            if not any(
                event.kind == "put" and event.kv.key == put.key and event.kv.value == put.value
                for event in events
            ):
                raise self.violated(
                    f"client {op.client} was told that {put!r:.200} took effect at revision "
                    f"{revision}, where the history has {events[:3]}"
                )

    def _judge_delete(self, op: Operation, request: Delete, told: Response) -> None:
        happened = sum(
            event.kind == "delete" and covers(request.key, request.end, event.kv.key)
            for event in self._canon.events.get(told.revision, ())
        )
        left = list(self._pairs(request.key, request.end, told.revision))
        # One that deleted nothing is answered at the revision of some other request.
        if left or (told.deleted and happened != told.deleted):
            raise self.violated(
                f"client {op.client} deleted {told.deleted} of {request!r} at revision "
                f"{told.revision}; the history has {happened} deletions there, and leaves {left}"
            )

    def _judge_txn(self, op: Operation, request: Txn, told: Response) -> None:
        branch = request.success if told.succeeded else request.failure
        if all(isinstance(part, Range) for part in branch):
            for part, answer in zip(branch, told.parts, strict=False):
                assert isinstance(part, Range)
                self._judge_read(op, part, answer, told.revision)
            return
        deletes = any(isinstance(part, Delete | Txn) for part in branch)
        if not deletes:
            self._judge_puts(op, [part for part in branch if isinstance(part, Put)], told.revision)
        for answer in told.parts:
            for kv in answer.kvs:
                known = self._canon.state_of_key(kv.key, kv.mod)
                # A pair that the transaction itself replaced again was never visible outside.
                if known != kv and kv.mod != told.revision:
                    raise self.violated(
                        f"client {op.client} saw {kv} in a transaction of revision "
                        f"{told.revision}; the history has {known}"
                    )
