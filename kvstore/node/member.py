"""One member of the cluster as a step function: no I/O, no clock, no event loop.

How Raft runs in practice is this file. Inputs are ticks, messages, writes, reads and the news
that something reached the disk; the output of `turn` is a `Work`: what to send, what to write.
The server (`kvstore.node.loop`) and the simulator drive exactly this.

    inputs                       turn()                          the driver
    ------                       ------                          ----------
    write(), read()   ──►  queue ─► raft ─► Ready ─► Work  ──►   messages: send now
    receive(messages) ──►                    │                   persist: write + fdatasync,
    tick()            ──►                    │                            then persisted()
    persisted()       ──►                    ▼                   snapshot_targets: make, send
                              committed entries, reads
                                             │
                              apply_slice() ─┴─► machine ─► answers, watchers, leases

Rules:
1. A promise (vote, acknowledgement) leaves only after `persisted`; Raft keeps it back, not us.
2. One write to disk is under way at a time. What arrives meanwhile forms the next one, and while
   this member leads its writes wait for that too: one append per follower per disk write.
3. An entry is answered when it is applied here, and only by the member that proposed it. (Behind
   an entry that takes long to apply, some are answered as soon as they are committed: `foresight`.)
4. A commit index alone is not written: it travels with the next entries. After a crash the
   machine's own applied index says more anyway.
5. The machine's state and applied index move together in one transaction. Raft's idea of
   "applied" follows it, never leads.

Left out: membership rules (`membership`), snapshots as files (`snapshots`), startup (`bootstrap`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from kvstore.errors import (
    NOT_ENOUGH_STARTED,
    PROPOSAL_DROPPED,
    REQUEST_TOO_LARGE,
    STOPPED,
    TOO_MANY_REQUESTS,
    EtcdError,
)
from kvstore.machine import Machine
from kvstore.machine.command import CommandKind, encode, expiry_payload
from kvstore.node.applying import Applier
from kvstore.node.leasing import Lessor
from kvstore.node.limits import MAX_APPLY_LAG_ENTRIES
from kvstore.node.proposals import Done, Pending, Proposals, RequestIds
from kvstore.node.reads import Reading, ReadJobs, ReadRounds
from kvstore.node.timing import Timing, timeout_error
from kvstore.storage.wal import WalBatch
from kvstore.watch.hub import WatchHub
from raft.errors import ConfChangeRefused, DropReason, ProposalDropped
from raft.messages import Message
from raft.node import Persist, RaftNode
from raft.types import NO_NODE, ConfChange, Entry, HardState, Role

__all__ = ("LogWriter", "MemberCore", "Work")

_LOG = logging.getLogger(__name__)
_READY_ROUNDS = 8
"""Ready values taken in one turn; Raft's own follow-ups to what a turn did come in these."""

LogWriter = Callable[[HardState | None, Sequence[Entry]], WalBatch]
"""Turns a hard state and entries into bytes for the WAL (Wal.encode): pure, keeps the chain."""


class Work(NamedTuple):
    """What one turn asks its driver to do."""

    messages: list[Message]
    """To send now."""
    persist: Persist | None
    """To put on disk, then to be reported through `persisted`. With `persist.snapshot`: install
    that first, call `installed`, and take the batch to write from there."""
    batch: WalBatch | None
    """The bytes of `persist` for the WAL; None when a snapshot comes first."""
    snapshot_targets: list[int]
    """Peers that need a snapshot; the outcome goes to `raft.report_snapshot`."""


class MemberCore:
    """The state of one running member; see the module's text for the rules."""

    def __init__(
        self,
        *,
        member_id: int,
        raft: RaftNode,
        encode_log: LogWriter,
        hard_state: HardState,
        machine: Machine,
        hub: WatchHub,
        timing: Timing,
        clock: Callable[[], float],
        request_ids: RequestIds,
        connected_since: Callable[[int], float | None],
        max_request_bytes: int,
        catchup_entries: int,
        wall_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`wall_s`: Unix time for the journal; nothing else in a member asks for it."""
        self._wall_s = wall_s
        self.member_id = member_id
        self.raft = raft
        self.hub = hub
        self.timing = timing
        self.clock = clock
        self.hard_state = hard_state
        self.proposals = Proposals(request_ids, timing.request_s)
        self.lessor = Lessor(lambda lease_id: lease_id in self.machine.leases, timing.election_s)
        self.rounds = ReadRounds(raft.read_index, timing.request_s, request_ids.next)
        self.jobs = ReadJobs(lambda: self.machine, clock)
        self.applier = Applier(self, machine, catchup_entries)
        self.persisting: Persist | None = None
        self.term = raft.term
        self.leader_id = NO_NODE
        self.role = Role.FOLLOWER
        self.leader_seen_at = -1e9
        """When the present leader became known, in seconds of the clock."""
        self.leader_changes = 0
        self.failed_proposals = 0
        self.removed = False
        """True once the entry that removes this member was applied."""
        self.on_members: Callable[[], None] = lambda: None
        self.on_leadership: Callable[[bool], None] = lambda _leads: None
        """Called when this member begins (True) or ends to lead."""
        self._connected_since = connected_since
        self._max_request_bytes = max_request_bytes
        self._inbox: deque[Sequence[Message]] = deque()
        self._log_writer = encode_log
        self._unwritten = False
        self._hold_writes = False
        self._full_at: int | None = None
        """The commit index at which Raft took no more."""
        self._stopped = False

    # ---- what others ask of it -------------------------------------------------------------

    @property
    def machine(self) -> Machine:
        """The state machine; another object after a snapshot was installed."""
        return self.applier.machine

    @property
    def is_leader(self) -> bool:
        """True while this member believes that it leads."""
        return self.role is Role.LEADER

    @property
    def has_work(self) -> bool:
        """True when `turn` would do something."""
        return (
            bool(self._inbox)
            or self.raft.has_ready()
            or (self.proposals.queued > 0 and self._may_propose())
        )

    def write(self, kind: CommandKind, payload: bytes, done: Done) -> None:
        """Replicates a command; `done` gets its Result once it is applied here, or the error."""
        if not self._admits(len(payload), done):
            return
        request_id = self.proposals.new_id()
        self.proposals.wait(request_id, done, self.clock())
        self.proposals.enqueue(request_id, encode(kind, request_id, payload))

    def _admits(self, size_bytes: int, done: Done) -> bool:
        """Whether one more write may enter; answers it when not."""
        error: EtcdError | None = None
        if self._stopped:
            error = STOPPED
        elif self.raft.commit_index - self.applier.settled_index > MAX_APPLY_LAG_ENTRIES:
            error = TOO_MANY_REQUESTS
        elif size_bytes > self._max_request_bytes:
            error = REQUEST_TOO_LARGE
        elif self.proposals.full:
            error = TOO_MANY_REQUESTS
        if error is not None:
            self.failed_proposals += 1
            done(None, error)
        return error is None

    def change_membership(self, build: Callable[[int], ConfChange], done: Done) -> bool:
        """Proposes the change that `build` makes of a request id; False: not now, try again."""
        request_id = self.proposals.new_id()
        change = build(request_id)
        try:
            self.raft.propose_conf_change(change)
        except ConfChangeRefused as refused:
            if refused.retryable and not self._stopped:
                return False
            # The checks before have seen to the rest: this would leave no voter.
            done(None, STOPPED if self._stopped else NOT_ENOUGH_STARTED)
            return True
        self.proposals.wait(request_id, done, self.clock())
        return True

    def read(self, start: Reading, done: Done, *, linearizable: bool = True) -> None:
        """Runs a read on state as of now or later; with False, on what is applied here."""
        if self._stopped:
            done(None, STOPPED)
        elif linearizable:
            self.confirm(lambda error: self._confirmed(start, done, error))
        else:
            self.jobs.add(start, done)

    def _confirmed(self, start: Reading, done: Done, error: EtcdError | None) -> None:
        if error is None:
            self.jobs.add(start, done)
        else:
            done(None, error)

    def confirm(self, ready: Callable[[EtcdError | None], None], *, applied: bool = True) -> None:
        """Calls `ready(None)` when a quorum confirmed the leader after this call.

        With `applied`, the state here has then also reached what was committed at the call.
        """
        if self._stopped:
            ready(STOPPED)
        else:
            self.rounds.add(ready, self.clock(), applied=applied)

    def renew_leases(self, renewals: Sequence[tuple[int, Done]]) -> None:
        """Leader only: renews once a quorum has confirmed the leader; each `done` gets a TTL."""

        def ready(error: EtcdError | None) -> None:
            now = self.clock()
            for lease_id, done in renewals:
                if error is not None:
                    done(None, error)
                else:
                    self.lessor.renew(lease_id, now, done)

        self.confirm(ready, applied=self._must_be_up_to_date(id_ for id_, _ in renewals))

    def renew_many(self, lease_ids: Sequence[int], done: Done) -> None:
        """`renew_leases` with one answer for all: a list of TTLs, 0 where there is no lease."""

        def ready(error: EtcdError | None) -> None:
            if error is not None:
                done(None, error)
            else:
                self.lessor.renew_many(lease_ids, self.clock(), done)

        self.confirm(ready, applied=self._must_be_up_to_date(lease_ids))

    def _must_be_up_to_date(self, lease_ids: Iterable[int]) -> bool:
        """Whether these renewals have to wait for what is committed; most need not.

        A lease that is not known here may have been granted a moment ago. And while entries of
        earlier leaders are to be applied, one of them may end a lease that is known.
        """
        machine = self.machine
        return machine.applied_term != self.term or any(
            lease_id not in machine.leases for lease_id in lease_ids
        )

    # ---- inputs ----------------------------------------------------------------------------

    def receive(self, messages: Sequence[Message]) -> None:
        """Messages of one peer, already decoded; worked through in the next turn."""
        self._inbox.append(messages)

    def tick(self) -> None:
        """One step of logical time."""
        now = self.clock()
        self.raft.tick()
        self._hold_writes = False
        self._full_at = None
        for pending in self.proposals.expired(now):
            self.failed_proposals += 1
            pending.done(None, self._timeout_error(pending))
        self.rounds.tick(now, has_leader=self.leader_id != NO_NODE)
        if self.lessor.primary:
            due = self.lessor.due(now)
            if due:
                request_id = self.proposals.new_id()
                payload = expiry_payload(self.term, due, int(self._wall_s() * 1000))
                data = encode(CommandKind.LEASE_EXPIRE, request_id, payload)
                self.proposals.enqueue(request_id, data)

    def persisted(self, persist: Persist) -> None:
        """The persist of the last turn is on disk, entries and all."""
        assert persist is self.persisting, "a persist was reported that is not under way"
        self.persisting = None
        self._hold_writes = False
        self.raft.persisted(persist)

    def state_behind_snapshot(self, persist: Persist) -> HardState:
        """What the log restarts with behind `persist.snapshot`, whose entries come after it.

        The commit index is held back to the snapshot: it must never be on disk before the
        entries that it covers.
        """
        assert persist.snapshot is not None
        return self.hard_state._replace(commit=persist.snapshot.index)

    def installed(self, persist: Persist, machine: Machine) -> WalBatch | None:
        """The snapshot of `persist` replaced the state; returns what is to be written after it."""
        assert persist is self.persisting, "a snapshot was reported that is not under way"
        assert persist.snapshot is not None
        assert machine.applied_index >= persist.snapshot.index, "an older state was installed"
        self.lessor.demote()
        self.resume(machine)
        self.on_members()
        self._unwritten = self.hard_state != self.state_behind_snapshot(persist)
        return self._encode_log(persist.entries) if persist.entries else None

    def pause(self) -> None:
        """Begins no apply and no read any more: the store is about to be replaced."""
        self.jobs.paused = True
        self.applier.pause()

    def resume(self, machine: Machine) -> None:
        """Goes on with this machine, whose store replaced the one before."""
        self.applier.replace(machine)
        self.jobs.paused = False

    def close(self) -> None:
        """Answers everything that waits with "server stopped"; nothing is accepted after."""
        self._stopped = True
        for pending in self.proposals.close():
            pending.done(None, STOPPED)
        self.rounds.close(STOPPED)
        self.jobs.abandon(STOPPED)
        self.applier.abandon()
        self.hub.restored()  # Replays let go of their view.
        self.lessor.demote()

    # ---- the turn --------------------------------------------------------------------------

    def turn(self) -> Work:
        """Feeds what arrived to Raft, and takes out what has to be done."""
        raft = self.raft
        messages: list[Message] = []
        targets: list[int] = []
        persist: Persist | None = None
        while self._inbox:
            for message in self._inbox.popleft():
                raft.step(message)
        for _ in range(_READY_ROUNDS):
            self._follow_raft()
            self._propose_queued()
            self.rounds.flush(self.clock(), has_leader=self.leader_id != NO_NODE)
            if not raft.has_ready():
                break
            ready = raft.ready()
            messages.extend(ready.messages)
            targets.extend(ready.snapshot_targets)
            for context, index in ready.reads:
                self.rounds.outcome(context, index)
            if ready.committed:
                self.applier.queue(ready.committed)
            if ready.persist is not None:
                persist = self._take_persist(ready.persist) or persist
        self.rounds.release(self.applier.applied_index)
        return Work(messages, persist, self._encode(persist), targets)

    def _take_persist(self, persist: Persist) -> Persist | None:
        """Notes a persist as under way; one that needs no disk is over at once (rule 4)."""
        assert self.persisting is None, "two persists at once"
        if persist.hard_state is not None:
            self.hard_state = persist.hard_state
            self._unwritten = True
        if not (persist.must_sync or persist.entries or persist.snapshot):
            self.raft.persisted(persist)
            return None
        self.persisting = persist
        return persist

    def _encode(self, persist: Persist | None) -> WalBatch | None:
        """The bytes for the disk; none yet when a snapshot has to be installed before."""
        if persist is None:
            return None
        self._hold_writes = True
        if persist.snapshot is not None:
            self.pause()
            return None
        return self._encode_log(persist.entries)

    def _encode_log(self, entries: Sequence[Entry]) -> WalBatch:
        hard_state = self.hard_state if self._unwritten else None
        self._unwritten = False
        return self._log_writer(hard_state, entries)

    def last_words(self) -> WalBatch | None:
        """The hard state, if it has changed since it was last written; for a clean stop."""
        return self._encode_log(()) if self._unwritten else None

    def _may_propose(self) -> bool:
        """Rule 2, and no more than Raft takes before a commit; a tick lifts both holds.

        So a slow disk here does not stop the others' disks.
        """
        if self.leader_id == NO_NODE:
            return False
        if self.is_leader and self._full_at == self.raft.commit_index:
            return False
        return not (self._hold_writes and self.is_leader)

    def _propose_queued(self) -> None:
        """Gives the queued writes to Raft; those that it refuses are answered."""
        while self.proposals.queued and self._may_propose():
            chunk = self.proposals.take_chunk()
            try:
                self.raft.propose([data for _, data in chunk])
            except ProposalDropped as dropped:
                if self.raft.leader_id == NO_NODE:
                    self.proposals.put_back(chunk)
                    return
                if dropped.reason is DropReason.TOO_MUCH_UNCOMMITTED:
                    # They wait for the next commit; beyond the queue's bounds writes are refused.
                    self.proposals.put_back(chunk)
                    self._full_at = self.raft.commit_index
                    return
                for request_id, _ in chunk:
                    pending = self.proposals.settle(request_id)
                    self.failed_proposals += 1
                    if pending is not None:
                        pending.done(None, PROPOSAL_DROPPED)

    def _follow_raft(self) -> None:
        """Follows Raft's idea of who leads, and tells those who act on it."""
        raft = self.raft
        self.term = raft.term
        if raft.leader_id == self.leader_id and raft.role is self.role:
            return
        now = self.clock()
        new_leader = raft.leader_id not in (NO_NODE, self.leader_id)
        led = self.is_leader
        self.leader_id = raft.leader_id
        self.role = raft.role
        if new_leader:
            self.leader_seen_at = now
            self.leader_changes += 1
            self.rounds.leader_changed()
        if self.is_leader and not led:
            _LOG.info("this member leads in term %d", self.term)
            leases = self.machine.leases
            self.lessor.promote(((id_, lease.ttl_s) for id_, lease in leases.items()), now)
            self.on_leadership(True)
        elif led and not self.is_leader:
            _LOG.info("this member leads no more, term %d", self.term)
            self.lessor.demote()
            self.on_leadership(False)

    # ---- applying --------------------------------------------------------------------------

    def apply_slice(self) -> bool:
        """One slice of applying committed entries; True when more is waiting."""
        more = self.applier.step()
        self.rounds.release(self.applier.applied_index)
        return more

    def _timeout_error(self, pending: Pending) -> EtcdError:
        return timeout_error(
            pending.started,
            own_id=self.member_id,
            leader_id=self.leader_id,
            leader_seen_at=self.leader_seen_at,
            election_s=self.timing.election_s,
            voters=self.raft.conf.voters,
            connected_since=self._connected_since,
        )
