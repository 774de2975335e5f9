"""A cluster in memory: virtual disks, a bad network, crashes, and checks after every step.

The oracle keeps its own books (votes seen on the wire, entries applied, disks) and never asks a
node whether it behaved.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from raft.errors import ConfChangeRefused, NotLeader, ProposalDropped, TransferRefused
from raft.messages import (
    Append,
    AppendReply,
    InstallSnapshot,
    Message,
    RequestVote,
    VoteReply,
    from_wire,
    to_wire,
)
from raft.node import Config, Persist, RaftNode, Ready
from raft.types import (
    EMPTY_HARD_STATE,
    ConfChange,
    ConfChangeKind,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Role,
    SnapshotMeta,
)

__all__ = ("Cluster", "Faults")


@dataclass
class Faults:
    """Chances per event or step; zero everywhere is a good day."""

    drop: float = 0.0
    duplicate: float = 0.0
    straggle: float = 0.0
    """A message that arrives long after it has been forgotten."""
    max_delay: int = 2
    crash: float = 0.0
    partition: float = 0.0
    churn: float = 0.0
    compact: float = 0.0
    slow_disk: float = 0.1
    transfer: float = 0.0
    pause: float = 0.0
    ambush: float = 0.0
    """The leader dies, and one of the others is cut off: what did the rest get to keep?"""

    @classmethod
    def drawn(cls, random: Random) -> Faults:
        """A mixture of its own for each seed: uniform faults hide the rare combinations."""
        pick = random.choice
        return cls(
            drop=pick((0.0, 0.02, 0.15)),
            duplicate=pick((0.0, 0.05)),
            straggle=pick((0.0, 0.02, 0.1)),
            max_delay=pick((1, 3, 8)),
            crash=pick((0.0, 0.01, 0.03)),
            partition=pick((0.0, 0.02, 0.06)),
            churn=pick((0.0, 0.05, 0.2)),
            compact=pick((0.0, 0.05)),
            slow_disk=pick((0.1, 0.5, 0.9)),
            transfer=pick((0.0, 0.02)),
            pause=pick((0.0, 0.02)),
            ambush=pick((0.0, 0.02)),
        )


@dataclass
class Disk:
    """What survives a crash, and the state machine that goes with it."""

    hard_state: HardState
    base: tuple[int, int]
    entries: list[Entry]
    snapshot: SnapshotMeta
    applied: int
    conf: ConfState
    removed: bool = False

    def write(self, persist: Persist) -> None:
        meta = persist.snapshot
        if meta is not None:
            self.base, self.entries = (meta.index, meta.term), []
            self.snapshot, self.applied, self.conf = meta, meta.index, meta.conf
        if persist.entries:
            keep = persist.entries[0].index - self.base[0] - 1
            assert 0 <= keep <= len(self.entries), "a Persist leaves a hole in the log"
            self.entries[keep:] = persist.entries
        if persist.hard_state is not None:
            new, old = persist.hard_state, self.hard_state
            assert (new.term, new.commit) >= (old.term, old.commit)[:1], "term went back"
            assert new.term > old.term or new.vote == old.vote or not old.vote, "voted twice"
            assert new.commit >= old.commit, "commit went back on disk"
            self.hard_state = new

    def term_at(self, index: int) -> int | None:
        if index == self.base[0]:
            return self.base[1]
        offset = index - self.base[0] - 1
        return self.entries[offset].term if 0 <= offset < len(self.entries) else None

    @property
    def last(self) -> int:
        return self.base[0] + len(self.entries)


@dataclass
class Server:
    node: RaftNode
    disk: Disk
    writing: Persist | None = None
    to_apply: list[Entry] = field(default_factory=list)
    paused: int = 0


class Cluster:
    """Nodes, wire and oracle; everything that happens comes from one seed."""

    def __init__(self, seed: int, size: int, faults: Faults | None = None) -> None:
        self.random = Random(seed)
        self.faults = faults or Faults.drawn(self.random)
        # With neither of the two, a removed node that does not know it disturbs for ever (R7).
        both = ((True, True), (True, True), (True, False), (False, True))
        self.pre_vote, self.check_quorum = self.random.choice(both)
        self.now = 0
        self.counts: Counter[str] = Counter()
        self.wire: list[tuple[int, int, Message]] = []
        self.sequence = 0
        self.cut: set[frozenset[int]] = set()
        self.serial = 0
        self.context = 0
        # The oracle's books.
        self.leaders: dict[int, int] = {}
        self.votes: dict[tuple[int, int], int] = {}
        self.committed: dict[int, Entry] = {}
        self.confs: dict[int, ConfState] = {}
        self.floor: dict[int, int] = {}
        self.reads: dict[tuple[int, int], int] = {}
        self.terms: dict[int, tuple[int, int]] = {}
        self.seen_commit: dict[int, int] = {}
        self.servers: dict[int, Server] = {}
        self.first_conf = ConfState(tuple(range(1, size + 1)))
        self.confs[0] = self.first_conf
        for node_id in self.first_conf.voters:
            self._boot(node_id, self.first_conf)

    # -- servers

    def _boot(self, node_id: int, conf: ConfState) -> None:
        snapshot = SnapshotMeta(0, 0, conf)
        disk = Disk(EMPTY_HARD_STATE, (0, 0), [], snapshot, 0, conf)
        self.servers[node_id] = Server(self._node(node_id, disk), disk)

    def _node(self, node_id: int, disk: Disk) -> RaftNode:
        config = Config(
            node_id,
            max_append_bytes=200,
            max_inflight_appends=8,
            pre_vote=self.pre_vote,
            check_quorum=self.check_quorum,
            random=Random(self.random.random()).randrange,
        )
        return RaftNode(
            config,
            hard_state=disk.hard_state,
            conf=disk.conf,
            snapshot=disk.base,
            entries=disk.entries,
            applied=disk.applied,
        )

    def crash(self, node_id: int) -> None:
        """Loses memory and the write under way; the machine restarts at once."""
        server = self.servers[node_id]
        if server.writing is not None and self.random.random() < 0.5:
            # The write made it to the disk, the word that it did was lost.
            self._write(server, server.writing)
        self.counts["crash"] += 1
        self.servers[node_id] = Server(self._node(node_id, server.disk), server.disk)
        self.seen_commit.pop(node_id, None)
        self.reads = {key: value for key, value in self.reads.items() if key[0] != node_id}

    def _write(self, server: Server, persist: Persist) -> None:
        if persist.snapshot is not None:
            self.counts["snapshot"] += 1
            self._check_meta(persist.snapshot)
        server.disk.write(persist)

    # -- one turn

    def step(self) -> None:
        """One unit of virtual time for everybody."""
        self.now += 1
        self._deliver()
        for node_id in sorted(self.servers):
            server = self.servers[node_id]
            if server.paused:
                server.paused -= 1
                if not server.paused:
                    for _ in range(30):
                        server.node.tick()
                continue
            if self.random.random() < 0.5:
                server.node.tick()
            self._turn(node_id, server)
        self._check_all()

    def _turn(self, node_id: int, server: Server) -> None:
        chance = self.random.random
        if server.writing is not None and chance() >= self.faults.slow_disk:
            persist, server.writing = server.writing, None
            self._write(server, persist)
            server.node.persisted(persist)
        if server.to_apply and chance() < 0.7:
            self._apply(node_id, server)
        if server.node.has_ready():
            self._take(node_id, server, server.node.ready())

    def _take(self, node_id: int, server: Server, ready: Ready) -> None:
        if ready.persist is not None:
            assert server.writing is None, "two Persists outstanding"
            server.writing = ready.persist
        for message in ready.messages:
            self._check_promise(message, server)
            self._send(message)
        for entry in ready.committed:
            assert server.disk.term_at(entry.index) == entry.term, "handed out before on disk"
        server.to_apply += ready.committed
        for read in ready.reads:
            floor = self.reads.pop((node_id, read.context), None)
            if read.index is not None and floor is not None:
                assert read.index >= floor, f"stale read: {read.index} < {floor}"
                self.counts["read"] += 1
        for peer in ready.snapshot_targets:
            self._send_snapshot(server, peer)

    def _send_snapshot(self, server: Server, peer: int) -> None:
        if self.random.random() < 0.2:
            server.node.report_snapshot(peer, None)
            return
        disk = server.disk
        term = disk.term_at(disk.applied)
        assert term is not None
        meta = SnapshotMeta(disk.applied, term, disk.conf)
        self._send(server.node.snapshot_message(peer, meta))
        server.node.report_snapshot(peer, meta.index)

    def _apply(self, node_id: int, server: Server) -> None:
        batch = server.to_apply[: self.random.randint(1, 4)]
        del server.to_apply[: len(batch)]
        for entry in batch:
            disk = server.disk
            if entry.index <= disk.applied:
                continue
            assert entry.index == disk.applied + 1, "entries applied out of order"
            known = self.committed.setdefault(entry.index, entry)
            assert known == entry, f"committed {known} became {entry}"
            if entry.kind == EntryKind.CONF_CHANGE:
                self._apply_change(server, entry)
            disk.applied = entry.index
        server.node.applied_to(server.disk.applied)
        self.counts["applied"] += len(batch)

    def _apply_change(self, server: Server, entry: Entry) -> None:
        """This state machine refuses a sixth voter; all others have the same opinion."""
        disk, change = server.disk, ConfChange.decode(entry.data)
        adds = change.kind is ConfChangeKind.ADD_VOTER and change.node_id not in disk.conf.voters
        if adds and len(disk.conf.voters) >= 5:
            server.node.reject_conf_change()
            self.counts["rejected"] += 1
        else:
            disk.conf = server.node.apply_conf_change(change)
            self.counts["conf"] += 1
        assert self.confs.setdefault(entry.index, disk.conf) == disk.conf

    # -- network

    def _send(self, message: Message) -> None:
        chance = self.random.random
        if chance() < self.faults.drop:
            return
        copies = 2 if chance() < self.faults.duplicate else 1
        for _ in range(copies):
            self.sequence += 1
            slow = chance() < self.faults.straggle
            due = self.now + self.random.randint(1, 120 if slow else self.faults.max_delay)
            self.wire.append((due, self.sequence, from_wire(to_wire(message))))

    def _deliver(self) -> None:
        due = sorted(item for item in self.wire if item[0] <= self.now)
        self.wire = [item for item in self.wire if item[0] > self.now]
        for _, _, message in due:
            server = self.servers.get(message.to)
            if server is None or server.paused:
                continue
            if frozenset((message.sender, message.to)) in self.cut:
                continue
            server.node.step(message)

    def partition(self) -> None:
        """Cuts a random set of links, or heals all."""
        if self.cut or self.random.random() < 0.3:
            self.cut = set()
            return
        ids = sorted(self.servers)
        if self.random.random() < 0.5:
            side = set(self.random.sample(ids, self.random.randint(1, len(ids))))
            self.cut = {frozenset((a, b)) for a in side for b in ids if b not in side}
        else:
            pairs = [frozenset((a, b)) for a in ids for b in ids if a < b]
            self.cut = set(self.random.sample(pairs, len(pairs) // 3))
        self.counts["partition"] += 1

    def ambush(self) -> None:
        """Crashes the leader and isolates one of the others."""
        leader = self.leader()
        if leader is None:
            return
        self.crash(leader.node_id)
        others = sorted(self.servers)
        alone = self.random.choice(others)
        self.cut = {frozenset((alone, other)) for other in others if other != alone}
        self.counts["ambush"] += 1

    # -- load and faults

    def disturb(self) -> None:
        """Perhaps does something to somebody."""
        chance, faults = self.random.random, self.faults
        node_id = self.random.choice(sorted(self.servers))
        server = self.servers[node_id]
        node = server.node
        if chance() < faults.crash:
            self.crash(node_id)
            return
        if chance() < faults.pause:
            server.paused = self.random.choice((10, 40, 100))
            self.counts["pause"] += 1
        if chance() < faults.partition:
            self.partition()
        if chance() < faults.ambush:
            self.ambush()
            return
        if chance() < faults.compact and server.disk.applied > server.disk.base[0]:
            self._compact(server)
        if chance() < faults.transfer and node.role is Role.LEADER:
            try:
                node.transfer_leader(self.random.choice(node.conf.voters))
                self.counts["transfer"] += 1
            except (TransferRefused, NotLeader):
                pass
        if chance() < faults.churn:
            self._churn(node)
        if not server.paused:
            self._load(node_id, node)
            if chance() < 0.5:
                # Before anything else reaches it: a leader back from a pause still believes.
                self._turn(node_id, server)

    def _load(self, node_id: int, node: RaftNode) -> None:
        if self.random.random() < 0.3:
            self.serial += 1
            try:
                node.propose([b"%d" % self.serial] * self.random.randint(1, 3))
                self.counts["proposed"] += 1
            except ProposalDropped:
                self.counts["dropped"] += 1
        if self.random.random() < 0.2:
            self.context += 1
            self.reads[(node_id, self.context)] = max(self.committed, default=0)
            node.read_index(self.context)

    def _compact(self, server: Server) -> None:
        disk, node = server.disk, server.node
        index = self.random.randint(disk.base[0], min(disk.applied, node.applied_index))
        term = disk.term_at(index)
        if term is None or server.writing is not None:
            return
        conf_index = max(at for at in self.confs if at <= index)
        del disk.entries[: index - disk.base[0]]
        disk.base = (index, term)
        disk.snapshot = SnapshotMeta(index, term, self.confs[conf_index])
        node.compact_log(index)
        self.counts["compact"] += 1

    def _churn(self, node: RaftNode) -> None:
        node_id = self.random.randint(1, 6)
        kinds = (ConfChangeKind.ADD_VOTER, ConfChangeKind.ADD_LEARNER, ConfChangeKind.REMOVE)
        change = ConfChange(self.random.choice(kinds), node_id)
        if len(node.conf.voters) <= 2 and change.kind is ConfChangeKind.REMOVE:
            return
        try:
            node.propose_conf_change(change)
        except ConfChangeRefused:
            return
        if node_id not in self.servers:
            self._boot(node_id, self.first_conf)

    # -- the oracle

    def _check_promise(self, message: Message, server: Server) -> None:
        disk = server.disk
        match message:
            case VoteReply(granted=True):
                assert (disk.hard_state.term, disk.hard_state.vote) == (message.term, message.to)
                self._book_vote(message.term, message.sender, message.to)
            case RequestVote():
                assert disk.hard_state.term == message.term
                assert disk.hard_state.vote == message.sender
                self._book_vote(message.term, message.sender, message.sender)
            case AppendReply(rejected=False):
                assert disk.last >= message.index, "acknowledged before it was on disk"
                assert disk.hard_state.term == message.term, "acknowledged before the term was"
            case Append():
                assert disk.hard_state.term == message.term, "led a term it could forget"
            case InstallSnapshot():
                self._check_meta(message.meta)
            case _:
                pass

    def _book_vote(self, term: int, voter: int, candidate: int) -> None:
        before = self.votes.setdefault((term, voter), candidate)
        assert before == candidate, f"node {voter} voted for {before} and {candidate} in {term}"

    def _check_meta(self, meta: SnapshotMeta) -> None:
        known = self.committed.get(meta.index)
        assert known is not None, f"snapshot of index {meta.index}, which nobody applied"
        assert known.term == meta.term
        conf_index = max(at for at in self.confs if at <= meta.index)
        assert self.confs[conf_index] == meta.conf, "snapshot with a wrong configuration"

    def _check_all(self) -> None:
        for node_id, server in self.servers.items():
            node = server.node
            term_vote = (node.term, node.vote)
            before = self.terms.get(node_id, (0, 0))
            assert term_vote[0] >= server.disk.hard_state.term, "term behind the disk"
            self.terms[node_id] = max(before, term_vote)
            assert node.commit_index >= self.seen_commit.get(node_id, 0), "commit went back"
            self.seen_commit[node_id] = node.commit_index
            assert node.applied_index <= node.commit_index <= node.last_index
            assert node.stable_index <= node.last_index
            if node.role is Role.LEADER:
                self._check_leader(node_id, node)
        self._check_log_matching()

    def _check_leader(self, node_id: int, node: RaftNode) -> None:
        first = self.leaders.setdefault(node.term, node_id)
        assert first == node_id, f"nodes {first} and {node_id} both lead term {node.term}"
        if self.floor.get(node_id) == node.term:
            return
        self.floor[node_id] = node.term
        for index, entry in self.committed.items():
            if index >= node.first_index and entry.term < node.term:
                assert node.term_at(index) == entry.term, (
                    f"leader of term {node.term} lacks committed entry {index}"
                )

    def _check_log_matching(self) -> None:
        if self.now % 10:
            return
        disks = [server.disk for server in self.servers.values()]
        for position, one in enumerate(disks):
            for other in disks[position + 1 :]:
                index = min(one.last, other.last)
                low = max(one.base[0], other.base[0])
                while index > low and one.term_at(index) != other.term_at(index):
                    index -= 1
                for at in range(low + 1, index + 1):
                    mine = one.entries[at - one.base[0] - 1]
                    assert mine == other.entries[at - other.base[0] - 1], "logs differ below"

    # -- liveness

    def heal(self) -> None:
        """No faults from now on, except what has happened already."""
        self.faults = Faults()
        self.cut = set()
        for server in self.servers.values():
            server.paused = 0

    def leader(self) -> RaftNode | None:
        """The leader of the newest term that anyone leads."""
        leading = [s.node for s in self.servers.values() if s.node.role is Role.LEADER]
        return max(leading, key=lambda node: node.term, default=None)

    def converged(self) -> bool:
        """Whether every member of the leader's configuration has applied everything."""
        leader = self.leader()
        if leader is None:
            return False
        members = leader.conf.voters + leader.conf.learners
        return all(
            self.servers[member].disk.applied == leader.last_index == leader.commit_index
            for member in members
            if member in self.servers
        )
