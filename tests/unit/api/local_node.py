"""A member of one, without Raft: the real machine and watch hub, writes applied at once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.machine.command import CommandKind, encode, expiry_payload
from kvstore.machine.jobs import run
from kvstore.machine.machine import Machine
from kvstore.machine.membership import Member
from kvstore.node.config import NodeConfig
from kvstore.pb import rpc_pb2
from kvstore.storage.memory_store import MemoryStore
from kvstore.watch.hub import WatchHub
from raft.types import Entry, EntryKind

Done = Callable[[Any, EtcdError | None], None]

TICK_S = 0.02
MEMBER_ID = 0x8E9E05C52164694D
CLUSTER_ID = 0xCDF818194E3A8C32


class Answer(NamedTuple):
    revision: int
    body: bytes


class LeaseTimes(NamedTuple):
    ttl: int
    granted_ttl: int
    keys: list[bytes]


class Status(NamedTuple):
    version: str
    db_size: int
    db_in_use: int
    leader: int
    raft_index: int
    raft_term: int
    applied_index: int
    errors: list[str]
    is_learner: bool
    storage_version: str
    quota: int


def config(**changes: Any) -> NodeConfig:
    """A configuration that needs no disk and no peers."""
    values: dict[str, Any] = {
        "name": "local",
        "data_dir": Path("/nonexistent"),
        "listen_peer_urls": (),
        "advertise_peer_urls": ("http://localhost:2380",),
        "advertise_client_urls": ("http://localhost:2379",),
        "initial_cluster": {},
    }
    return NodeConfig(**(values | changes))


class LocalNode:
    """The facade that API services see; the attributes below it are switches for tests."""

    def __init__(self, **changes: Any) -> None:
        self.config = config(**changes)
        self.cluster_id = CLUSTER_ID
        self.member_id = MEMBER_ID
        self.leader_id = MEMBER_ID
        self.is_learner = False
        self.stopped = False
        self.full = False
        self.held_writes: list[Callable[[], None]] | None = None
        """A list: writes wait in it until the test runs them."""
        self.moved_to: int | None = None
        self.machine = Machine(MemoryStore(Machine.TABLES))
        self.machine.bootstrap(
            [Member(MEMBER_ID, "local", ("http://localhost:2380",), ("http://localhost:2379",))],
            index=1,
            term=1,
        )
        self._random = random.Random(7)
        self.watches = WatchHub(
            self.machine,
            self.header,
            max_response_bytes=self.config.max_request_bytes + 512 * 1024,
            random=self._random.randrange,
            on_behind=self._behind,
        )
        self._pumping = False
        self._deadlines: dict[int, float] = {}
        self._ticker: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def stop(self) -> None:
        self.stopped = True
        if self._ticker is not None:
            self._ticker.cancel()

    @property
    def revision(self) -> int:
        return self.machine.revision

    def header(self, revision: int) -> bytes:
        header = rpc_pb2.ResponseHeader(
            cluster_id=CLUSTER_ID, member_id=MEMBER_ID, revision=revision, raft_term=2
        )
        field: bytes = rpc_pb2.PutResponse(header=header).SerializeToString()
        return field

    # Writes

    def write(self, kind: int, payload: bytes, done: Done) -> None:
        if self.held_writes is not None:
            self.held_writes.append(lambda: self._write(kind, payload, done))
        else:
            self._write(kind, payload, done)

    def _write(self, kind: int, payload: bytes, done: Done) -> None:
        index = self.machine.applied_index + 1
        data = encode(CommandKind(kind), index, payload)
        batch = self.machine.begin([Entry(index, 1, EntryKind.NORMAL, data)])
        while not batch.step():
            pass
        self.watches.publish(batch.changes)
        self._sync_leases()
        result = batch.results[0]
        if result.error is not None:
            done(None, result.error)
        else:
            done(result, None)

    def _behind(self) -> None:
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self.watches.pump():
            self._behind()

    # Reads

    def range(self, request: rpc_pb2.RangeRequest, done: Done) -> None:
        self._read(lambda view: run(view.range(request)).body, done)

    def range_response(self, request: rpc_pb2.RangeRequest, done: Done) -> None:
        def whole(answer: Answer | None, error: EtcdError | None) -> None:
            done(None if answer is None else self.header(answer.revision) + answer.body, error)

        self.range(request, whole)

    def read_txn(self, request: rpc_pb2.TxnRequest, serializable: bool, done: Done) -> None:
        self._read(lambda view: run(view.read_txn(request)), done)

    def _read(self, reading: Callable[[Any], bytes], done: Done) -> None:
        with self.machine.view() as view:
            try:
                answer = Answer(view.revision, reading(view))
            except EtcdError as error:
                done(None, error)
                return
        done(answer, None)

    async def range_chunks(
        self, request: rpc_pb2.RangeRequest, max_bytes: int
    ) -> AsyncIterator[tuple[int, bytes, bool]]:
        answers: list[Any] = []
        self.range(request, lambda answer, error: answers.append(error or answer))
        if isinstance(answers[0], EtcdError):
            raise answers[0]
        whole = rpc_pb2.RangeResponse.FromString(answers[0].body)
        while len(whole.kvs) > 10:
            piece = rpc_pb2.RangeResponse(kvs=whole.kvs[:10])
            del whole.kvs[:10]
            yield answers[0].revision, piece.SerializeToString(), False
        yield answers[0].revision, whole.SerializeToString(), True

    async def linearize(self) -> None:
        if not self.leader_id:
            raise errors.TIMEOUT

    # Leases

    def _sync_leases(self) -> None:
        now = time.monotonic()
        for lease_id, lease in self.machine.leases.items():
            self._deadlines.setdefault(lease_id, now + lease.ttl_s)
        for lease_id in self._deadlines.keys() - self.machine.leases.keys():
            del self._deadlines[lease_id]

    def _tick(self) -> None:
        now = time.monotonic()
        due = [lease_id for lease_id, deadline in self._deadlines.items() if deadline <= now]
        if due:
            payload = expiry_payload(1, due, 0)
            self._write(CommandKind.LEASE_EXPIRE, payload, lambda _result, _error: None)
        self.start()

    def lease_keep_alive(self, lease_id: int, done: Done) -> None:
        lease = self.machine.leases.get(lease_id)
        if lease is None:
            done(0, None)
            return
        self._deadlines[lease_id] = time.monotonic() + lease.ttl_s
        done(lease.ttl_s, None)

    async def lease_time_to_live(self, lease_id: int, keys: bool) -> LeaseTimes:
        lease = self.machine.leases.get(lease_id)
        if lease is None:
            return LeaseTimes(-1, 0, [])
        with self.machine.view() as view:
            attached = run(view.lease_keys(lease_id)) if keys else []
        left = self._deadlines[lease_id] - time.monotonic()
        return LeaseTimes(int(left), lease.ttl_s, attached)

    def lease_list(self) -> list[int]:
        return sorted(self._deadlines, key=self._deadlines.__getitem__)

    def new_lease_id(self) -> int:
        return self._random.randrange(1, 2**63)

    # Members and maintenance

    async def member_add(
        self, peer_urls: list[str], is_learner: bool
    ) -> tuple[Member, list[Member]]:
        member = Member(77, "", tuple(peer_urls), (), is_learner)
        return member, [member, *self.machine.members.values()]

    async def member_remove(self, member_id: int) -> list[Member]:
        if member_id not in self.machine.members:
            raise errors.MEMBER_NOT_FOUND
        return []

    async def member_update(self, member_id: int, peer_urls: list[str]) -> list[Member]:
        if member_id not in self.machine.members:
            raise errors.MEMBER_NOT_FOUND
        return [self.machine.members[member_id]._replace(peer_urls=tuple(peer_urls))]

    async def member_promote(self, member_id: int) -> list[Member]:
        raise errors.MEMBER_NOT_LEARNER

    async def members(self, linearizable: bool) -> list[Member]:
        return list(self.machine.members.values())

    def alarms(self) -> list[tuple[int, int]]:
        return sorted(self.machine.alarms)

    async def hash_kv(self, revision: int) -> Any:
        with self.machine.view() as view:
            return run(view.hash_kv(revision))

    async def hash(self) -> int:
        with self.machine.view() as view:
            return int(run(view.hash()))

    async def defragment(self) -> None:
        pass

    def when_swept(self, done: Callable[[], None]) -> None:
        while not self.machine.sweep(100):
            pass
        done()

    async def snapshot_chunks(self, chunk: int) -> AsyncIterator[tuple[bytes, int]]:
        content = bytes(range(256)) * 401 + b"tail"
        while content:
            blob, content = content[:chunk], content[chunk:]
            yield blob, len(content)

    async def move_leader(self, target: int, timeout_s: float) -> None:
        if target not in self.machine.members:
            raise errors.BAD_LEADER_TRANSFEREE
        self.moved_to = target

    def status(self) -> Status:
        index = self.machine.applied_index
        return Status(
            "3.6.0", 4096, 2048, self.leader_id, index, 2, index, [], self.is_learner, "3.6.0", 1
        )

    def over_quota(self, cost_bytes: int) -> bool:
        return self.full
