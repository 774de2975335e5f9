"""I2 (thesis §3.3): a node's term and (term, vote) never go back, across restarts included.

While a process lives its memory is looked at. Across a restart only what it had promised to
others counts: a term that never reached the disk may be forgotten if nobody was told.
"""

from __future__ import annotations

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
from raft.types import NO_NODE
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("TermAndVoteStay",)

_AS_LEADER_OR_CANDIDATE = frozenset((Append, CommitNotice, Heartbeat, InstallSnapshot, RequestVote))


class TermAndVoteStay(Invariant):
    """Keeps (term, vote) of the last step, and the greatest promised by each member."""

    number = "I2"
    title = "A node's term and (term, vote) never go back, across restarts included."
    source = "thesis §3.3"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._now: dict[str, tuple[int, int]] = {}
        self._promised: dict[int, tuple[int, int]] = {}

    def started(self, p: Process) -> None:
        term, vote = p.start.hard_state[:2]
        promised_term, promised_vote = self._promised.get(p.member_id, (0, NO_NODE))
        forgot_vote = promised_vote not in (NO_NODE, vote)
        if term < promised_term or (term == promised_term and forgot_vote):
            raise self.violated(
                f"{p.name} came back with term {term} and vote {vote:x}, but had promised term "
                f"{promised_term} with vote {promised_vote:x}"
            )
        self._now[p.name] = (term, vote)

    def changed(self, p: Process) -> None:
        raft = p.raft
        now = (raft.term, raft.vote)
        before = self._now.get(p.name, now)
        if now == before:
            return
        self._now[p.name] = now
        if now[0] < before[0] or (now[0] == before[0] and before[1] != NO_NODE):
            raise self.violated(
                f"{p.name} went from term {before[0]}, vote {before[1]:x} "
                f"to term {now[0]}, vote {now[1]:x}"
            )

    def sent(self, p: Process, message: Message) -> None:
        kind = type(message)
        if kind in _AS_LEADER_OR_CANDIDATE:
            promise = (message.term, message.sender)
        elif isinstance(message, VoteReply) and message.granted:
            promise = (message.term, message.to)
        elif isinstance(message, AppendReply) and not message.rejected:
            promise = (message.term, NO_NODE)
        else:
            return
        known = self._promised.get(p.member_id, (0, NO_NODE))
        if promise[0] > known[0] or (promise[0] == known[0] and known[1] == NO_NODE):
            self._promised[p.member_id] = promise
