"""I1 (thesis §3.6.3): at most one node is ever leader in a term."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.messages import (
    Append,
    CommitNotice,
    Heartbeat,
    InstallSnapshot,
    Message,
    ReadReply,
    TimeoutNow,
)
from raft.types import Role
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("OneLeaderPerTerm",)

_LEADERS_SAY = frozenset((Append, CommitNotice, Heartbeat, InstallSnapshot, ReadReply, TimeoutNow))


class OneLeaderPerTerm(Invariant):
    """Looks at roles and at the wire: a leader of a moment still sends something."""

    number = "I1"
    title = "At most one node is ever leader in a term."
    source = "thesis §3.6.3"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._leaders: dict[int, int] = {}

    def changed(self, p: Process) -> None:
        raft = p.raft
        if raft.role is Role.LEADER:
            self._book(raft.term, p.member_id)

    def sent(self, p: Process, message: Message) -> None:
        if type(message) in _LEADERS_SAY:
            self._book(message.term, message.sender)

    def _book(self, term: int, member_id: int) -> None:
        first = self._leaders.setdefault(term, member_id)
        if first != member_id:
            raise self.violated(f"members {first:x} and {member_id:x} both lead term {term}")
