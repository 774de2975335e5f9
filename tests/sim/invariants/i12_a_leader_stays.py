"""I12 (reliability R7): with a connected quorum and no faults a leader exists soon, and stays.

The end game (tests/sim/endgame.py) knows which quorum is connected, and waits ten election
timeouts for its leader; this file sees to it that the leader stays. From the end of "safety" on
nothing breaks that is not broken already. Starts and ends of processes, membership changes and
hand-overs are reasons for an election, and so is the end game's choice of those who stay
connected, soon after the last start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raft.messages import Message, TimeoutNow
from raft.types import Entry, Role
from tests.sim.books.inside import is_up
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("ALeaderStays",)

_SETTLED_ELECTIONS = 3
"""Election timeouts without a reason for an election after which a leader counts as settled."""
_MS = 1_000_000


class ALeaderStays(Invariant):
    """Remembers the leader that was there when everything had been quiet for a while."""

    number = "I12"
    title = (
        "With a connected quorum and no faults, a leader exists within 10 election timeouts and "
        "stays; a partially connected minority cannot unseat it."
    )
    source = "reliability R7"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._calm = False
        self._since = 0
        """True time of the last reason to be without a leader."""
        self._leader: tuple[str, int] | None = None
        """The settled leader and its term."""

    def _disturbed(self) -> None:
        self._since = self.world.now_ns
        self._leader = None

    def phase_ended(self, name: str) -> None:
        if name == "safety":
            self._calm = True
            self._disturbed()
        elif self._calm:
            self._calm = False
            if name == "liveness" and self._settled() is None:
                raise self.violated(f"nobody leads at the end of the phase: {self._roles()}")

    def started(self, p: Process) -> None:
        self._disturbed()

    def stopped(self, p: Process, why: str) -> None:
        self._disturbed()

    def sent(self, p: Process, message: Message) -> None:
        if self._calm and isinstance(message, TimeoutNow):
            self._disturbed()

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        if self._calm and any(result.conf_change is not None for result in results):
            self._disturbed()

    def changed(self, p: Process) -> None:
        if not self._calm or p.raft.role is not Role.LEADER:
            return
        term = p.raft.term
        if self._leader == (p.name, term):
            return
        if self._leader is not None and term > self._leader[1]:
            raise self.violated(
                f"{p.name} leads term {term}, though {self._leader[0]} was the settled leader of "
                f"term {self._leader[1]}, and nothing has happened since {self._since} ns"
            )
        quiet_ns = self.world.now_ns - self._since
        # Without pre-votes, whoever was cut off may come back with a higher term.
        polite = all(each.config.pre_vote for each in self.world.processes.values())
        long_enough = quiet_ns > _SETTLED_ELECTIONS * self._election_ns()
        if polite and long_enough and self._settled() == p.name:
            self._leader = (p.name, term)

    def _settled(self) -> str | None:
        """The leader of the newest term, if a majority of its voters follows it."""
        alive = [p for p in self.world.processes.values() if is_up(p)]
        leaders = [p for p in alive if p.raft.role is Role.LEADER]
        if not leaders:
            return None
        leader = max(leaders, key=lambda p: p.raft.term)
        term, voters = leader.raft.term, leader.raft.conf.voters
        followers = sum(
            p.member_id in voters and p.raft.term == term and p.raft.leader_id == leader.member_id
            for p in alive
        )
        return leader.name if followers > len(voters) // 2 else None

    def _roles(self) -> dict[str, str]:
        return {
            p.name: f"{p.raft.role.name} term {p.raft.term}"
            for p in self.world.processes.values()
            if is_up(p)
        }

    def _election_ns(self) -> int:
        """The longest randomised timeout of anybody: twice what is configured."""
        configs = [p.config for p in self.world.processes.values()]
        return 2 * _MS * max((int(config.election_ms) for config in configs), default=1000)
