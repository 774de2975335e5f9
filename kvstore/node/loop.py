"""The event loop's side of a member: it carries out what the core's turns ask for.

A turn runs at the end of the loop iteration in which something arrived, so everything of one
iteration goes into Raft together. While the disk works, turns go on: ticks, messages, reads and
applying do not wait for it; only the next write to disk does. Nobody ever sleeps to fill a batch.

A failed disk or store ends the member at once, without a retry: after a failed write nothing
that this process remembers of the disk can be believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

from kvstore.metrics import Metrics
from kvstore.node.errors import StopKind, StopReason
from kvstore.node.limits import LONG_TURN_S
from kvstore.node.member import MemberCore, Work
from kvstore.node.threads import Worker
from kvstore.storage.errors import StorageError, StoreCorrupt
from kvstore.storage.wal import Wal, WalBatch
from raft.messages import CommitNotice, Message
from raft.node import Persist

__all__ = ("MemberLoop", "Outside")

_LOG = logging.getLogger(__name__)
_WATCHDOG_S = 0.02
_COMPLAINT_PAUSE_S = 10.0
"""Long turns are counted each time, but logged at most this often."""


class Outside(Protocol):
    """What the loop needs done by others."""

    def send(self, peer_id: int, messages: list[Message]) -> None:
        """Sends messages to a peer, or drops them: Raft repeats itself."""

    def send_snapshot(self, peer_id: int) -> None:
        """Makes or finds a snapshot and sends it, in the background."""

    def begin_install(self, persist: Persist) -> None:
        """Installs `persist.snapshot`, in the background, then calls `MemberLoop.installed`."""

    def background(self) -> bool:
        """One slice of work for idle moments (old revisions); True when more is waiting."""

    def after_turn(self) -> None:
        """Called once per turn, when answers and events have been given out."""


class MemberLoop:
    """Turns, ticks and disk writes of one member."""

    def __init__(
        self,
        core: MemberCore,
        wal: Wal,
        disk: Worker,
        outside: Outside,
        metrics: Metrics,
        *,
        fail: Callable[[StopReason], None],
        fsync: bool = True,
    ) -> None:
        self.core = core
        self.wal = wal
        self.disk = disk
        self._outside = outside
        self._metrics = metrics
        self._fail = fail
        self._fsync = fsync
        self._loop = asyncio.get_running_loop()
        core.applier.on_loop = self._from_thread
        core.applier.time_commit = self._time_commit
        self._scheduled = False
        self._running = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._next_tick = 0.0
        self._late_ticks = 0
        self._complained_at = -_COMPLAINT_PAUSE_S

    # ---- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins ticking and turning."""
        self._running = True
        self._next_tick = self._loop.time() + self.core.timing.tick_s
        self._timers["tick"] = self._loop.call_at(self._next_tick, self._tick)
        self._watch(self._loop.time() + _WATCHDOG_S)
        self.wake()

    async def stop(self) -> None:
        """Ends ticks and turns; waits for the disk, so that the files may be closed."""
        self._running = False
        for timer in self._timers.values():
            timer.cancel()
        await self.disk.close()

    def wake(self) -> None:
        """Asks for a turn at the end of this loop iteration."""
        if not self._scheduled and self._running:
            self._scheduled = True
            self._loop.call_soon(self._scheduled_turn)

    def turn_now(self) -> None:
        """A turn at once, for callers who need to see what comes of it."""
        self._turn()

    # ---- turns -----------------------------------------------------------------------------

    def _scheduled_turn(self) -> None:
        # Only here: a turn out of order leaves the scheduled one where it is. Were it forgotten,
        # each such turn would add one to every loop iteration for as long as there is work.
        self._scheduled = False
        self._turn()

    def _turn(self) -> None:
        if not self._running:
            return
        try:
            busy = self._work()
        except Exception as error:
            self.broken(error)
            return
        if busy:
            self.wake()

    def _work(self) -> bool:
        """One turn of everything; True when there is more to do right now."""
        core = self.core
        work = core.turn()
        notices = [message for message in work.messages if type(message) is CommitNotice]
        self._carry_out(work)
        busy = False
        if core.applier.busy:
            busy = core.apply_slice()
        if core.jobs.busy:
            busy |= core.jobs.step()
        if not core.jobs.paused:
            # Not while the store is being replaced: a watch that begins in the past reads it.
            busy |= core.hub.pump()
            if core.applier.idle:
                busy |= self._outside.background()
        # Clients first, whose transports write when this turn is over: to wake another process
        # takes long, and nobody waits for a notice.
        for notice in notices:
            self._loop.call_soon(self._tell, notice)
        self._outside.after_turn()
        return busy or core.has_work

    def _tell(self, notice: CommitNotice) -> None:
        self._outside.send(notice.to, [notice])

    def _carry_out(self, work: Work) -> None:
        if work.messages:
            by_peer: defaultdict[int, list[Message]] = defaultdict(list)
            for message in work.messages:
                if type(message) is not CommitNotice:
                    by_peer[message.to].append(message)
            for peer_id, messages in by_peer.items():
                self._outside.send(peer_id, messages)
        if work.persist is not None:
            if work.batch is None:
                self._outside.begin_install(work.persist)
            else:
                self._write(work.persist, work.batch)
        for peer_id in work.snapshot_targets:
            self._outside.send_snapshot(peer_id)

    def _write(self, persist: Persist, batch: WalBatch) -> None:
        wal = self.wal
        sync = self._fsync

        def write() -> float:
            began = time.perf_counter()
            wal.write(batch, sync)
            return time.perf_counter() - began

        def report(took_s: float, error: BaseException | None) -> None:
            if error is not None:
                self.broken(error)
                return
            self._metrics.wal_fsync_seconds.observe(took_s)
            self._metrics.wal_written_bytes.inc(len(batch.records))
            self.core.persisted(persist)
            # Not `wake`: the answers to what was just stored should not wait for the others.
            if self._running:
                self._turn()

        self.disk.submit(write, report)

    def _time_commit(self) -> Callable[[], None]:
        began = time.perf_counter()
        return lambda: self._metrics.backend_commit_seconds.observe(time.perf_counter() - began)

    def _from_thread(self, call: Callable[[], None]) -> None:
        """Makes `call` part of a turn; from any thread, without effect once the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._called, call)

    def _called(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self.broken(error)
            return
        self.wake()

    def installed(self, persist: Persist, batch: WalBatch | None) -> None:
        """A snapshot is in place; the rest of its persist, if any, is written now."""
        if batch is None:
            self.core.persisted(persist)
            self.wake()
        else:
            self._write(persist, batch)

    def broken(self, error: BaseException) -> None:
        """Something failed that must not fail: this member is over."""
        if not self._running:
            return
        self._running = False
        if isinstance(error, StoreCorrupt):
            kind = StopKind.STORE
        elif isinstance(error, StorageError | OSError):
            kind = StopKind.DISK
        else:
            kind = StopKind.BUG
        _LOG.critical("this member stops: %s", error, exc_info=error)
        self._fail(StopReason(kind, str(error) or repr(error)))

    # ---- time ------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Ticks once per interval; after a pause only so often that one timeout can pass.

        Missed ticks are made up one per loop iteration, so that what arrived during the pause
        is read before an election timeout is believed.
        """
        if not self._running:
            return
        now = self._loop.time()
        interval = self.core.timing.tick_s
        missed = int((now - self._next_tick) / interval)
        self._next_tick += interval * (missed + 1)
        self._late_ticks = min(missed, self.core.timing.election_ticks // 2)
        self._timers["tick"] = self._loop.call_at(self._next_tick, self._tick)
        self._one_tick()

    def _one_tick(self) -> None:
        if not self._running:
            return
        self.core.tick()
        self.wake()
        if self._late_ticks > 0:
            self._late_ticks -= 1
            self._loop.call_soon(self._one_tick)

    def _watch(self, due: float) -> None:
        """Counts loop turns that kept others waiting; the longer, the surer it sees them."""
        now = self._loop.time()
        late = now - due
        if late > LONG_TURN_S:
            self._metrics.long_loop_turns.inc()
            if now - self._complained_at >= _COMPLAINT_PAUSE_S:
                self._complained_at = now
                _LOG.warning("the event loop was held for %.0f ms", late * 1000)
        if self._running:
            due = now + _WATCHDOG_S
            self._timers["watch"] = self._loop.call_at(due, self._watch, due)
