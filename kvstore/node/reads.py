"""Reads: confirming that the state is current, then working through it on a pinned view.

`ReadRounds` is the consensus half. A linearizable read needs an index that was committed after
the read arrived. Reads that arrive while one ReadIndex round is under way share the next, so
any number of readers costs one round trip at a time. Each attempt has an id of its own: an
answer to an earlier attempt is still an answer to reads that arrived before it, but an id is
never used twice, across restarts either, so it can not be taken for one.

`ReadJobs` is the local half. A read is a generator over a view that stops between slices;
short ones never stop. Reads of one batch share one view.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from kvstore.errors import LEADER_CHANGED, TIMEOUT, TOO_MANY_REQUESTS, EtcdError, detach
from kvstore.machine import Machine, View
from kvstore.node.limits import (
    MAX_PINNED_VIEWS,
    MAX_WAITING_READS,
    READ_PIN_LIMIT_S,
    READ_RETRY_S,
    SLICE_S,
)
from kvstore.node.proposals import Done

__all__ = ("ReadJobs", "ReadRounds", "Reading")

Reading = Callable[[View], Any]
"""Starts a read on a view: returns its Job."""


class _Waiting(NamedTuple):
    ready: Callable[[EtcdError | None], None]
    arrived: float
    applied: bool
    """Whether the state must be applied up to the confirmed index before `ready` is called."""


class _Round:
    """One batch of reads and the attempts made to confirm it."""

    def __init__(self, reads: list[_Waiting]) -> None:
        self.reads = reads
        self.contexts: set[int] = set()
        self.latest = 0
        self.sent = 0.0


class ReadRounds:
    """Reads that wait to be confirmed, or confirmed and waiting for the apply to get there."""

    def __init__(
        self, ask: Callable[[int], None], timeout_s: float, new_id: Callable[[], int]
    ) -> None:
        """`ask` begins one attempt under a number that `new_id` gives.

        No two attempts have the same one, not even of processes that follow each other: the answer
        to a question of the last one may still be under way.
        """
        self._ask = ask
        self._timeout_s = timeout_s
        self._new_id = new_id
        self._arrived: list[_Waiting] = []
        self._round: _Round | None = None
        self._confirmed: deque[tuple[int, list[_Waiting]]] = deque()
        self.slow = 0
        """Attempts that had to be repeated, and rounds that timed out (for the metrics)."""
        self.failed = 0
        """Rounds that ended without an index (for the metrics)."""

    def add(
        self, ready: Callable[[EtcdError | None], None], now: float, *, applied: bool = True
    ) -> None:
        """Calls `ready(None)` once state of this moment or later is here, or `ready(error)`."""
        if len(self._arrived) >= MAX_WAITING_READS:
            ready(TOO_MANY_REQUESTS)
            return
        self._arrived.append(_Waiting(ready, now, applied))

    def flush(self, now: float, *, has_leader: bool) -> None:
        """Starts the next round if reads wait, none is under way and there is somebody to ask."""
        if self._round is None and self._arrived and has_leader:
            self._round = _Round(self._arrived)
            self._arrived = []
            self._attempt(self._round, now)

    def _attempt(self, current: _Round, now: float) -> None:
        current.latest = self._new_id()
        current.contexts.add(current.latest)
        current.sent = now
        self._ask(current.latest)

    def outcome(self, context: int, index: int | None) -> None:
        """Raft's answer to one attempt; None: the leader it was asked of is gone."""
        current = self._round
        if current is None or context not in current.contexts:
            return
        if index is None:
            if context == current.latest:
                self._round = None
                self._fail(current.reads, LEADER_CHANGED)
            return
        self._round = None
        later = [read for read in current.reads if read.applied]
        if later:
            self._confirmed.append((index, later))
        if len(later) < len(current.reads):
            for read in current.reads:
                if not read.applied:
                    read.ready(None)

    def tick(self, now: float, *, has_leader: bool) -> None:
        """Repeats a round that was lost, and fails the reads whose time is over."""
        limit = now - self._timeout_s
        current = self._round
        if current is not None:
            if current.reads[0].arrived <= limit:
                self._round = None
                self.slow += 1
                self._fail(current.reads, TIMEOUT)
            elif has_leader and now - current.sent >= READ_RETRY_S:
                self.slow += 1
                self._attempt(current, now)
        if self._arrived and self._arrived[0].arrived <= limit:
            late = [read for read in self._arrived if read.arrived <= limit]
            self._arrived = self._arrived[len(late) :]
            self._fail(late, TIMEOUT)
        while self._confirmed and self._confirmed[0][1][0].arrived <= limit:
            _, reads = self._confirmed.popleft()
            self._fail(reads, TIMEOUT)

    def _fail(self, reads: list[_Waiting], error: EtcdError) -> None:
        self.failed += 1
        for read in reads:
            read.ready(error)

    def release(self, applied_index: int) -> None:
        """Lets the confirmed reads go whose index has been applied."""
        while self._confirmed and self._confirmed[0][0] <= applied_index:
            _, reads = self._confirmed.popleft()
            for read in reads:
                read.ready(None)

    def leader_changed(self) -> None:
        """Another leader is known: what was asked of the last one fails, the caller may retry."""
        current, self._round = self._round, None
        if current is not None:
            self._fail(current.reads, LEADER_CHANGED)

    def close(self, error: EtcdError) -> None:
        """Fails everything that waits; the member stops."""
        self.leader_changed()
        arrived, self._arrived = self._arrived, []
        confirmed, self._confirmed = self._confirmed, deque()
        for reads in (arrived, *(reads for _, reads in confirmed)):
            for read in reads:
                read.ready(error)


class _SharedView:
    """A pinned view and the number of jobs that still read from it."""

    __slots__ = ("pinned_at", "users", "view")

    def __init__(self, view: View, now: float) -> None:
        self.view = view
        self.users = 1
        self.pinned_at = now

    def drop(self) -> None:
        self.users -= 1
        if self.users == 0:
            self.view.close()


class _Job(NamedTuple):
    job: Any
    done: Done
    shared: _SharedView


class ReadJobs:
    """Local reads, run a slice at a time; at most MAX_PINNED_VIEWS hold a view across turns."""

    def __init__(self, machine: Callable[[], Machine], clock: Callable[[], float]) -> None:
        self._machine = machine
        self._clock = clock
        self._waiting: deque[tuple[Reading, Done]] = deque()
        self._running: deque[_Job] = deque()
        self.paused = False
        """While True nothing new is started: the store is about to be replaced."""

    @property
    def idle(self) -> bool:
        """True when no view is pinned."""
        return not self._running

    @property
    def busy(self) -> bool:
        """True when `step` has something to do."""
        return bool(self._running) or (bool(self._waiting) and not self.paused)

    def add(self, start: Reading, done: Done) -> None:
        """Queues a read of the last committed state."""
        if len(self._waiting) >= MAX_WAITING_READS:
            done(None, TOO_MANY_REQUESTS)
            return
        self._waiting.append((start, done))

    def step(self) -> bool:
        """Works for about SLICE_S; True when more is left to do."""
        began = self._clock()
        if self._waiting and not self.paused and len(self._running) < MAX_PINNED_VIEWS:
            self._start_batch(began)
        if self._running and self._clock() - began < SLICE_S:
            self._continue_one(began)
        return self.busy

    def _start_batch(self, began: float) -> None:
        shared = _SharedView(self._machine().view(), began)
        view = shared.view
        waiting = self._waiting
        try:
            while waiting and len(self._running) < MAX_PINNED_VIEWS:
                start, done = waiting.popleft()
                try:
                    job = start(view)
                    next(job)
                except StopIteration as finished:
                    done(finished.value, None)
                except EtcdError as error:
                    detach(error)
                    done(None, error)
                else:
                    shared.users += 1
                    self._running.append(_Job(job, done, shared))
                if self._clock() - began >= SLICE_S:
                    return
        finally:
            shared.drop()

    def _continue_one(self, now: float) -> None:
        """One slice of the job that waited longest."""
        current = self._running.popleft()
        job, done, shared = current
        if now - shared.pinned_at > READ_PIN_LIMIT_S:
            job.close()
            shared.drop()
            done(None, TIMEOUT)
            return
        try:
            next(job)
        except StopIteration as finished:
            shared.drop()
            done(finished.value, None)
        except EtcdError as error:
            detach(error)
            shared.drop()
            done(None, error)
        else:
            self._running.append(current)

    def abandon(self, error: EtcdError, *, waiting: bool = True) -> None:
        """Fails the running reads and, if asked, those not begun; all views are closed after."""
        running, self._running = self._running, deque()
        for job, done, shared in running:
            job.close()
            shared.drop()
            done(None, error)
        if waiting:
            queued, self._waiting = self._waiting, deque()
            for _, done in queued:
                done(None, error)
