"""A cluster of MemberCores without an event loop: a queue for a network, lists for disks.

Every member gets the driver that `kvstore.node.loop` is in the server: turn, write, persisted,
apply. Disk writes finish when the test lets them, messages travel when the test pumps them.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import msgpack

from kvstore.errors import EtcdError
from kvstore.machine import CommandKind, Machine, Member, View
from kvstore.node.member import MemberCore
from kvstore.node.proposals import RequestIds
from kvstore.node.timing import Timing
from kvstore.pb import rpc_pb2
from kvstore.storage.wal import WalBatch
from kvstore.watch.hub import WatchHub
from raft.messages import Message, from_wire, to_wire
from raft.node import Config, Persist, RaftNode
from raft.types import Entry, HardState, Role, SnapshotMeta

from .dict_store import DictStore, Tables

GENESIS = (1, 1)


class Outcome:
    """A `done` that remembers; fails the test when it is called twice."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, EtcdError | None]] = []

    def __call__(self, value: Any, error: EtcdError | None) -> None:
        assert not self.calls, "an answer was given twice"
        self.calls.append((value, error))

    @property
    def pending(self) -> bool:
        return not self.calls

    @property
    def value(self) -> Any:
        assert self.calls, "no answer yet"
        value, error = self.calls[0]
        assert error is None, error
        return value

    @property
    def error(self) -> EtcdError | None:
        assert self.calls, "no answer yet"
        return self.calls[0][1]


class VirtualDisk:
    """What survives a crash: entries, hard state, store image and the snapshot it stands on."""

    def __init__(self, base: tuple[int, int], store: DictStore) -> None:
        self.base = base
        self.hard_state = HardState(GENESIS[1] if base[0] else 0, 0, base[0])
        self.entries: list[Entry] = []
        self.store = store

    def write(self, hard_state: HardState | None, entries: list[Entry]) -> None:
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            first = entries[0].index
            assert first <= self.base[0] + len(self.entries) + 1, "a gap in the log"
            self.entries = [e for e in self.entries if e.index < first] + list(entries)
        self._check()

    def _check(self) -> None:
        last = self.base[0] + len(self.entries)
        assert self.hard_state.commit <= last, "a commit index is on disk before its entries"

    def reset(self, meta: SnapshotMeta, hard_state: HardState) -> None:
        self.base = (meta.index, meta.term)
        self.entries = []
        self.hard_state = hard_state
        self._check()


class Peer:
    """One member with its disk and driver."""

    def __init__(self, cluster: Cluster, member_id: int, disk: VirtualDisk) -> None:
        self.cluster = cluster
        self.id = member_id
        self.disk = disk
        self.alive = True
        self.slow_disk = False
        self.writes = 0
        self._unwritten: tuple[Persist, list[Entry], HardState | None] | None = None
        self.core = self._start()

    def _start(self) -> MemberCore:
        machine = Machine(self.disk.store)
        hard_state = self.disk.hard_state
        commit = max(hard_state.commit, machine.applied_index)
        rng = random.Random(f"{self.cluster.seed}/{self.id}/{self.cluster.starts}")
        self.cluster.starts += 1
        raft = RaftNode(
            Config(self.id, random=lambda n: rng.randrange(n)),
            hard_state=hard_state._replace(commit=commit),
            conf=machine.conf_state(),
            snapshot=self.disk.base,
            entries=self.disk.entries,
            applied=machine.applied_index,
        )
        holder: list[MemberCore] = []

        class History:
            @property
            def revision(self) -> int:
                return holder[0].machine.revision if holder else machine.revision

            def view(self) -> View:
                return holder[0].machine.view()

        core = MemberCore(
            member_id=self.id,
            raft=raft,
            encode_log=self._encode,
            hard_state=hard_state,
            machine=machine,
            hub=WatchHub(History(), lambda _: b"", max_response_bytes=1 << 20, random=lambda n: 0),
            timing=Timing(100, 10),
            clock=lambda: self.cluster.now,
            request_ids=RequestIds(self.id, self.cluster.starts),
            connected_since=lambda peer: None if self.cluster.cut(self.id, peer) else 0.0,
            max_request_bytes=1 << 20,
            catchup_entries=self.cluster.catchup,
        )
        holder.append(core)
        return core

    def _encode(self, hard_state: HardState | None, entries: Any) -> WalBatch:
        self._encoded = (hard_state, list(entries))
        return WalBatch(b"", 0, 0, (0, 0), HardState(0, 0, 0))

    def work(self) -> bool:
        """One turn of the driver; True if anything happened."""
        core = self.core
        work = core.turn()
        for message in work.messages:
            assert message.sender == self.id
            self.cluster.send(message)
        if work.persist is not None:
            if work.persist.snapshot is not None:
                self._install(work.persist)
            else:
                hard_state, entries = self._encoded
                self._unwritten = (work.persist, entries, hard_state)
        for target in work.snapshot_targets:
            self._send_snapshot(target)
        wrote = False if self.slow_disk else self.finish_write()
        busy = core.apply_slice()
        core.jobs.step()
        core.hub.pump()
        return bool(busy or wrote or work.messages or work.persist or core.has_work)

    def finish_write(self) -> bool:
        if self._unwritten is None:
            return False
        persist, entries, hard_state = self._unwritten
        self._unwritten = None
        self.writes += 1
        self.disk.write(hard_state, entries)
        self.core.persisted(persist)
        return True

    def _install(self, persist: Persist) -> None:
        assert persist.snapshot is not None
        while not self.core.applier.idle:
            self.core.apply_slice()
        image = self.cluster.files[persist.snapshot.index, persist.snapshot.term]
        self.disk.reset(persist.snapshot, self.core.state_behind_snapshot(persist))
        self.disk.store = DictStore(image)
        batch = self.core.installed(persist, Machine(self.disk.store))
        self.core.hub.restored()
        if batch is not None:
            hard_state, entries = self._encoded
            self._unwritten = (persist, entries, hard_state)
        else:
            self.core.persisted(persist)

    def _send_snapshot(self, target: int) -> None:
        machine = self.core.machine
        meta = SnapshotMeta(machine.applied_index, machine.applied_term, machine.conf_state())
        self.cluster.files[meta.index, meta.term] = self.disk.store.image()
        message = self.core.raft.snapshot_message(target, meta)
        self.cluster.snapshots_sent += 1
        arrived = self.cluster.send(message)
        self.core.raft.report_snapshot(target, meta.index if arrived else None)


class Cluster:
    """Members 1…n, a clock, and a network that can be cut."""

    def __init__(self, size: int = 3, *, seed: int = 1, catchup: int = 50) -> None:
        self.seed = seed
        self.starts = 0
        self.now = 100.0
        self.catchup = catchup
        self.network: deque[Message] = deque()
        self.files: dict[tuple[int, int], Tables] = {}
        self.snapshots_sent = 0
        self._cuts: set[frozenset[int]] = set()
        members = [Member(i, f"m{i}", (f"http://m{i}:1",)) for i in range(1, size + 1)]
        self.peers: dict[int, Peer] = {}
        for member in members:
            store = DictStore()
            Machine(store).bootstrap(members, index=GENESIS[0], term=GENESIS[1])
            self.peers[member.id] = Peer(self, member.id, VirtualDisk(GENESIS, store))

    # ---- network and faults

    def send(self, message: Message) -> bool:
        target = self.peers.get(message.to)
        if target is None or not target.alive or self.cut(message.sender, message.to):
            return False
        wire = msgpack.unpackb(msgpack.packb(to_wire(message)), use_list=True)
        self.network.append(from_wire(wire))
        return True

    def cut(self, one: int, other: int) -> bool:
        return frozenset((one, other)) in self._cuts

    def isolate(self, member_id: int) -> None:
        self._cuts |= {frozenset((member_id, other)) for other in self.peers if other != member_id}

    def heal(self) -> None:
        self._cuts.clear()

    def kill(self, member_id: int) -> None:
        """Nothing in memory or unwritten survives; clients learn nothing but "stopped"."""
        self.peers[member_id].alive = False
        self.peers[member_id].core.close()

    def restart(self, member_id: int) -> None:
        self.peers[member_id] = Peer(self, member_id, self.peers[member_id].disk)

    def add_empty(self, member_id: int) -> Peer:
        self.peers[member_id] = Peer(self, member_id, VirtualDisk((0, 0), DictStore()))
        return self.peers[member_id]

    # ---- time

    def settle(self) -> None:
        """Lets everything happen that happens without time."""
        for _ in range(2000):
            busy = False
            for peer in self.peers.values():
                if peer.alive:
                    busy |= peer.work()
            while self.network:
                busy = True
                message = self.network.popleft()
                target = self.peers[message.to]
                if target.alive and not self.cut(message.sender, message.to):
                    target.core.receive([message])
            if not busy:
                return
        raise AssertionError("the cluster does not come to rest")

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.now += 0.1
            for peer in self.peers.values():
                if peer.alive:
                    peer.core.tick()
            self.settle()

    def elect(self) -> Peer:
        """Ticks until somebody leads and everybody alive and connected follows."""
        for _ in range(200):
            self.tick()
            leaders = [p for p in self.peers.values() if p.alive and p.core.is_leader]
            if leaders:
                leader = max(leaders, key=lambda peer: peer.core.term)
                reachable = [
                    p
                    for p in self.peers.values()
                    if p.alive and (p is leader or not self.cut(p.id, leader.id))
                ]
                if len(reachable) * 2 > len(self.peers) and all(
                    p.core.leader_id == leader.id for p in reachable
                ):
                    return leader
        raise AssertionError("nobody was elected")

    def follower(self) -> Peer:
        return next(p for p in self.peers.values() if p.alive and p.core.role is Role.FOLLOWER)

    # ---- requests

    def put(self, peer: Peer, key: bytes, value: bytes = b"v", lease: int = 0) -> Outcome:
        outcome = Outcome()
        request = rpc_pb2.PutRequest(key=key, value=value, lease=lease)
        peer.core.write(CommandKind.PUT, request.SerializeToString(), outcome)
        return outcome

    def command(self, peer: Peer, kind: CommandKind, request: Any) -> Outcome:
        outcome = Outcome()
        peer.core.write(kind, request.SerializeToString(), outcome)
        return outcome

    def get(self, peer: Peer, key: bytes, *, linearizable: bool = True) -> Outcome:
        outcome = Outcome()
        request = rpc_pb2.RangeRequest(key=key)

        def reading(view: View) -> Any:
            answer = yield from view.range(request)
            return rpc_pb2.RangeResponse.FromString(answer.body)

        peer.core.read(reading, outcome, linearizable=linearizable)
        return outcome
