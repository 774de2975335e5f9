"""I7 (thesis §3.6.3): what was ever reported committed is in the log of each later leader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.types import Role
from tests.sim.books.inside import log_of
from tests.sim.books.witness import witness_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("LeadersAreComplete",)


class LeadersAreComplete(Invariant):
    """Looks at each new leader once.

    Only the newest entry committed in an earlier term is compared: equal there means equal below
    (I6). What a newer leader committed, the leader of an older term need not have.
    """

    number = "I7"
    title = "Every entry ever reported committed is in the log (or snapshot) of each later leader."
    source = "thesis §3.6.3"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._witness = witness_of(world)
        self._seen: set[int] = set()

    def changed(self, p: Process) -> None:
        raft = p.raft
        if raft.role is not Role.LEADER or raft.term in self._seen:
            return
        self._seen.add(raft.term)
        index = self._witness.committed_before(raft.term)
        log = log_of(p)
        if index <= log.base_index:
            return  # A snapshot covers it; what that holds, I15 and I26 look at.
        known, found = self._witness.term_at(index), log.term_at(index)
        if known is not None and found != known:
            raise self.violated(
                f"{p.name} leads term {raft.term} without entry {index} of term {known}, which "
                f"was committed: its log {'ends before' if found is None else 'has another'}"
            )
