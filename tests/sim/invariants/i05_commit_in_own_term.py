"""I5 (thesis §3.6.2): a commit index that a leader reached by counting is of its own term."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.types import Role
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("CommitInOwnTerm",)


class CommitInOwnTerm(Invariant):
    """A leader has no other way to a higher commit index than counting."""

    number = "I5"
    title = "A commit index reached by a leader's own counting points at an entry of its term."
    source = "thesis §3.6.2"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._led: dict[str, tuple[int, int]] = {}

    def started(self, p: Process) -> None:
        self._led.pop(p.name, None)

    def changed(self, p: Process) -> None:
        raft = p.raft
        if raft.role is not Role.LEADER:
            self._led.pop(p.name, None)
            return
        now = (raft.term, raft.commit_index)
        before = self._led.get(p.name)
        if now == before:
            return
        self._led[p.name] = now
        if before is None or before[0] != now[0]:
            return
        found = raft.term_at(now[1])
        if found is not None and found != now[0]:
            raise self.violated(
                f"{p.name}, leader of term {now[0]}, moved its commit index from {before[1]} to "
                f"{now[1]}, an entry of term {found}"
            )
