"""I11 (openraft): a committed index is on a quorum of the configuration in force.

Counted on the wire: what a follower has acknowledged to this leader in this term (that such a
word is only given when it is true, I17 sees to), and the leader's own disk. Nor may the leader
believe of a follower what it has not acknowledged in this term: an older word may be about entries
that are gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.messages import AppendReply, Message
from raft.types import ConfState, Role
from tests.sim.books.inside import progress_of
from tests.sim.invariants.i10_majorities_meet import majority
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("CommitNeedsAQuorum",)


_TAKEN_IN_STEPS = 2
"""What a process is given in one step it works through in the next."""


class CommitNeedsAQuorum(Invariant):
    """Looks whenever a leader's commit index has moved."""

    number = "I11"
    title = (
        "A committed index is on a quorum of the configuration in force; a leader outside that "
        "configuration does not count itself."
    )
    source = "openraft"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._acknowledged: dict[tuple[int, int, int], int] = {}
        """(term, leader, follower) → the highest index acknowledged."""
        self._late: dict[str, int] = {}
        """Process → steps in which it may take in an acknowledgement of an older term."""
        self._led: dict[str, tuple[int, int, ConfState]] = {}

    def sent(self, p: Process, message: Message) -> None:
        if isinstance(message, AppendReply) and not message.rejected:
            place = (message.term, message.to, message.sender)
            if message.index > self._acknowledged.get(place, 0):
                self._acknowledged[place] = message.index

    def received(self, p: Process, message: Message) -> None:
        if isinstance(message, AppendReply) and message.term < p.raft.term:
            self._late[p.name] = _TAKEN_IN_STEPS

    def stepped(self, p: Process) -> None:
        left = self._late.get(p.name)
        if left is not None:
            self._check_beliefs(p)
            if left > 1:
                self._late[p.name] = left - 1
            else:
                del self._late[p.name]

    def _check_beliefs(self, p: Process) -> None:
        raft = p.raft
        if raft.role is not Role.LEADER:
            return
        for peer, progress in progress_of(p).items():
            told = self._acknowledged.get((raft.term, p.member_id, peer), 0)
            if peer != p.member_id and progress.match > told:
                raise self.violated(
                    f"{p.name}, leader of term {raft.term}, believes that member {peer:x} has its "
                    f"entries up to {progress.match}; acknowledged in this term is {told}"
                )

    def started(self, p: Process) -> None:
        self._led.pop(p.name, None)

    def changed(self, p: Process) -> None:
        raft = p.raft
        if raft.role is not Role.LEADER:
            self._led.pop(p.name, None)
            return
        commit = raft.commit_index
        before = self._led.get(p.name)
        if before is not None and before[1] == commit and before[2] is raft.conf:
            return
        self._led[p.name] = (raft.term, commit, raft.conf)
        self._check_beliefs(p)
        if before is None or before[0] != raft.term or commit == before[1]:
            return
        # The configuration may have been switched in the same step, before or after the count.
        if not any(self._on_quorum(p, commit, conf) for conf in (raft.conf, before[2])):
            holders = {
                f"{voter:x}": self._acknowledged.get((raft.term, p.member_id, voter), 0)
                for voter in raft.conf.voters
            }
            raise self.violated(
                f"{p.name}, leader of term {raft.term}, committed {commit} on less than a quorum: "
                f"acknowledged {holders}, own disk {raft.stable_index}"
            )

    def _on_quorum(self, p: Process, index: int, conf: ConfState) -> bool:
        raft, own = p.raft, p.member_id
        told = self._acknowledged
        count = 0
        for voter in conf.voters:
            has = raft.stable_index if voter == own else told.get((raft.term, own, voter), 0)
            count += has >= index
        return count >= majority(conf)
