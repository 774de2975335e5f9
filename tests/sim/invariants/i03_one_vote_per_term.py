"""I3 (thesis §3.4): a node grants at most one vote per term, counting votes before a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.messages import Message, RequestVote, VoteReply
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("OneVotePerTerm",)


class OneVotePerTerm(Invariant):
    """Books every vote that leaves a process; asking for votes is a vote for oneself."""

    number = "I3"
    title = "A node grants at most one vote per term, counting votes before a crash."
    source = "thesis §3.4"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._votes: dict[tuple[int, int], int] = {}

    def sent(self, p: Process, message: Message) -> None:
        if isinstance(message, RequestVote):
            candidate = message.sender
        elif isinstance(message, VoteReply) and message.granted:
            candidate = message.to
        else:
            return
        before = self._votes.setdefault((message.term, message.sender), candidate)
        if before != candidate:
            raise self.violated(
                f"member {message.sender:x} voted in term {message.term} for {before:x} "
                f"and for {candidate:x}"
            )
