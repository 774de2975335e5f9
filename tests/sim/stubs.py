"""Stand-ins for a world and its processes: an invariant is shown a history that is made by hand.

A stub has what the invariants ask of a process and nothing behind it. Its log is a real
`RaftLog`, its state machine a real `Machine` on a store in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from kvstore.machine import Machine, Member, Result
from kvstore.machine.command import CommandKind, encode
from kvstore.storage.memory_store import MemoryStore
from raft.config import Config
from raft.log import RaftLog
from raft.state import ReadQueue
from raft.types import NO_NODE, ConfState, Entry, EntryKind, HardState, Role
from tests.linear.history import Operation, Outcome, Response, WatchRecord, WatchResponse
from tests.sim.observer import Invariant, Violated
from tests.sim.prng import Prng

__all__ = (
    "StubProcess",
    "StubRaft",
    "StubWorld",
    "apply",
    "command",
    "done",
    "entry",
    "invoke",
    "objection",
    "watch",
)

GENESIS = 1
"""Index and term behind which every log begins."""


class StubWorld:
    """A time, and processes by name."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.prng = Prng(1)
        self.processes: dict[str, StubProcess] = {}


class StubRaft:
    """What RaftNode shows, as plain fields; the indexes come from its log."""

    def __init__(self, member_id: int) -> None:
        log = RaftLog((GENESIS, GENESIS), [], commit=GENESIS, applied=GENESIS)
        self.role = Role.FOLLOWER
        self.term = GENESIS
        self.vote = NO_NODE
        self.leader_id = NO_NODE
        self.conf = ConfState((1, 2, 3))
        self._state: Any = SimpleNamespace(
            log=log,
            pending_snapshot=None,
            progress={},
            reads=ReadQueue(),
            uncommitted_bytes=0,
            config=Config(member_id, random=lambda bound: 0),
        )

    @property
    def log(self) -> RaftLog:
        """The log, to be changed at will."""
        log: RaftLog = self._state.log
        return log

    commit_index = property(lambda self: self.log.commit)
    applied_index = property(lambda self: self.log.applied)
    last_index = property(lambda self: self.log.last_index)
    stable_index = property(lambda self: self.log.stable)

    def term_at(self, index: int) -> int | None:
        """The term of an entry."""
        return self.log.term_at(index)

    def lead(self, term: int) -> None:
        """This member leads."""
        self.role, self.term, self.vote = Role.LEADER, term, self._state.config.node_id
        self.leader_id = self.vote

    def follow(self, term: int, leader_id: int = NO_NODE) -> None:
        """This member follows."""
        self.role, self.term, self.leader_id = Role.FOLLOWER, term, leader_id

    def append(self, *entries: Entry, commit: int = 0) -> None:
        """Entries come in, replacing what stands at their place, and are on disk at once."""
        log = self.log
        if entries:
            log._entries[entries[0].index - log.base_index - 1 :] = entries
            log.stable = log.in_flight = log.last_index
        log.commit = max(log.commit, commit)


class StubProcess:
    """A process that runs; `n1` is member 1 and so on."""

    def __init__(self, world: StubWorld, member_id: int = 1) -> None:
        self.name = f"n{member_id}"
        self.member_id = member_id
        self.incarnation = 1
        self.alive = True
        self.paused = False
        self.raft = StubRaft(member_id)
        self.machine = Machine(MemoryStore(Machine.TABLES))
        founders = [Member(number, (f"http://n{number}",)) for number in (1, 2, 3)]
        self.machine.bootstrap(founders, index=GENESIS, term=GENESIS)
        self.config = SimpleNamespace(
            unsafe_no_fsync=False,
            max_request_bytes=1024,
            election_ms=1000,
            pre_vote=True,
            compact_hash_check_s=10.0,
            corrupt_check_s=0.0,
        )
        self.core = SimpleNamespace(
            persisting=None,
            _inbox=[],
            raft=SimpleNamespace(has_ready=lambda: False),
            proposals=_Sized(0),
            rounds=SimpleNamespace(_arrived=[]),
            jobs=SimpleNamespace(_running=[], paused=False),
            lessor=SimpleNamespace(renew=lambda lease_id, now, done: done(0, None)),
        )
        self.hub = SimpleNamespace(_streams=[])
        self.wal = SimpleNamespace(
            _writer=SimpleNamespace(_segments=[SimpleNamespace(first_index=GENESIS + 1)])
        )
        self.snapshots = [SimpleNamespace(index=GENESIS)]
        files = SimpleNamespace(snapshots=lambda: self.snapshots, store_open=True)
        self.running = SimpleNamespace(
            snapshots=SimpleNamespace(_files=files),
            opened=SimpleNamespace(files=files),
            loop=SimpleNamespace(_running=True),
        )
        self.start = SimpleNamespace(
            hard_state=HardState(GENESIS, NO_NODE, GENESIS), base=(GENESIS, GENESIS), entries=[]
        )
        world.processes[self.name] = self

    def restarted(self) -> None:
        """The same member, another process, with the disk of the one before."""
        self.incarnation += 1
        log = self.raft.log
        self.start = SimpleNamespace(
            hard_state=HardState(self.raft.term, self.raft.vote, log.commit),
            base=(log.base_index, log.base_term),
            entries=list(log._entries),
        )


class _Sized:
    """A queue of a length that can be set."""

    def __init__(self, length: int) -> None:
        self.length = self.queued = length

    def __len__(self) -> int:
        return self.length


def entry(index: int, term: int, data: bytes = b"", *, kind: int = EntryKind.NORMAL) -> Entry:
    """An entry of a log."""
    return Entry(index, term, int(kind), data)


_requests = [0]


def command(kind: CommandKind, request: Any, *, member_id: int = 1) -> bytes:
    """The data of an entry: a request, under an id that no other has."""
    _requests[0] += 1
    payload = request if isinstance(request, bytes) else request.SerializeToString()
    return encode(kind, member_id << 48 | _requests[0], payload)


def apply(
    p: StubProcess, *datas: bytes, term: int = 2, watchers: Sequence[Invariant] = ()
) -> tuple[list[Entry], list[Result]]:
    """Applies entries with these data in one batch, and shows that to the invariants."""
    first = p.machine.applied_index + 1
    entries = [entry(index, term, data) for index, data in enumerate(datas, first)]
    batch = p.machine.begin(entries)
    while not batch.step():
        pass
    for invariant in watchers:
        invariant.applied(p, entries, batch.results)  # type: ignore[arg-type]
    return entries, batch.results


@contextmanager
def objection(number: str) -> Iterator[None]:
    """What stands inside breaks this promise, and the invariant says so."""
    with pytest.raises(Violated) as raised:
        yield
    assert raised.value.number == number
    assert len(raised.value.sentence) > 20


def invoke(invariant: Invariant, client: int, call: int, request: Any) -> Operation:
    """A client sends a request."""
    op = Operation(client, call, request)
    invariant.invoked(op)
    return op


def done(
    invariant: Invariant,
    op: Operation,
    ret: int,
    response: Response | None,
    outcome: Outcome = Outcome.OK,
) -> None:
    """It is answered."""
    op.ret, op.response, op.outcome = ret, response, outcome
    invariant.completed(op)


def watch(invariant: Invariant, record: WatchRecord, *responses: WatchResponse) -> None:
    """Responses reach a watcher."""
    for response in responses:
        record.responses.append(response)
        invariant.watched(record, response)
