"""I39 (etcd #15247, #12528): an expiry decided in one term takes no effect in a later one.

And only a leader decides one: the request id in the entry names the member that did, the entry's
payload the term in which it led.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvstore.machine.command import CommandKind, decode, read_expiry
from raft.types import Entry, Role
from tests.sim.books.canon import canon_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("ExpiryOfOneTerm",)

_MEMBER_BITS = 0xFFFF
_MEMBER_SHIFT = 48


class ExpiryOfOneTerm(Invariant):
    """Books who led which term, and looks at each LEASE_EXPIRE entry."""

    number = "I39"
    title = (
        "An expiry decided in one term takes no effect in a later one; a follower never "
        "originates one."
    )
    source = "etcd #15247, #12528"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)
        self._leaders: dict[int, int] = {}

    def changed(self, p: Process) -> None:
        raft = p.raft
        if raft.role is Role.LEADER:
            self._leaders[raft.term] = p.member_id

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        for item in self._canon.read(p, entries, results):
            if item.canon.kind != CommandKind.LEASE_EXPIRE:
                continue
            command = decode(item.entry.data)
            assert command is not None
            term, leases, _ = read_expiry(command.payload)
            if term != item.entry.term and item.changes:
                raise self.violated(
                    f"{p.name}: entry {item.entry.index} of term {item.entry.term} carries out an "
                    f"expiry of {leases} decided in term {term}"
                )
            leader = self._leaders.get(term)
            who = command.request_id >> _MEMBER_SHIFT & _MEMBER_BITS
            if leader is not None and who != leader & _MEMBER_BITS:
                raise self.violated(
                    f"the expiry of {leases} in entry {item.entry.index} was decided by member "
                    f"…{who:x} for term {term}, which {leader:x} led"
                )
