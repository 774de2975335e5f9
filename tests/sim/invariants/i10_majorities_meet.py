"""I10 (thesis §4; reliability R3): who decides, and that any two deciders share a voter.

Configurations that can decide at one time must overlap in every pair of majorities. Learners are
never counted, yet answer a vote request like anybody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.messages import Message, RequestVote, VoteReply
from raft.types import NO_NODE, ConfState, Role
from tests.sim.books.inside import is_idle, turns
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("MajoritiesMeet", "majority", "majorities_meet")

_SILENCE_NS = 10_000_000
"""How long a member that has nothing else to do may take to answer."""
_IN_FLIGHT_NS = 60 * 1_000_000_000
"""How long a message may be under way at most: streams hold back, pauses too."""


def majority(conf: ConfState) -> int:
    """How many voters decide."""
    return len(conf.voters) // 2 + 1


def majorities_meet(one: ConfState, other: ConfState) -> bool:
    """Whether no majority of one is disjoint from a majority of the other.

    A majority can avoid everything that both have, as far as the rest of it is enough.
    """
    common = sum(voter in other.voters for voter in one.voters)
    left_over_one = len(one.voters) - common
    left_over_other = len(other.voters) - common
    need = max(majority(one) - left_over_one, 0) + max(majority(other) - left_over_other, 0)
    return need > common


class MajoritiesMeet(Invariant):
    """Judges each election as it is won, and each refusal of a vote as it is sent."""

    number = "I10"
    title = (
        "Any two configurations that can decide at the same time share a voter in every pair of "
        "their majorities; learners are never counted, yet always answer a vote request."
    )
    source = "thesis §4; reliability R3"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._votes: dict[tuple[int, int], list[int]] = {}
        """(term, candidate) → who has granted."""
        self._asked: dict[tuple[int, int], tuple[int, int]] = {}
        """(term, candidate) → (last term, last index) of its log."""
        self._newest: tuple[int, ConfState] | None = None
        """Term and present configuration of the newest leader there has been."""
        self._open: dict[tuple[str, int], tuple[RequestVote, int]] = {}
        """(process, candidate) → a request that it has been given and has not answered, and since
        when it has had nothing else to do (0: it still has)."""
        self._recent: dict[tuple[int, int], list[tuple[int, int]]] = {}
        """(candidate, voter) → (term, time) of the requests that may still be under way."""

    def sent(self, p: Process, message: Message) -> None:
        if isinstance(message, RequestVote):
            place = (message.term, message.sender)
            self._asked[place] = (message.last_term, message.last_index)
            self._note_request(message)
            votes = self._votes.setdefault(place, [])
            if message.sender not in votes:
                votes.append(message.sender)
        elif isinstance(message, VoteReply):
            self._open.pop((p.name, message.to), None)
            if message.granted:
                votes = self._votes.setdefault((message.term, message.to), [])
                if message.sender not in votes:
                    votes.append(message.sender)
            else:
                self._check_refusal(p, message)

    def _note_request(self, request: RequestVote) -> None:
        way = (request.sender, request.to)
        now = self.world.now_ns
        recent = [item for item in self._recent.get(way, ()) if item[1] > now - _IN_FLIGHT_NS]
        self._recent[way] = [*recent, (request.term, now)]

    def _check_refusal(self, p: Process, reply: VoteReply) -> None:
        raft = p.raft
        asked = self._asked.get((reply.term, reply.to))
        if asked is None or raft.term != reply.term:
            return
        # A request of an older term is refused under the newer one: it may be that one's answer.
        recent = self._recent.get((reply.to, reply.sender), ())
        if any(term != reply.term for term, _ in recent):
            return
        free = raft.vote in (NO_NODE, reply.to) and raft.leader_id == NO_NODE
        own = (raft.term_at(raft.last_index) or 0, raft.last_index)
        if free and asked >= own:
            what = "learner" if p.member_id in raft.conf.learners else "member"
            raise self.violated(
                f"{p.name}, a {what}, refused member {reply.to:x} its vote in term {reply.term} "
                f"without a reason: it has voted for nobody and its log ends at {own}, the "
                f"candidate's at {asked}"
            )

    def received(self, p: Process, message: Message) -> None:
        if isinstance(message, RequestVote) and message.to == p.member_id:
            self._open[p.name, message.sender] = (message, 0)
        elif self._open:
            # From this it may learn of the term, and not from a request that it had to ignore.
            for place, (request, _) in list(self._open.items()):
                if place[0] == p.name and message.term >= request.term:
                    del self._open[place]

    def stopped(self, p: Process, why: str) -> None:
        self._open = {place: item for place, item in self._open.items() if place[0] != p.name}

    def stepped(self, p: Process) -> None:
        if not self._open:
            return
        for place, (request, since) in list(self._open.items()):
            if place[0] == p.name:
                self._look(p, place, request, since)

    def _look(self, p: Process, place: tuple[str, int], request: RequestVote, since: int) -> None:
        """A request that moved a member to its term has to be answered, by whatever it is."""
        raft = p.raft
        if not turns(p) or not is_idle(p):
            self._open[place] = (request, 0)
        elif raft.term != request.term or raft.leader_id != NO_NODE or raft.vote == p.member_id:
            # It hears a leader, has moved on, knows who leads, or campaigns itself.
            del self._open[place]
        elif not since:
            self._open[place] = (request, self.world.now_ns)
        elif self.world.now_ns - since > _SILENCE_NS:
            what = "learner" if p.member_id in raft.conf.learners else "member"
            raise self.violated(
                f"{p.name}, a {what}, went to term {request.term} with the vote request of member "
                f"{request.sender:x} and does not answer it"
            )

    def changed(self, p: Process) -> None:
        raft = p.raft
        if raft.role is not Role.LEADER:
            return
        newest = self._newest
        if newest is not None and raft.term < newest[0]:
            return
        conf = raft.conf
        if newest is None or raft.term > newest[0]:
            self._check_election(p, conf)
            if newest is not None and not majorities_meet(newest[1], conf):
                raise self.violated(
                    f"{p.name} leads term {raft.term} by {_hex(conf)}, while the leader of term "
                    f"{newest[0]} could decide by {_hex(newest[1])}"
                )
        elif conf is newest[1]:
            return
        self._newest = (raft.term, conf)

    def _check_election(self, p: Process, conf: ConfState) -> None:
        votes = self._votes.get((p.raft.term, p.member_id), [])
        counted = sum(voter in votes or voter == p.member_id for voter in conf.voters)
        if counted < majority(conf):
            raise self.violated(
                f"{p.name} leads term {p.raft.term} with the votes of {counted} of the voters "
                f"{_hex(conf)}; granted by {[f'{voter:x}' for voter in votes]}"
            )


def _hex(conf: ConfState) -> str:
    return "[" + " ".join(f"{voter:x}" for voter in conf.voters) + "]"
