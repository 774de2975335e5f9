"""One running member, as the front doors see it.

The facade over the core and the loop: what a request needs done is one call here. The hot calls
take a callback (`done(value, error)`, called exactly once, on the loop) and cost neither a task
nor a future; the rare ones are coroutines. Everything runs on the event loop that `start` ran on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from kvstore import errors
from kvstore.errors import TOO_MANY_REQUESTS, Code, EtcdError
from kvstore.machine import Machine, View
from kvstore.machine.command import BatchItem, CommandKind, batch_payload, read_outcomes
from kvstore.machine.membership import Member
from kvstore.machine.quota import DEFAULT_QUOTA_BYTES, batch_cost
from kvstore.metrics import Metrics
from kvstore.node.answers import (
    Answer,
    BatchAnswer,
    HashAnswer,
    LeaseTimes,
    NodeStatus,
    encode_header,
)
from kvstore.node.config import NodeConfig
from kvstore.node.errors import BadConfiguration, StopKind, StopReason
from kvstore.node.host import Host, OsHost
from kvstore.node.lifecycle import Running, launch
from kvstore.node.limits import LARGE_ANSWER_BYTES, MAX_ANSWERS_IN_THREAD_BYTES
from kvstore.node.maintenance import CLUSTER_VERSION
from kvstore.node.members import MemberChanges
from kvstore.node.overlay import Overlay
from kvstore.node.proposals import Done
from kvstore.node.reads import Reading
from kvstore.node.remote import Handler, LeaderCalls
from kvstore.node.streams import range_chunks, snapshot_chunks
from kvstore.node.transport import PeerNetwork
from kvstore.pb import rpc_pb2
from kvstore.pb.names import alarm_name
from kvstore.watch.hub import WatchHub

__all__ = ("Node",)

_LOG = logging.getLogger(__name__)
_MAX_LEASE_ID = (1 << 63) - 1


class Node:
    """One member of a cluster. `start` it, serve from it, `stop` it; it is not started twice."""

    def __init__(
        self,
        config: NodeConfig,
        metrics: Metrics | None = None,
        *,
        network: PeerNetwork,
        host: Host | None = None,
    ) -> None:
        """`network`: how members reach each other (`peers.TcpNetwork` in a server).

        `host`: the machine underneath; the one that this process runs on if not given.
        """
        self.config = config
        self._network = network
        self._host = host or OsHost()
        self.metrics = metrics or Metrics()
        self.cluster_id = 0
        self.member_id = 0
        self._running: Running | None = None
        self._stop_reason: asyncio.Future[StopReason] | None = None
        self._stopped = False
        self._header: tuple[int, int, bytes] = (-1, -1, b"")
        self._joining_bytes = 0
        """Of large answers that a thread puts together."""

    # ---- life ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Opens the data directory, joins the cluster; raises StartupError with a sentence.

        A start that fails, or is cancelled, has taken down by itself what it had put up.
        """
        assert self._running is None, "a node is started once"
        self._stop_reason = asyncio.get_running_loop().create_future()
        running = await launch(self, self._host, self._network, self._fail)
        self._running = running
        self.cluster_id = running.cluster_id
        self.member_id = running.member_id
        try:
            await running.begin()
        except BaseException as error:
            self._stopped = True
            await running.end(clean=True)
            if not isinstance(error, OSError):
                raise
            urls = ", ".join(self.config.listen_peer_urls)
            raise BadConfiguration(f"cannot listen for peers at {urls}: {error}") from error

    async def stop(self) -> None:
        """Hands leadership over, answers what waits, closes the files. Idempotent."""
        if self._running is None or self._stopped:
            return
        self._stopped = True
        reason = StopReason(StopKind.ASKED, "asked to stop")
        ended = self._stop_reason
        assert ended is not None
        clean = not ended.done() or not ended.result().fatal
        await self._running.end(clean=clean)
        if not ended.done():
            ended.set_result(reason)

    async def wait_stopped(self) -> StopReason:
        """Returns when the member has ended, or must end: the caller then calls `stop`."""
        assert self._stop_reason is not None, "the node was not started"
        return await asyncio.shield(self._stop_reason)

    def _fail(self, reason: StopReason) -> None:
        assert self._stop_reason is not None
        if not self._stop_reason.done():
            self._stop_reason.set_result(reason)

    @property
    def running(self) -> Running:
        """The parts of the started member."""
        assert self._running is not None, "the node was not started"
        return self._running

    # ---- readings --------------------------------------------------------------------------

    @property
    def machine(self) -> Machine:
        """The state machine as of the last commit."""
        return self.running.core.applier.machine

    @property
    def watches(self) -> WatchHub:
        """Where watch streams are opened."""
        return self.running.core.hub

    @property
    def calls(self) -> LeaderCalls:
        """Questions to other members."""
        return self.running.calls

    @property
    def term(self) -> int:
        """The Raft term."""
        return self.running.core.term

    @property
    def leader_id(self) -> int:
        """Who leads; 0 when nobody is known to."""
        return self.running.core.leader_id

    @property
    def is_leader(self) -> bool:
        """True while this member believes that it leads."""
        return self.running.core.is_leader

    @property
    def is_learner(self) -> bool:
        """True while this member has no vote."""
        member = self.machine.members.get(self.member_id)
        return member is not None and member.is_learner

    @property
    def joined(self) -> bool:
        """False while the state is older than this member: it was added, and has yet to catch up.

        A member that founded the cluster, or has once caught up, is in its own state for good.
        """
        return self.member_id in self.machine.members

    @property
    def revision(self) -> int:
        """The store's revision."""
        return self.machine.revision

    @property
    def compact_revision(self) -> int:
        """The newest compacted revision; -1 when nothing ever was."""
        return self.machine.compact_revision

    @property
    def lease_count(self) -> int:
        """How many leases there are."""
        return len(self.machine.leases)

    @property
    def pending_proposals(self) -> int:
        """Changes handed in here that are not applied yet."""
        return len(self.running.core.proposals)

    @property
    def remote_members(self) -> list[int]:
        """Ids of all other members, ascending."""
        return sorted(self.machine.members.keys() - {self.member_id})

    @property
    def connected_members(self) -> list[int]:
        """Those of them that this member is connected to."""
        active_since = self.running.peers.active_since
        return [peer for peer in self.remote_members if active_since(peer) is not None]

    @property
    def stopped(self) -> bool:
        """True once the member has ended or must end."""
        return self._stopped or (self._stop_reason is not None and self._stop_reason.done())

    @property
    def cluster_version(self) -> str:
        """The agreed version, such as "3.6.0"; empty when not decided yet."""
        return self.machine.cluster_version

    def clock(self) -> float:
        """Seconds of the member's monotonic clock."""
        return self.running.core.clock()

    def wall_ms(self) -> int:
        """Unix time by this machine's clock, in milliseconds: for people, never for deadlines."""
        return int(self._host.wall_s() * 1000)

    def header(self, revision: int) -> bytes:
        """The encoded `header` field that goes in front of a response; revision 0 is left out."""
        term = self.running.core.term
        cached = self._header
        if cached[0] == revision and cached[1] == term:
            return cached[2]
        encoded = encode_header(self.cluster_id, self.member_id, revision, term)
        self._header = (revision, term, encoded)
        return encoded

    def status(self) -> NodeStatus:
        """This member's view of itself."""
        core = self.running.core
        store = self.running.store
        problems = [] if core.leader_id else [errors.NO_LEADER.message]
        for member_id, alarm in self.alarms():
            problems.append(f"memberID:{member_id} alarm:{alarm_name(alarm)} ")
        return NodeStatus(
            version=CLUSTER_VERSION,
            db_size=store.size_bytes(),
            db_in_use=store.size_in_use_bytes(),
            leader=core.leader_id,
            raft_index=core.raft.commit_index,
            raft_term=core.term,
            applied_index=core.applier.applied_index,
            errors=problems,
            is_learner=self.is_learner,
            storage_version=CLUSTER_VERSION,
            quota=self.config.quota_bytes or DEFAULT_QUOTA_BYTES,
        )

    # ---- writes and reads ------------------------------------------------------------------

    def write(self, kind: CommandKind, payload: bytes, done: Done) -> None:
        """Replicates a command; `done` gets its Result (revision, body) or the error."""
        running = self.running
        running.core.write(kind, payload, done)
        running.loop.wake()

    async def submit(self, kind: CommandKind, payload: bytes) -> Any:
        """`write` for coroutines: returns the Result, raises the error."""
        return await self._awaited(lambda done: self.write(kind, payload, done))

    def range(self, request: rpc_pb2.RangeRequest, done: Done) -> None:
        """Reads a range; `done` gets an Answer. Linearizable unless `request.serializable`."""

        def reading(view: View) -> Any:
            answer = yield from view.range(request)
            return Answer(view.revision, answer.body)

        self.read(reading, done, linearizable=not request.serializable)

    def range_response(self, request: rpc_pb2.RangeRequest, done: Done) -> None:
        """Like `range`; `done` gets the whole RangeResponse, its header included.

        One of 200 MB takes a tenth of a second to put together: that is a thread's work.
        """

        def reading(view: View) -> Any:
            answer = yield from view.range(request)
            return view.revision, answer.chunks

        def put_together(found: Any, error: EtcdError | None) -> None:
            if error is not None:
                done(None, error)
                return
            revision, chunks = found
            parts = (self.header(revision), *chunks)
            size = sum(map(len, parts))
            if size < LARGE_ANSWER_BYTES:
                done(b"".join(parts), None)
            elif self._joining_bytes and self._joining_bytes + size > MAX_ANSWERS_IN_THREAD_BYTES:
                done(None, TOO_MANY_REQUESTS)
            else:
                self._joining_bytes += size
                self.running.answers.submit(lambda: b"".join(parts), partial(joined, size))

        def joined(size: int, response: Any, failure: BaseException | None) -> None:
            self._joining_bytes -= size
            if failure is None:
                done(response, None)
            else:  # no memory for it: nothing else can happen to a join
                done(None, EtcdError(Code.RESOURCE_EXHAUSTED, f"etcdserver: {failure!r}"))

        self.read(reading, put_together, linearizable=not request.serializable)

    def read_txn(self, request: rpc_pb2.TxnRequest, serializable: bool, done: Done) -> None:
        """Runs a transaction that only reads; `done` gets an Answer."""

        def reading(view: View) -> Any:
            body = yield from view.read_txn(request)
            return Answer(view.revision, body)

        self.read(reading, done, linearizable=not serializable)

    def read(self, start: Reading, done: Done, *, linearizable: bool) -> None:
        """Runs any reading of a view."""
        running = self.running
        running.core.read(start, done, linearizable=linearizable)
        running.loop.wake()

    async def reading(self, start: Reading, *, linearizable: bool) -> Any:
        """`read` for coroutines."""
        return await self._awaited(lambda done: self.read(start, done, linearizable=linearizable))

    def range_chunks(
        self, request: rpc_pb2.RangeRequest, max_bytes: int
    ) -> AsyncIterator[tuple[int, bytes, bool]]:
        """A range in pieces: (revision, RangeResponse without header, whether it is the last)."""
        return range_chunks(self, request, max_bytes)

    async def linearize(self) -> None:
        """Returns when the state here is at least as new as the cluster's at the call."""

        def confirm(done: Done) -> None:
            self.running.core.confirm(lambda error: done(None, error))
            self.running.loop.wake()

        await self._awaited(confirm)

    async def _awaited(self, call: Callable[[Done], None]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(value: Any, error: EtcdError | None) -> None:
            if future.done():
                return
            if error is not None:
                # A fresh one: the catalogue's must not collect tracebacks.
                future.set_exception(
                    EtcdError(error.code, error.message, outcome_known=error.outcome_known)
                )
            else:
                future.set_result(value)

        call(done)
        return await future

    def over_quota(self, cost_bytes: int) -> bool:
        """True when a write of this cost does not fit; the NOSPACE alarm is raised then."""
        if not self.machine.over_quota(cost_bytes):
            return False
        self.running.duties.alarm_soon(rpc_pb2.NOSPACE)
        return True

    def batch(self, items: Sequence[BatchItem], done: Done, *, if_term: int = 0) -> None:
        """Replicates many independent changes of single keys as one entry, in one revision.

        `done` gets a BatchAnswer, with the outcome of each item. With `if_term` nothing of it
        applies in any other term. Refused as a whole when it is too large, or when it puts
        something and the database is full.
        """
        assert all(item.key for item in items), "an item without a key"
        cost = batch_cost(items)
        if cost and self.over_quota(cost):
            done(None, errors.NO_SPACE)
            return

        def answered(result: Any, error: EtcdError | None) -> None:
            if error is not None:
                done(None, error)
            else:
                done(BatchAnswer(result.revision, read_outcomes(result.body)), None)

        self.write(CommandKind.BATCH, batch_payload(self.wall_ms(), if_term, items), answered)

    async def submit_batch(self, items: Sequence[BatchItem], *, if_term: int = 0) -> BatchAnswer:
        """`batch` for coroutines: returns the answer, raises the error."""
        answer: BatchAnswer = await self._awaited(
            lambda done: self.batch(items, done, if_term=if_term)
        )
        return answer

    # ---- a layer on top --------------------------------------------------------------------

    def support(self, overlay: Overlay) -> None:
        """Tells `overlay` from now on what happens in this member; there can be one."""
        self.running.support(overlay)

    def answer(self, method: str, handler: Handler) -> None:
        """From now on, members who ask `method` (`calls.ask`) are answered by `handler`."""
        self.running.answer(method, handler)

    # ---- leases ----------------------------------------------------------------------------

    def new_lease_id(self) -> int:
        """A positive 63-bit lease id that no other member gives out."""
        lease_id = 0
        while not lease_id or lease_id in self.machine.leases:
            lease_id = self.running.core.proposals.new_id() & _MAX_LEASE_ID
        return lease_id

    def lease_list(self) -> list[int]:
        """Ids of all leases here; on the leader those that end soonest come first."""
        leases = self.machine.leases
        lessor = self.running.core.lessor
        if not lessor.primary:
            return sorted(leases, key=lambda lease_id: leases[lease_id].ttl_s)
        now = self.clock()
        return sorted(leases, key=lambda lease_id: lessor.remaining_s(lease_id, now) or 0.0)

    def lease_keep_alive(self, lease_id: int, done: Done) -> None:
        """Renews a lease, here or at the leader; `done` gets the TTL, 0 if there is none."""
        self.running.leases.keep_alive(lease_id, done)

    def renew_leases(self, lease_ids: Sequence[int], done: Done) -> None:
        """Renews many leases (MAX_RENEWALS_PER_CALL at most), here or at the leader.

        `done` gets the list of their TTLs, 0 for each that there is not.
        """
        self.running.leases.renew(lease_ids, done)

    def expiring(self, lease_ids: Sequence[int]) -> None:
        """Whoever holds these leases ends them now: the leader renews them no more."""
        core = self.running.core
        core.lessor.expiring(lease_ids, core.clock())

    async def lease_time_to_live(self, lease_id: int, keys: bool) -> LeaseTimes:
        """Remaining and granted time, as the leader counts it; ttl -1 when there is none."""
        return await self.running.leases.times(lease_id, keys)

    # ---- members ---------------------------------------------------------------------------

    async def members(self, linearizable: bool) -> list[Member]:
        """All members by id; with `linearizable`, as of now or later."""
        if linearizable:
            await self.linearize()
        return sorted(self.machine.members.values())

    async def member_add(
        self, peer_urls: list[str], is_learner: bool
    ) -> tuple[Member, list[Member]]:
        """Adds a member that is about to be started; returns it and all members."""
        return await self._changes.add(tuple(peer_urls), is_learner)

    async def member_remove(self, member_id: int) -> list[Member]:
        """Removes a member for good; its id can not come back."""
        return await self._changes.remove(member_id)

    async def member_update(self, member_id: int, peer_urls: list[str]) -> list[Member]:
        """Replaces a member's peer URLs."""
        return await self._changes.update(member_id, tuple(peer_urls))

    async def member_promote(self, member_id: int) -> list[Member]:
        """Gives a learner that has caught up a vote."""
        return await self._changes.promote(member_id)

    @property
    def _changes(self) -> MemberChanges:
        return self.running.changes

    async def move_leader(self, target: int, timeout_s: float) -> None:
        """Hands leadership to a voter; only the leader can."""
        core = self.running.core
        if not core.is_leader:
            raise errors.NOT_LEADER
        member = self.machine.members.get(target)
        if member is None or member.is_learner:
            raise errors.BAD_LEADER_TRANSFEREE
        if target == self.member_id:
            return
        if not await self.running.transfer(target, timeout_s):
            raise errors.TIMEOUT_LEADER_TRANSFER

    # ---- maintenance -----------------------------------------------------------------------

    def alarms(self) -> list[tuple[int, int]]:
        """Active alarms as (member id, type)."""
        return sorted(self.machine.alarms)

    async def hash_kv(self, revision: int) -> HashAnswer:
        """The hash of the history up to a revision (0: the present one), of this member."""

        def reading(view: View) -> Any:
            answer = yield from view.hash_kv(revision)
            return HashAnswer(view.revision, *answer)

        answer: HashAnswer = await self.reading(reading, linearizable=False)
        return answer

    async def hash(self) -> int:
        """A hash of this member's whole state."""

        def reading(view: View) -> Any:
            return (yield from view.hash())

        value: int = await self.reading(reading, linearizable=False)
        return value

    async def defragment(self) -> None:
        """Rewrites the store's file without its free space; applying waits meanwhile."""
        await self.running.swaps.defragment()

    def when_swept(self, done: Callable[[], None]) -> None:
        """Calls `done` once this member's store holds nothing of what was compacted."""
        self.running.when_swept(done)

    def snapshot_chunks(self, chunk: int = 32_768) -> AsyncIterator[tuple[bytes, int]]:
        """The state as a snapshot file, in pieces: (bytes, how many bytes remain)."""
        return snapshot_chunks(self, chunk)

    def free_disk_bytes(self) -> int:
        """Space left on the file system of the data directory."""
        return self.running.free_disk_bytes()
