"""I19 (etcd #20418; reliability R6): a read confirmation is for the attempt that asked.

On the wire: no member ever uses a number twice, restarts included; the answer comes from the
leader that was asked, in the term in which it was asked, and with an index no lower than what
anybody knew to be committed when the question left. The leader answers once a majority has
replied to the very round of heartbeats that it began for these reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from raft.messages import ForwardRead, Heartbeat, HeartbeatReply, Message, ReadReply
from tests.sim.books.inside import state_of
from tests.sim.books.witness import witness_of
from tests.sim.invariants.i10_majorities_meet import majority
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("ConfirmationsFitAttempts",)


class _Attempt(NamedTuple):
    term: int
    leader: int
    committed: int


class _Rounds(NamedTuple):
    """The rounds of heartbeats of one leader in one term."""

    of_read: dict[tuple[int, int], list[int]]
    """(requester, number of the attempt) → the rounds that are to confirm it."""
    confirmed: dict[int, set[int]]
    """Round → who has replied to it, the leader included."""


class ConfirmationsFitAttempts(Invariant):
    """Remembers every question."""

    number = "I19"
    title = (
        "A read confirmation is used only for the attempt that asked, in the same term, with the "
        "same leader."
    )
    source = "etcd #20418; reliability R6"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._witness = witness_of(world)
        self._rounds: dict[tuple[int, int], _Rounds] = {}
        """(leader, term) → its rounds."""
        self._asked: dict[int, dict[int, _Attempt]] = {}

    def sent(self, p: Process, message: Message) -> None:
        if isinstance(message, ForwardRead):
            asked = self._asked.setdefault(message.sender, {})
            for context in message.contexts:
                if context in asked:
                    raise self.violated(
                        f"member {message.sender:x} asks in term {message.term} with number "
                        f"{context}, as it did in term {asked[context].term}"
                    )
                asked[context] = _Attempt(message.term, message.to, self._witness.last)
        elif isinstance(message, Heartbeat):
            if message.read_id:
                self._begun(p, message)
        elif isinstance(message, HeartbeatReply):
            rounds = self._rounds.get((message.to, message.term))
            if rounds is not None and message.read_id:
                rounds.confirmed.setdefault(message.read_id, set()).add(message.sender)
        elif isinstance(message, ReadReply):
            self._check_round(p, message)
            asked = self._asked.get(message.to, {})
            for context in message.contexts:
                attempt = asked.get(context)
                if attempt is not None:
                    self._check(message, context, attempt)

    def _begun(self, p: Process, message: Heartbeat) -> None:
        """The first heartbeat of a round leaves: these are the reads that it is for."""
        rounds = self._rounds.setdefault((message.sender, message.term), _Rounds({}, {}))
        if message.read_id not in rounds.confirmed:
            rounds.confirmed[message.read_id] = {message.sender}
            for read in state_of(p).reads.round_reads:
                rounds.of_read.setdefault(read, []).append(message.read_id)

    def _check_round(self, p: Process, reply: ReadReply) -> None:
        rounds = self._rounds.get((reply.sender, reply.term))
        if rounds is None:
            return
        conf = p.raft.conf
        for context in reply.contexts:
            # A question that arrived twice may be in two rounds.
            numbers = rounds.of_read.get((reply.to, context), [])
            confirmed = [
                sum(voter in rounds.confirmed[number] for voter in conf.voters)
                for number in numbers
            ]
            if confirmed and max(confirmed) < majority(conf):
                raise self.violated(
                    f"{p.name}, leader of term {reply.term}, answers read attempt {context} of "
                    f"member {reply.to:x}; its rounds {numbers} were confirmed by {confirmed} of "
                    f"{len(conf.voters)} voters"
                )

    def _check(self, reply: ReadReply, context: int, attempt: _Attempt) -> None:
        if (reply.term, reply.sender) != (attempt.term, attempt.leader):
            raise self.violated(
                f"member {reply.sender:x} of term {reply.term} confirms read attempt {context} of "
                f"member {reply.to:x}, which asked {attempt.leader:x} in term {attempt.term}"
            )
        if reply.index < attempt.committed:
            raise self.violated(
                f"read attempt {context} of member {reply.to:x} is confirmed at entry "
                f"{reply.index}, though {attempt.committed} was committed when it was made"
            )
