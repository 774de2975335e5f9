"""I14 (thesis §3.4): commit and applied indexes never fall; applied resumes within the committed.

After a restart the commit index may be lower than before (it is written lazily); what the state
machine has applied must be something that was committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.books.witness import witness_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("NeverBack",)


class NeverBack(Invariant):
    """Two numbers per process, and the witness list at each start."""

    number = "I14"
    title = (
        "Commit and applied indexes never decrease while a process lives; after restart applied "
        "resumes at or below commit."
    )
    source = "thesis §3.4"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._witness = witness_of(world)
        self._now: dict[str, tuple[int, int]] = {}

    def started(self, p: Process) -> None:
        machine = p.machine
        applied, witness = machine.applied_index, self._witness
        self._now[p.name] = (p.raft.commit_index, applied)
        if applied > p.raft.commit_index:
            raise self.violated(
                f"{p.name} came back with {applied} applied and {p.raft.commit_index} committed"
            )
        if witness.last and applied > witness.last:
            raise self.violated(
                f"{p.name} came back with {applied} applied; nobody has committed more than "
                f"{witness.last}"
            )
        known = witness.term_at(applied)
        if known is not None and known != machine.applied_term:
            raise self.violated(
                f"{p.name} came back with entry {applied} of term {machine.applied_term} applied; "
                f"the one of term {known} was committed"
            )

    def changed(self, p: Process) -> None:
        now = (p.raft.commit_index, p.machine.applied_index)
        before = self._now.get(p.name)
        if now == before:
            return
        self._now[p.name] = now
        if before is not None and (now[0] < before[0] or now[1] < before[1]):
            raise self.violated(
                f"{p.name} went from {before[0]} committed, {before[1]} applied back to "
                f"{now[0]} committed, {now[1]} applied"
            )
