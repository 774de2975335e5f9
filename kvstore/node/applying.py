"""From committed entries to answers: the half of a member that moves the state machine.

Entries are applied in batches, each one store transaction, each in slices so that Raft, ticks
and the disk go on between them. When a batch is committed its consequences follow in one go:
Raft learns the new applied index and membership, proposers get their answers, watchers their
events, the lessor its leases. Nothing of a batch is visible before all of it is.

A batch that turns out to be long (a delete of a million keys takes seconds) is treated with
care: it is begun anew in a transaction whose commit, itself half a second, runs in a thread
while the loop goes on; and proposers of the entries behind it are answered as soon as the
outcome is certain (see `foresight`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from kvstore import faults
from kvstore.machine import ApplyBatch, Change, Machine, Result
from kvstore.machine.command import CommandKind
from kvstore.node.foresight import Foresight
from kvstore.node.limits import (
    APPLY_BATCH_BYTES,
    APPLY_BATCH_ENTRIES,
    APPLY_SLICE_OPERATIONS,
    FORESIGHT_AFTER_SLICES,
    LONG_BATCH_SLICES,
    MAX_RAFT_LOG_BYTES,
    SLOW_APPLY_S,
)
from raft.types import ConfChangeKind, Entry, EntryKind

if TYPE_CHECKING:
    from kvstore.node.member import MemberCore

__all__ = ("Applier",)

_LOG = logging.getLogger(__name__)
_ANSWER_ONLY = frozenset(
    bytes((kind,)) for kind in (CommandKind.PUT, CommandKind.DELETE_RANGE, CommandKind.TXN)
)
"""Entries (by their first byte) that concern nobody but their proposer and watchers."""


class Applier:
    """The queue of committed entries and the batch under way.

    Invariants: `applied_index` is the machine's; the queue continues it without a gap.
    """

    def __init__(self, core: MemberCore, machine: Machine, catchup_entries: int) -> None:
        self.machine = machine
        self.applied_index = machine.applied_index
        self._core = core
        self._catchup_entries = catchup_entries
        self._queue: deque[Entry] = deque()
        self._batch: ApplyBatch | None = None
        self._entries: list[Entry] = []
        self._slices = 0
        self._answered = 0
        """Results of the batch that were given out before its commit."""
        self._committing = False
        self._foresight = Foresight()
        self.on_loop: Callable[[Callable[[], None]], None] | None = None
        """Calls something on the loop from any thread; None: there is none, commit in place."""
        self.time_commit: Callable[[], Callable[[], None]] = lambda: _not_timed
        """Called when a commit to the store begins; what it returns, when it has ended."""
        self._began = 0.0
        self.slow = 0
        """Batches that took longer than SLOW_APPLY_S (for the metrics)."""
        self.on_changes: Callable[[Sequence[Change] | None], None] = lambda _changes: None
        """Told what was just committed, before anybody is answered; None: too much to be listed,
        or the whole state was replaced."""
        self._paused = False
        self._held: dict[int, int] = {}
        self._kept: deque[tuple[int, int]] = deque()
        self._kept_bytes = 0

    @property
    def idle(self) -> bool:
        """True when no store transaction is open."""
        return self._batch is None

    @property
    def busy(self) -> bool:
        """True when `step` has something to do."""
        if self._batch is not None:
            return not self._committing
        return bool(self._queue) and not self._paused

    @property
    def settled_index(self) -> int:
        """Entries up to here are applied, or their outcome is certain."""
        return self._foresight.index if self._foresight.outstanding else self.applied_index

    def queue(self, entries: Sequence[Entry]) -> None:
        """Takes over newly committed entries."""
        self._queue.extend(entries)
        if self._looks_ahead:
            self._look_ahead()

    def abandon(self) -> None:
        """Drops the batch under way; the member stops."""
        self._paused = True
        if self._batch is not None:
            self._batch.abandon()
            self._batch = None
        self._committing = False

    def pause(self) -> None:
        """Begins no further batch: a snapshot is about to replace the state."""
        self._paused = True

    def replace(self, machine: Machine) -> None:
        """Goes on from another machine's state; committed entries that it covers are dropped."""
        assert self._batch is None, "the state was replaced under an open transaction"
        assert machine.applied_index >= self.applied_index, "the state was replaced by an older"
        self.machine = machine
        self._paused = False
        if machine.applied_index > self.applied_index:
            self.applied_index = machine.applied_index
            while self._queue and self._queue[0].index <= self.applied_index:
                self._queue.popleft()
            self._kept.clear()
            self._kept_bytes = 0
            self._foresight.forget(self.applied_index)
            self._core.raft.applied_to(self.applied_index)
            self.on_changes(None)

    def step(self) -> bool:
        """Applies about APPLY_SLICE_OPERATIONS; True when more is waiting."""
        if self._committing:
            return False
        if self._batch is None:
            if self._paused or not self._queue:
                return False
            if faults.maybe("apply.wait"):
                return True
            faults.point("apply.before")
            self._entries = self._next_entries()
            self._began = self._core.clock()
            self._slices = 0
            self._answered = 0
            self._batch = self.machine.begin(self._entries, self._core.proposals.waiting)
        complete = self._batch.apply(APPLY_SLICE_OPERATIONS)
        self._slices += 1
        if self._slices > FORESIGHT_AFTER_SLICES:
            if not complete:
                self._answer_finished(self._batch)
            self._look_ahead()
        if complete:
            self._commit(self._batch)
        elif self._slices == LONG_BATCH_SLICES and self.on_loop is not None:
            # What was done so far is little beside what a commit on the loop would cost.
            self._batch.abandon()
            waiting = self._core.proposals.waiting
            self._batch = self.machine.begin(self._entries, waiting, long=True)
        return self.busy

    def _commit(self, batch: ApplyBatch) -> None:
        """Here, or in the background if the batch was begun anew for that."""
        on_loop = self.on_loop
        ended = self.time_commit()
        if on_loop is None or self._slices <= LONG_BATCH_SLICES:
            batch.commit()
            ended()
            self._batch = None
            self._finish(batch)
            return
        self._committing = True

        def committed(error: BaseException | None) -> None:
            ended()
            self._committed(batch, error)

        batch.commit_in_background(lambda error: on_loop(lambda: committed(error)))

    def _committed(self, batch: ApplyBatch, error: BaseException | None) -> None:
        if self._batch is not batch:
            return  # Abandoned meanwhile: the member stops.
        self._committing = False
        self._batch = None
        batch.committed(error)
        self._finish(batch)

    @property
    def _looks_ahead(self) -> bool:
        """Whether new entries are looked at as they come: while, and after, a batch was long."""
        return self._foresight.outstanding or (
            self._batch is not None and self._slices > FORESIGHT_AFTER_SLICES
        )

    def _answer_finished(self, batch: ApplyBatch) -> None:
        """Answers whoever waits for an entry in front of the one that takes so long.

        Their results are final: they follow from the log, committed to the store or not. (What
        has consequences for others than its proposer, leases and members, waits for the commit.)
        """
        settle = self._core.proposals.settle
        for place in range(self._answered, len(batch.results)):
            entry = self._entries[place]
            if entry.kind == EntryKind.NORMAL and entry.data[:1] in _ANSWER_ONLY:
                result = batch.results[place]
                pending = settle(result.request_id)
                if pending is not None:
                    pending.done(None if result.error else result, result.error)
        self._answered = max(self._answered, len(batch.results))

    def _look_ahead(self) -> None:
        """Answers whoever waits for an entry whose outcome is certain before it is applied."""
        foresight, batch, queue = self._foresight, self._batch, self._queue
        if batch is not None:
            certain = batch.certain
            if certain is not None:
                foresight.anchor(*certain)
        here: Sequence[Entry] = self._entries if batch is not None else ()
        last = queue[-1].index if queue else here[-1].index if here else 0
        if foresight.index < self.applied_index or foresight.index >= last:
            return
        # Both are without gaps, so the place of the next entry is known.
        skip_here = foresight.index + 1 - here[0].index if here else 0
        skip_queue = foresight.index + 1 - queue[0].index if queue else 0
        ahead = chain(here[max(skip_here, 0) :], islice(queue, max(skip_queue, 0), None))
        settle = self._core.proposals.settle
        for result in foresight.look(ahead):
            pending = settle(result.request_id)
            if pending is not None:
                pending.done(result, None)

    def _next_entries(self) -> list[Entry]:
        queue = self._queue
        entries: list[Entry] = []
        size = 0
        limit = 1 if faults.maybe("apply.one_entry") else APPLY_BATCH_ENTRIES
        while queue and len(entries) < limit and size < APPLY_BATCH_BYTES:
            entry = queue.popleft()
            size += len(entry.data)
            entries.append(entry)
        self._kept.append((entries[-1].index, size))
        self._kept_bytes += size
        return entries

    def _finish(self, batch: ApplyBatch) -> None:
        """The batch is committed: everybody concerned learns of it."""
        faults.point("apply.after")
        core = self._core
        entries, self._entries = self._entries, []
        if core.clock() - self._began > SLOW_APPLY_S:
            self.slow += 1
        self._foresight.check(entries[0].index, batch.results)
        self.applied_index = entries[-1].index
        members_changed = False
        answers = []
        settle = core.proposals.settle
        for result in batch.results:
            if result.conf_change is not None:
                self._conf_change(result)
                members_changed = True
            pending = settle(result.request_id)
            if pending is not None:
                answers.append((pending.done, result))
        if core.lessor.primary and (batch.granted or batch.revoked):
            self._leases(batch, inherited=entries[0].term < core.term)
        core.raft.applied_to(self.applied_index)
        self._compact_log()
        if batch.overflowed or batch.changes:
            self.on_changes(None if batch.overflowed else batch.changes)
        for done, result in answers:
            if result.error is not None:
                done(None, result.error)
            else:
                done(result, None)
        if batch.overflowed:
            core.hub.publish_from_history()
        else:
            core.hub.publish(batch.changes)
        if members_changed or self._attributes_changed(entries):
            core.on_members()
        faults.point("apply.answered")

    def _conf_change(self, result: Result) -> None:
        """Raft switches its configuration when the change is applied, not before."""
        core = self._core
        change = result.conf_change
        assert change is not None
        if not result.conf_valid:
            core.raft.reject_conf_change()
            return
        conf = core.raft.apply_conf_change(change)
        _LOG.info("configuration: voters %s, learners %s", _hex(conf.voters), _hex(conf.learners))
        if change.kind == ConfChangeKind.REMOVE and change.node_id == core.member_id:
            core.removed = True

    def _leases(self, batch: ApplyBatch, *, inherited: bool) -> None:
        """Keeps the lessor's deadlines in step with the leases that exist.

        `inherited`: the batch holds entries of an earlier leader; how long ago it answered
        renewals of their leases nobody here knows, so they get an election timeout more.
        """
        lessor = self._core.lessor
        for lease_id in batch.revoked:
            lessor.revoked(lease_id)
        now = self._core.clock()
        for lease_id, lease in batch.granted.items():
            lessor.granted(lease_id, lease.ttl_s, now, inherited=inherited)

    @staticmethod
    def _attributes_changed(entries: Sequence[Entry]) -> bool:
        kind = CommandKind.MEMBER_ATTRIBUTES
        return any(entry.data and entry.data[0] == kind for entry in entries)

    def keep_log_behind(self, peer_id: int, index: int | None) -> None:
        """A peer is being sent a snapshot of `index` and will need what follows; None: no more."""
        if index is None:
            self._held.pop(peer_id, None)
        else:
            self._held[peer_id] = index

    def _compact_log(self) -> None:
        """Drops entries from memory that no follower should need: by count, and by bytes."""
        raft = self._core.raft
        target = min((self.applied_index - self._catchup_entries, *self._held.values()))
        while self._kept_bytes > MAX_RAFT_LOG_BYTES and len(self._kept) > 1:
            index, size = self._kept.popleft()
            self._kept_bytes -= size
            target = max(target, index)
        while self._kept and self._kept[0][0] <= target:
            self._kept_bytes -= self._kept.popleft()[1]
        if target - raft.first_index >= max(1, self._catchup_entries // 10):
            raft.compact_log(target)


def _not_timed() -> None:
    """Nobody measures commits."""


def _hex(ids: Sequence[int]) -> str:
    return "[" + " ".join(f"{node_id:x}" for node_id in ids) + "]"
