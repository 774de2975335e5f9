"""I17 (etcd #14370; reliability R8): what is promised is on disk before the promise leaves.

Every vote, acknowledgement and word of a leader is held against what the disk has been synced
with (see `durable`); one in some hundred against the whole durable image, read anew. That a
client's success is durable follows: it is given for what is applied, which is on this disk
(I13) and on a quorum (I11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raft.messages import (
    Append,
    AppendReply,
    CommitNotice,
    Heartbeat,
    InstallSnapshot,
    Message,
    RequestVote,
    VoteReply,
)
from raft.types import Entry, Role
from tests.sim.books.durable import DurableLog, durable_logs, image_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("PromisesAreDurable",)

_FULL_SCAN_EVERY = 200
"""Promises of a process between two readings of its whole durable image."""


class PromisesAreDurable(Invariant):
    """One comparison of numbers per message."""

    number = "I17"
    title = (
        "No vote grant, append acknowledgement or client success leaves a node before the state "
        "it promises is in that node's durable image."
    )
    source = "etcd #14370; reliability R8"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._durable = durable_logs(world)
        self._promises: dict[str, int] = {}

    def started(self, p: Process) -> None:
        self._durable.begin(p)

    def stopped(self, p: Process, why: str) -> None:
        self._durable.end(p)

    def sent(self, p: Process, message: Message) -> None:
        wanted = _promised(message)
        if wanted is None:
            return
        log = self._durable.of(p)
        if log is None:
            return
        term, vote, last = wanted
        if isinstance(message, RequestVote) and p.raft.role is not Role.CANDIDATE:
            # It waited for the disk, and meanwhile another was elected, whose entries may have
            # replaced those that it speaks of. Nobody stands for election by it any more.
            last = 0
        self._check(p, message, log, "the synced log", term, vote, last)
        count = self._promises.get(p.name, 0) + 1
        self._promises[p.name] = count
        if count % _FULL_SCAN_EVERY == 0:
            self._check(p, message, image_of(p), "the durable image", term, vote, last)

    def _check(
        self,
        p: Process,
        message: Message,
        log: DurableLog,
        where: str,
        term: int,
        vote: int,
        last: int,
    ) -> None:
        name = type(message).__name__
        has = log.hard_state
        if has.term < term or (vote and has.term == term and has.vote != vote):
            raise self.violated(
                f"{p.name} sent a {name} of term {term}"
                + (f" with its vote for {vote:x}" if vote else "")
                + f", but {where} has term {has.term}, vote {has.vote:x}"
            )
        if last > log.last:
            raise self.violated(
                f"{p.name} sent a {name} of term {term} that promises entry {last}, but {where} "
                f"ends at {log.last}"
            )
        held, durable = p.raft.term_at(last), log.term_at(last)
        if held is not None and durable is not None and held != durable and p.raft.term == term:
            raise self.violated(
                f"{p.name} sent a {name} of term {term} that promises entry {last} of term "
                f"{held}, but {where} has one of term {durable} there"
            )

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        log = self._durable.of(p)
        if log is None:
            return
        newest = entries[-1]
        durable = log.term_at(newest.index)
        if newest.index > log.last or durable not in (None, newest.term):
            raise self.violated(
                f"{p.name} applied entry {newest.index} of term {newest.term}, but its synced log "
                f"ends at {log.last} and has term {durable} there"
            )


def _promised(message: Message) -> tuple[int, int, int] | None:
    """(term, vote or 0, last index) that a message vouches for; None if it promises nothing."""
    match message:
        case VoteReply(granted=True):
            return message.term, message.to, 0
        case RequestVote():
            return message.term, message.sender, message.last_index
        case AppendReply(rejected=False):
            return message.term, 0, message.index
        case Append() | CommitNotice() | Heartbeat() | InstallSnapshot():
            return message.term, message.sender, 0
        case _:
            return None
