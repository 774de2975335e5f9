"""All mutable state of one node, its role transitions, and the two outboxes.

Rules of this file:
1. Nothing here decides; the topic modules (`election`, `replication`, ...) do. Transitions only
   reset what the new role must not inherit.
2. `now` holds messages that may leave at once. `after` holds promises: they travel in a Persist
   and leave when it is reported done. A node's own vote and own entries count by the same rule:
   `disk` and `log.stable` say what is on disk, and only that is counted.
3. (term, vote) never go back; one vote per term; a leader never changes an entry it has appended.
"""

from __future__ import annotations

from collections import deque

from raft.config import Config
from raft.errors import InvariantBroken
from raft.log import RaftLog
from raft.messages import AppendReply, InstallSnapshot, Message
from raft.progress import Progress
from raft.types import (
    NO_NODE,
    ConfState,
    HardState,
    ReadState,
    Role,
    SnapshotMeta,
)

__all__ = ("ReadQueue", "State")


class ReadQueue:
    """Reads on their way to an index; `reads` moves them, `State` fails them."""

    __slots__ = (
        "done",
        "forwarded",
        "round_acks",
        "round_id",
        "round_index",
        "round_reads",
        "unsent",
        "waiting",
    )

    def __init__(self) -> None:
        self.waiting: list[tuple[int, int]] = []
        """Leader: (requester, context) waiting for the next round."""
        self.round_id = 0
        """Leader: the newest round; grows with each, never used twice in a process's life."""
        self.round_index = 0
        self.round_reads: list[tuple[int, int]] = []
        """Leader: the reads of the round under way; empty when there is none."""
        self.round_acks: set[int] = set()
        self.unsent: list[int] = []
        """Follower: contexts that the next flush forwards to the leader."""
        self.forwarded: dict[int, int] = {}
        """Follower: context -> tick at which the attempt counts as lost; in order of time."""
        self.done: list[ReadState] = []

    def fail_all(self, self_id: int) -> None:
        """Leader or term changed: every attempt of this node ends without an index.

        Attempts of other nodes are dropped; those nodes notice the change themselves.
        """
        own = [context for who, context in self.round_reads + self.waiting if who == self_id]
        for context in (*own, *self.forwarded):
            self.done.append(ReadState(context, None))
        self.waiting = []
        self.round_reads = []
        self.round_acks = set()
        self.unsent = []
        self.forwarded = {}


class State:
    """One node. Fields are public inside the package; `node.RaftNode` is the face to callers."""

    __slots__ = (
        "after",
        "conf",
        "config",
        "disk",
        "election_elapsed",
        "election_timeout",
        "fired_beat",
        "fired_election",
        "flush",
        "forward_epoch",
        "forward_serial",
        "forwards_seen",
        "heartbeat_elapsed",
        "held_snapshot",
        "id",
        "leader_id",
        "log",
        "members",
        "now",
        "pending_snapshot",
        "progress",
        "reads",
        "retire_index",
        "role",
        "snapshot_targets",
        "term",
        "term_start",
        "ticks",
        "transfer_elapsed",
        "transferee",
        "uncommitted",
        "uncommitted_bytes",
        "vote",
        "voter_progress",
        "votes",
    )

    def __init__(self, config: Config, hard_state: HardState, conf: ConfState, log: RaftLog):
        self.config = config
        self.id = config.node_id
        self.log = log
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.disk = hard_state
        """The hard state that is known to be on disk."""
        if log.last_term > self.term:
            raise InvariantBroken(
                f"the log has an entry of term {log.last_term}, but only term {self.term} was "
                "recorded: the hard state is older than the log"
            )
        self.role = Role.FOLLOWER
        self.leader_id = NO_NODE
        self.conf = ConfState(())
        self.members: frozenset[int] = frozenset()

        # Leader only; empty otherwise.
        self.progress: dict[int, Progress] = {}
        self.voter_progress: list[Progress] = []
        self.term_start = 0
        """Index of the empty entry this leader began with. Commit >= term_start means that an
        entry of its own term is committed."""
        self.uncommitted_bytes = 0
        self.uncommitted: deque[tuple[int, int]] = deque()
        """(last index, bytes) per proposal batch that is not committed yet."""
        self.transferee = NO_NODE
        self.transfer_elapsed = 0
        self.retire_index = 0
        """Not 0: this leader was removed, and steps down when the others know this much."""
        self.forwards_seen: dict[int, tuple[int, int]] = {}
        """Per follower the (epoch, serial) of its newest forward: duplicates stop here."""

        self.votes: dict[int, bool] = {}
        self.ticks = 0
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.election_timeout = 0
        # After a pause many ticks arrive at once. What fired stays silent until the caller has
        # taken a Ready, so one burst causes at most one election or one quorum check (R14).
        self.fired_election = False
        self.fired_beat = False

        self.reads = ReadQueue()
        self.forward_epoch = config.random(2**32)
        """Tells the forwards of this process from those before a restart."""
        self.forward_serial = 0

        self.now: list[Message] = []
        self.after: list[Message] = []
        self.flush = False
        """The leader's appends are due: made when the caller takes a Ready, so that everything
        which arrived until then shares one message per follower."""
        self.pending_snapshot: SnapshotMeta | None = None
        """Accepted, not yet reported installed."""
        self.held_snapshot: InstallSnapshot | None = None
        """Arrived while entries were being applied; looked at again when they are."""
        self.snapshot_targets: list[int] = []
        self.set_conf(conf)
        self._restart_election_timer()

    # -- configuration

    def set_conf(self, conf: ConfState) -> None:
        """Switches the configuration; a leader's followers appear and vanish with it."""
        self.conf = conf
        self.members = frozenset(conf.voters + conf.learners)
        if self.role is not Role.LEADER:
            return
        for peer in [peer for peer in self.progress if peer not in self.members]:
            del self.progress[peer]
        for peer in sorted(self.members):
            if peer not in self.progress:
                # Counted as active until the next quorum check, or adding a node could unseat
                # the leader before the two have met.
                self.progress[peer] = Progress(
                    match=0, next_index=self.log.last_index + 1, recent_active=True
                )
        self.voter_progress = [self.progress[voter] for voter in conf.voters]

    @property
    def is_voter(self) -> bool:
        """Whether this node decides, as far as it knows."""
        return self.id in self.conf.voters

    @property
    def is_only_voter(self) -> bool:
        """Whether this node is a quorum by itself."""
        return self.conf.voters == (self.id,)

    # -- role transitions

    def become_follower(self, term: int, leader_id: int) -> None:
        """Follows `leader_id` (or nobody yet) in `term`."""
        self._reset(term)
        self.role = Role.FOLLOWER
        self.leader_id = leader_id

    def become_pre_candidate(self) -> None:
        """Asks around before disturbing anyone: term and vote stay as they are."""
        assert self.role is not Role.LEADER, "a leader cannot become a pre-candidate"
        self._reset(self.term)
        self.role = Role.PRE_CANDIDATE

    def become_candidate(self) -> None:
        """A new term, with a vote for itself that counts once it is on disk."""
        assert self.role is not Role.LEADER, "a leader cannot become a candidate"
        self._reset(self.term + 1)
        self.role = Role.CANDIDATE
        self.vote = self.id

    def become_leader(self) -> None:
        """Wins the term. The caller appends the empty entry that `term_start` announces."""
        assert self.role is Role.CANDIDATE, f"a {self.role.name} cannot become leader"
        assert self.disk.term == self.term, "leader before its own vote was on disk"
        self._reset(self.term)
        self.role = Role.LEADER
        self.leader_id = self.id
        last = self.log.last_index
        self.term_start = last + 1
        for peer in sorted(self.members):
            self.progress[peer] = Progress(match=0, next_index=last + 1, recent_active=False)
        own = self.progress[self.id]
        own.become_replicate()
        own.advance(self.log.stable)
        own.recent_active = True
        self.voter_progress = [self.progress[voter] for voter in self.conf.voters]

    def _reset(self, term: int) -> None:
        """What no role inherits from the one before."""
        assert term >= self.term, f"term would go back from {self.term} to {term}"
        if term != self.term:
            self.term = term
            self.vote = NO_NODE
            # Promises of an older term are worth nothing to their receivers any more, and the
            # entries they speak of may be overwritten before they could leave.
            self.after.clear()
        self.reads.fail_all(self.id)
        self.leader_id = NO_NODE
        self.votes = {}
        self.progress = {}
        self.voter_progress = []
        self.term_start = 0
        self.uncommitted_bytes = 0
        self.uncommitted.clear()
        self.transferee = NO_NODE
        self.retire_index = 0
        self.forwards_seen = {}
        self.flush = False
        self.snapshot_targets = []
        self.heartbeat_elapsed = 0
        self._restart_election_timer()

    def _restart_election_timer(self) -> None:
        base = self.config.election_ticks
        self.election_elapsed = 0
        self.election_timeout = base + self.config.random(base)

    def follow(self, leader_id: int) -> None:
        """A message of this term's leader has arrived."""
        if self.role is not Role.FOLLOWER:
            if self.role is Role.LEADER:
                raise InvariantBroken(f"nodes {self.id} and {leader_id} both lead term {self.term}")
            self.become_follower(self.term, leader_id)
        elif self.leader_id != leader_id:
            if self.leader_id != NO_NODE:
                raise InvariantBroken(
                    f"nodes {self.leader_id} and {leader_id} both lead term {self.term}"
                )
            self.leader_id = leader_id
        self.election_elapsed = 0

    def forget_leader(self) -> None:
        """The leader has been silent for too long, and this node may not campaign."""
        if self.leader_id != NO_NODE:
            self.leader_id = NO_NODE
            self.reads.fail_all(self.id)

    def hears_leader(self) -> bool:
        """Whether a leader was heard within an election timeout: its lease on our vote."""
        return (
            self.config.check_quorum
            and self.leader_id != NO_NODE
            and self.election_elapsed < self.config.election_ticks
        )

    # -- outboxes

    def promise(self, message: Message, index: int = 0) -> None:
        """Queues a message that is true once term, vote and the log up to `index` are on disk."""
        if (
            index <= self.log.stable
            and self.disk.term == self.term
            and self.disk.vote == self.vote
            and self.pending_snapshot is None
        ):
            self.now.append(message)
            return
        after = self.after
        if after and type(message) is AppendReply:
            # Acknowledgements are cumulative: in a burst only the newest is worth sending.
            last = after[-1]
            if type(last) is AppendReply and last.to == message.to and last.index <= message.index:
                after[-1] = message
                return
        after.append(message)

    def hard_state(self) -> HardState:
        """What must be on disk before the promises in `after` leave."""
        return HardState(self.term, self.vote, self.log.commit)
