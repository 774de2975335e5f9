"""The public face: inputs in, one Ready value out, and word back when its Persist is on disk.

The caller's duties, each loop turn:
1. feed whatever has arrived: tick, step, propose, read_index, ... (any number before one ready());
2. take ready(); send `messages` now; write `persist` (entries and hard state, synced if
   `must_sync`; a snapshot is installed first) and call persisted() when it is done;
3. apply `committed` in order; for each CONF_CHANGE entry call apply_conf_change() or
   reject_conf_change(); then applied_to();
4. answer `reads`: one with an index is served once the state machine has applied that index.
Steps 2 to 4 may overlap with further input; at most one Persist is outstanding.
A caller whose own node was removed while it led keeps going until the role is no longer LEADER:
the others must learn of the removal first, and it takes no proposals meanwhile.

Left out on purpose: joint consensus (one node at a time is enough here), lease reads (they trust
clocks), and logging, which the caller can do from Ready and `trace`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from raft import (
    confchange,
    core,
    election,
    membership,
    proposals,
    reads,
    replication,
    snapshots,
    timers,
    transfer,
)
from raft.config import Config
from raft.limits import COMMITTED_ENTRIES_PER_READY_MAX
from raft.log import RaftLog
from raft.messages import InstallSnapshot, Message
from raft.state import State
from raft.types import ConfChange, ConfState, Entry, HardState, ReadState, Role, SnapshotMeta

__all__ = ("Config", "PeerProgress", "Persist", "RaftNode", "Ready")


class Persist(NamedTuple):
    """One write to disk: snapshot first, then entries and hard state together."""

    hard_state: HardState | None
    """Changed since the last Persist."""
    entries: list[Entry]
    """Replace everything from entries[0].index on."""
    snapshot: SnapshotMeta | None
    """An accepted snapshot, to be installed before the entries; the old log is void."""
    messages: list[Message]
    """Promises that come true with this write; persisted() moves them to the next Ready."""
    must_sync: bool
    """False when only the commit index changed: losing it costs nothing but a little time."""


class Ready(NamedTuple):
    """Everything the caller has to do, as of this call."""

    messages: list[Message]
    persist: Persist | None
    """None as well while an earlier Persist is outstanding."""
    committed: list[Entry]
    """To apply, in order; on this node's disk already; each handed out once."""
    reads: list[ReadState]
    snapshot_targets: list[int]
    """Peers that need a snapshot; report_snapshot() ends each."""
    leader_id: int
    role: Role
    term: int


class PeerProgress(NamedTuple):
    """A follower as the leader sees it, for status pages."""

    match: int
    next: int
    state: str
    recent_active: bool


class RaftNode:
    """One member of a Raft group. Not thread-safe; owns no socket, file, clock or entropy."""

    __slots__ = ("_handed_hard_state", "_outstanding", "_soft", "_state")

    def __init__(
        self,
        config: Config,
        *,
        hard_state: HardState,
        conf: ConfState,
        snapshot: tuple[int, int],
        entries: Sequence[Entry],
        applied: int,
    ) -> None:
        """A node as its disk remembers it, in the role of a follower.

        `snapshot`: (index, term) of the entry before entries[0]. `conf`: the configuration as of
        `applied`, the index the state machine stands at. Raises InvariantBroken if these do not
        fit together, ConfChangeInvalid for an impossible configuration.
        """
        log = RaftLog(snapshot, entries, commit=hard_state.commit, applied=applied)
        self._state = State(config, hard_state, confchange.checked(conf), log)
        self._handed_hard_state = hard_state
        self._outstanding: Persist | None = None
        self._soft = self._soft_state()

    # -- inputs

    def tick(self) -> None:
        """One tick of time. A burst of ticks fires at most one timeout before the next ready()."""
        timers.tick(self._state)

    def step(self, message: Message) -> None:
        """A message from a peer. Stale, duplicate and foreign ones are ignored.

        Raises InvariantBroken only if it proves that promises contradict each other.
        """
        core.step(self._state, message)

    def propose(self, datas: Sequence[bytes]) -> None:
        """Proposes one entry per payload; followers forward. Raises ProposalDropped."""
        proposals.propose(self._state, datas)

    def propose_conf_change(self, change: ConfChange) -> None:
        """Proposes a membership change; followers forward. Raises ConfChangeRefused."""
        proposals.propose_conf_change(self._state, change)

    def read_index(self, context: int) -> None:
        """Asks for a read index; a ReadState with this context follows. Each attempt: a new one."""
        reads.read_index(self._state, context)

    def transfer_leader(self, target: int) -> None:
        """Hands leadership to `target`; given up after an election timeout.

        Raises NotLeader or TransferRefused.
        """
        transfer.transfer_leader(self._state, target)

    def campaign(self) -> None:
        """Starts an election now, if this node may campaign; otherwise nothing happens."""
        election.campaign(self._state)

    def apply_conf_change(self, change: ConfChange) -> ConfState:
        """A membership change was applied: switches to, and returns, the new configuration.

        Raises ConfChangeInvalid for a change that no configuration allows.
        """
        return membership.apply_conf_change(self._state, change)

    def reject_conf_change(self) -> None:
        """A membership change was applied and found void; the next one may be proposed."""
        self._state.log.resolve_conf_change()

    def applied_to(self, index: int) -> None:
        """The state machine has reached `index`."""
        self._state.log.applied_to(index)
        self._step_held_snapshot()

    def compact_log(self, index: int) -> None:
        """Drops entries up to `index` (at most applied_index) from memory."""
        self._state.log.compact(index)

    def report_unreachable(self, peer: int) -> None:
        """Messages to `peer` were lost; the leader probes before it streams again."""
        replication.report_unreachable(self._state, peer)

    def report_snapshot(self, peer: int, index: int | None) -> None:
        """Sending a snapshot to `peer` has ended: at `index`, or (None) it failed."""
        snapshots.report_snapshot(self._state, peer, index)

    def snapshot_message(self, peer: int, meta: SnapshotMeta) -> InstallSnapshot:
        """The message that goes in front of a snapshot file. Raises NotLeader."""
        return snapshots.snapshot_message(self._state, peer, meta)

    # -- outputs

    def has_ready(self) -> bool:
        """Whether ready() would bring anything new."""
        state = self._state
        return bool(
            state.now
            or state.flush
            or state.reads.done
            or state.reads.unsent
            or state.snapshot_targets
            or state.log.has_committed()
            or (self._outstanding is None and self._has_persist())
            or (state.reads.waiting and self._can_begin_round())
            or self._soft != self._soft_state()
        )

    def ready(self) -> Ready:
        """Takes everything that is due. Each item is handed out exactly once."""
        state = self._state
        state.fired_election = state.fired_beat = False
        reads.flush_reads(state)
        if state.flush:
            replication.flush_appends(state)
        persist = self._take_persist() if self._outstanding is None else None
        messages, state.now = state.now, []
        committed = state.log.take_committed(COMMITTED_ENTRIES_PER_READY_MAX)
        done, state.reads.done = state.reads.done, []
        targets, state.snapshot_targets = state.snapshot_targets, []
        self._soft = leader_id, role, term = self._soft_state()
        return Ready(messages, persist, committed, done, targets, leader_id, role, term)

    def persisted(self, persist: Persist) -> None:
        """That Persist is on disk: own vote and entries count, its promises may leave."""
        assert persist is self._outstanding, "this Persist is not the outstanding one"
        self._outstanding = None
        state = self._state
        if persist.hard_state is not None:
            state.disk = persist.hard_state
        if persist.entries:
            state.log.written()
        if persist.snapshot is not None:
            snapshots.installed(state, persist.snapshot)
        state.now += [message for message in persist.messages if message.term == state.term]
        election.count_own_vote(state)
        replication.count_own_entries(state)
        self._step_held_snapshot()

    def _has_persist(self) -> bool:
        state = self._state
        return bool(
            state.after
            or state.log.stable < state.log.last_index
            or state.pending_snapshot is not None
            or state.hard_state() != self._handed_hard_state
        )

    def _take_persist(self) -> Persist | None:
        """The next write; None if nothing changed (promises on what is there leave at once)."""
        state = self._state
        hard_state: HardState | None = state.hard_state()
        before = self._handed_hard_state
        assert hard_state is not None
        must_sync = hard_state[:2] != before[:2]
        if hard_state == before:
            hard_state = None
        else:
            self._handed_hard_state = hard_state
        entries = state.log.take_unstable() if state.log.stable < state.log.last_index else []
        snapshot = state.pending_snapshot
        promises, state.after = state.after, []
        if hard_state is None and not entries and snapshot is None:
            state.now += promises
            return None
        must_sync = must_sync or bool(entries) or snapshot is not None
        self._outstanding = Persist(hard_state, entries, snapshot, promises, must_sync)
        return self._outstanding

    def _can_begin_round(self) -> bool:
        return not self._state.reads.round_reads and reads.can_begin_round(self._state)

    def _soft_state(self) -> tuple[int, Role, int]:
        state = self._state
        return (state.leader_id, state.role, state.term)

    def _step_held_snapshot(self) -> None:
        message = snapshots.take_held(self._state)
        if message is not None:
            core.step(self._state, message)

    # -- state, for status and for tests

    @property
    def node_id(self) -> int:
        """This node."""
        return self._state.id

    @property
    def role(self) -> Role:
        """What this node is at this moment."""
        return self._state.role

    @property
    def term(self) -> int:
        """The current term; may not be on disk yet."""
        return self._state.term

    @property
    def vote(self) -> int:
        """Whom this node voted for in the current term; 0 for nobody."""
        return self._state.vote

    @property
    def leader_id(self) -> int:
        """The leader as far as known; 0 for nobody."""
        return self._state.leader_id

    @property
    def transferee(self) -> int:
        """Leader: whom leadership is being handed to; 0 for nobody."""
        return self._state.transferee

    @property
    def commit_index(self) -> int:
        """The highest index known to be committed."""
        return self._state.log.commit

    @property
    def applied_index(self) -> int:
        """The index that the state machine has reported."""
        return self._state.log.applied

    @property
    def last_index(self) -> int:
        """The last index of the log, on disk or not."""
        return self._state.log.last_index

    @property
    def first_index(self) -> int:
        """The first index still held in memory."""
        return self._state.log.first_index

    @property
    def stable_index(self) -> int:
        """The last index that is on this node's disk."""
        return self._state.log.stable

    @property
    def conf(self) -> ConfState:
        """The configuration in use: as of the last change that was applied."""
        return self._state.conf

    @property
    def wanted_snapshot(self) -> SnapshotMeta | None:
        """The received snapshot that is still needed (accepted or waiting); None: delete it."""
        state = self._state
        if state.held_snapshot is not None:
            return state.held_snapshot.meta
        return state.pending_snapshot

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`; None if it is compacted or not there yet."""
        return self._state.log.term_at(index)

    def progress(self) -> Mapping[int, PeerProgress]:
        """Leader: every member, itself included; empty otherwise."""
        return {
            peer: PeerProgress(p.match, p.next, p.state.name, p.recent_active)
            for peer, p in self._state.progress.items()
        }
