"""Putting a member together, and taking it apart: everything that happens once.

`launch` opens the files and builds the parts; `Running.begin` starts them; `Running.end` stops
them in the reverse order. In between, `Running` is what the loop turns to for everything that
is not the core's: peers, snapshots, the background sweep.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvstore import faults
from kvstore.machine import Machine, Member, View
from kvstore.node.bootstrap import Opened, open_member
from kvstore.node.errors import StopKind, StopReason
from kvstore.node.host import Host
from kvstore.node.lease_calls import LeaseCalls
from kvstore.node.limits import STOP_TRANSFER_S, SWEEP_SLICE_REVISIONS
from kvstore.node.loop import MemberLoop
from kvstore.node.maintenance import Duties
from kvstore.node.member import MemberCore
from kvstore.node.members import MemberChanges
from kvstore.node.overlay import Overlay
from kvstore.node.proposals import RequestIds
from kvstore.node.remote import Handler, LeaderCalls, answer_call
from kvstore.node.snapshots import Snapshots
from kvstore.node.swaps import StoreSwaps
from kvstore.node.threads import Worker
from kvstore.node.timing import Timing
from kvstore.node.transport import Cluster, LocalMember, PeerNetwork
from kvstore.storage.errors import StorageError
from kvstore.storage.store import Store
from kvstore.watch.hub import WatchHub
from raft.config import Config
from raft.errors import RaftError
from raft.messages import Message
from raft.node import Persist, RaftNode

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("Running", "launch")

_LOG = logging.getLogger(__name__)
_LEAVE_ELECTIONS = 3
"""Election timeouts for which a removed member stays connected."""
_REMOVED = "this member was removed from the cluster"
_WATCH_RESPONSE_SLACK_BYTES = 512 * 1024
"""Beside the request limit, what a watch response may hold (etcd's figure)."""


async def launch(
    node: Node, host: Host, network: PeerNetwork, fail: Callable[[StopReason], None]
) -> Running:
    """Opens or creates the member's files and builds its parts; raises StartupError."""
    copies = host.worker("kvstore-copy")
    try:
        opened = await open_member(node.config, host, copies, network)
        try:
            return Running(node, host, opened, copies, network, fail)
        except BaseException:
            await copies.run(opened.files.close)
            raise
    except BaseException:
        await copies.close()
        raise


class Running:
    """The parts of a started member."""

    def __init__(
        self,
        node: Node,
        host: Host,
        opened: Opened,
        copies: Worker,
        network: PeerNetwork,
        fail: Callable[[StopReason], None],
    ) -> None:
        config = node.config
        self.node = node
        self.opened = opened
        self.network = network
        self.copies = copies
        self.answers = host.worker("kvstore-answers")
        self.cluster_id = opened.cluster_id
        self.member_id = opened.member_id
        self.timing = Timing(config.heartbeat_ms, max(2, config.election_ms // config.heartbeat_ms))
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._seeds = opened.seeds
        self._connected: dict[int, Member] = {}
        self._leaving: dict[int, Member] = {}
        self._removal_told = False
        self._ended = False
        self._tell_members: Callable[[], None] = lambda: None
        self._counted = (0, 0, 0, 0, 0)
        self._install: asyncio.Task[None] | None = None
        self._sweep_at = 0.0
        self._sweep_waiters: list[Callable[[], None]] = []
        self.changes = MemberChanges(node, host.wall_s)
        self._answers: dict[str, Callable[[bytes], Awaitable[bytes]]] = {}
        self.leases = LeaseCalls(node)
        own = self._local(node, opened)
        self.peers = network.connect(own)
        self.core = self._build_core(node, host, opened)
        self.loop = MemberLoop(
            self.core,
            opened.wal,
            host.worker("kvstore-wal"),
            self,
            node.metrics,
            fail=self._failed,
            fsync=not config.unsafe_no_fsync,
        )
        self.calls = LeaderCalls(
            self.peers, own, lambda: self.core.leader_id, self.timing.request_s
        )
        self.snapshots = Snapshots(self)
        self.swaps = StoreSwaps(self)
        self.duties = Duties(node)

    @property
    def store(self) -> Store:
        """The open store; another object after an installed snapshot or a defragmentation."""
        return self.opened.store

    # ---- building --------------------------------------------------------------------------

    def _build_core(self, node: Node, host: Host, opened: Opened) -> MemberCore:
        config = node.config
        start = opened.start
        raft = RaftNode(
            Config(
                opened.member_id,
                election_ticks=self.timing.election_ticks,
                pre_vote=config.pre_vote,
                random=host.below,
            ),
            hard_state=start.hard_state,
            conf=start.conf,
            snapshot=start.base,
            entries=start.entries,
            applied=opened.machine.applied_index,
        )
        core = MemberCore(
            member_id=opened.member_id,
            raft=raft,
            encode_log=opened.wal.encode,
            hard_state=start.hard_state,
            machine=opened.machine,
            hub=WatchHub(
                _History(self, opened),
                node.header,
                max_response_bytes=config.max_request_bytes + _WATCH_RESPONSE_SLACK_BYTES,
                random=host.below,
                on_behind=lambda: self.loop.wake(),
            ),
            timing=self.timing,
            clock=self._loop.time,
            request_ids=RequestIds(opened.member_id, int(host.wall_s() * 1000)),
            connected_since=lambda peer_id: self.peers.active_since(peer_id),
            max_request_bytes=config.max_request_bytes,
            catchup_entries=config.snapshot_catchup_entries,
            wall_s=host.wall_s,
        )
        core.on_members = self._members
        return core

    def _local(self, node: Node, opened: Opened) -> LocalMember:
        for name, handler in {
            **self.leases.answer_table(),
            **self.changes.answer_table(),
        }.items():
            self.answer(name, handler)

        def messages(arrived: Sequence[Message]) -> None:
            self.core.receive(arrived)
            self.loop.wake()

        def unreachable(peer_id: int) -> None:
            self.core.raft.report_unreachable(peer_id)

        return LocalMember(
            cluster_id=opened.cluster_id,
            member_id=opened.member_id,
            config=node.config,
            metrics=node.metrics,
            snapshot_dir=opened.files.snapshot_dir,
            on_messages=messages,
            on_unreachable=unreachable,
            on_snapshot=lambda message, path: self.snapshots.received(message, path),
            answers=self._answers,
            cluster=lambda: Cluster(
                opened.cluster_id, tuple(self.core.machine.members.values()) or self._seeds
            ),
            removed=lambda member_id: member_id in self.core.machine.removed_members,
        )

    def answer(self, method: str, handler: Handler) -> None:
        """From now on, peers who ask `method` are answered by `handler`."""
        self._answers[method] = lambda payload: answer_call(handler, payload)

    def support(self, overlay: Overlay) -> None:
        """Tells `overlay` from now on what happens in this member."""
        core = self.core
        core.applier.on_changes = overlay.changed
        self._tell_members = overlay.members_changed
        core.on_leadership = overlay.led
        core.lessor.on_renewed = overlay.renewed
        core.lessor.held = overlay.held
        if core.is_leader:
            overlay.led(True)

    # ---- life ------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Starts serving peers, ticking and the member's own duties."""
        await self.peers.start()
        self._members()
        self.loop.start()
        if self.node.config.initial_election_tick_advance:
            self._advance_election()
        self.snapshots.start()
        self.duties.start()

    def _advance_election(self) -> None:
        """A member that starts alone need not wait out its first election timeout."""
        conf = self.core.raft.conf
        if conf.voters == (self.member_id,):
            self.core.raft.campaign()
            self.loop.wake()

    async def end(self, *, clean: bool) -> None:
        """Stops everything in order; with `clean` the files are closed as trustworthy."""
        self._ended = True
        await self.duties.stop()
        if clean and self.core.is_leader:
            await self._hand_over()
        await self.snapshots.stop()
        self.core.close()
        self.calls.close()
        await self.peers.stop()
        if clean:
            await self._drain()
        await self.swaps.close()
        await self.loop.stop()
        await self.copies.run(lambda: self._close_files(clean))
        await self.copies.close()
        await self.answers.close()

    def _close_files(self, clean: bool) -> None:
        self.opened.wal.close()
        self.opened.files.close(clean=clean)

    async def _hand_over(self) -> None:
        """Gives leadership to the voter that is furthest, so that nobody waits for a timeout."""
        deadline = self._loop.time() + min(STOP_TRANSFER_S, 3 * self.timing.election_s)
        heirs = set(self.core.raft.conf.voters) - {self.member_id}
        while self.core.is_leader and (left_s := deadline - self._loop.time()) > 0:
            # The others may be stopping, too: who has gone is not waited for.
            heirs = {heir for heir in heirs if self.peers.active_since(heir) is not None}
            if not heirs:
                return
            progress = self.core.raft.progress()
            # Who was heard lately first; but each quorum check forgets that, so it is no condition.
            target = max(heirs, key=lambda h: (progress[h].recent_active, progress[h].match))
            if await self.transfer(target, left_s):
                return
            heirs.remove(target)

    async def _drain(self) -> None:
        """Lets the write to disk and the apply under way finish."""
        deadline = self._loop.time() + STOP_TRANSFER_S
        core = self.core
        core.applier.pause()
        while self._loop.time() < deadline:
            if core.persisting is None and core.applier.idle and core.jobs.idle:
                break
            self.loop.wake()
            await asyncio.sleep(0.001)
        words = core.last_words() if core.persisting is None else None
        if words is not None:
            await self.loop.disk.run(lambda: self.opened.wal.write(words, True))

    async def transfer(self, target: int, timeout_s: float) -> bool:
        """Hands leadership to `target`; True once it leads, False once it will not."""
        try:
            self.core.raft.transfer_leader(target)
        except RaftError as error:
            _LOG.info("no transfer of leadership: %s", error)
            return False
        self.loop.wake()
        deadline = self._loop.time() + timeout_s
        core = self.core
        while self._loop.time() < deadline and self.peers.active_since(target) is not None:
            if core.leader_id == target:
                return True
            if core.is_leader and core.raft.transferee != target:
                return False  # Raft has given it up.
            await asyncio.sleep(self.timing.tick_s / 10)
        return False

    def _failed(self, reason: StopReason) -> None:
        """The loop has ended this member; a damaged store is set aside for the next start."""
        if reason.kind is StopKind.STORE:
            try:
                self.opened.files.condemn_store()
                what_next = "The store will be rebuilt at the next start."
            except (StorageError, OSError) as error:
                what_next = f"It could not be set aside ({error}): do so before the next start."
            reason = StopReason(reason.kind, f"{reason.message} {what_next}")
        self._fail(reason)

    # ---- what the loop needs ---------------------------------------------------------------

    def send(self, peer_id: int, messages: list[Message]) -> None:
        """Sends messages to a peer, or drops them."""
        self.peers.send(peer_id, messages)

    def send_snapshot(self, peer_id: int) -> None:
        """Makes or finds a snapshot and sends it."""
        self.snapshots.send(peer_id)

    def begin_install(self, persist: Persist) -> None:
        """Installs a received snapshot; a failure ends the member."""

        def report(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self.loop.broken(error)

        task = self._loop.create_task(self.swaps.install(persist))
        task.add_done_callback(report)
        self._install = task

    def background(self) -> bool:
        """One slice of the sweep, with pauses that leave the disk to others."""
        machine = self.core.machine
        now = self._loop.time()
        if machine.swept or now < self._sweep_at:
            self._tell_swept()
            return False
        machine.sweep(1 if faults.maybe("sweep.one_revision") else SWEEP_SLICE_REVISIONS)
        self._tell_swept()
        config = self.node.config
        pause_s = config.compaction_sleep_ms / 1000
        self._sweep_at = now + pause_s * SWEEP_SLICE_REVISIONS / config.compaction_batch_limit
        if not machine.swept:
            self._loop.call_at(self._sweep_at, self.loop.wake)
        return False

    def when_swept(self, done: Callable[[], None]) -> None:
        """Calls `done` once the store holds nothing that a compaction made unreadable."""
        self._sweep_waiters.append(done)
        self.loop.wake()

    def _tell_swept(self) -> None:
        if self._sweep_waiters and self.core.machine.swept:
            waiters, self._sweep_waiters = self._sweep_waiters, []
            for done in waiters:
                done()

    def after_turn(self) -> None:
        """Sends what gathered for the leader; ends the member once it has been removed."""
        self.calls.flush()
        self._count()
        if self.core.removed:
            self.retire()

    def retire(self) -> None:
        """Ends this member, which was removed; what it still has to say leaves first."""
        if not self._removal_told:
            self._removal_told = True
            self._loop.call_later(
                self.timing.election_s, self._fail, StopReason(StopKind.REMOVED, _REMOVED)
            )

    def _count(self) -> None:
        """Carries the core's counts over into the metrics; the core itself knows none."""
        core = self.core
        present = (
            core.leader_changes,
            core.failed_proposals,
            core.rounds.slow,
            core.rounds.failed,
            core.applier.slow,
        )
        if present == self._counted:
            return
        metrics = self.node.metrics
        counters = (
            metrics.leader_changes,
            metrics.proposals_failed,
            metrics.slow_reads,
            metrics.reads_failed,
            metrics.slow_apply,
        )
        for counter, now, before in zip(counters, present, self._counted, strict=True):
            counter.inc(now - before)
        self._counted = present

    def _members(self) -> None:
        """Connects to the members there are; until the state names any, to those we heard of.

        A member that was removed stays connected for a moment: it should learn why it stops.
        """
        machine = self.core.machine
        members = {m.id: m for m in self._seeds if m.id not in machine.removed_members}
        members.update(machine.members)
        members.pop(self.member_id, None)
        for member_id in self._connected.keys() - members.keys() - self._leaving.keys():
            self._leaving[member_id] = self._connected[member_id]
            self._loop.call_later(_LEAVE_ELECTIONS * self.timing.election_s, self._gone, member_id)
        self._connected = members
        self.peers.update([*members.values(), *self._leaving.values()])
        self._tell_members()

    def _gone(self, member_id: int) -> None:
        del self._leaving[member_id]
        if not self._ended:
            self._members()

    # ---- files -----------------------------------------------------------------------------

    def scratch_dir(self) -> Path:
        """Where large temporary files go: beside the data, on its disk."""
        return self.opened.files.scratch_dir()

    def free_disk_bytes(self) -> int:
        """Space left on the file system of the data directory."""
        return self.opened.files.free_bytes()


class _History:
    """The present machine, for the watch hub."""

    def __init__(self, running: Running, opened: Opened) -> None:
        self._running = running
        self._first = opened.machine

    def _machine(self) -> Machine:
        core = getattr(self._running, "core", None)
        return self._first if core is None else core.machine

    @property
    def revision(self) -> int:
        return self._machine().revision

    def view(self) -> View:
        return self._machine().view()
