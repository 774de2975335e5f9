"""I8 (openraft): a committed index has the same entry on all nodes, for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raft.types import Entry
from tests.sim.books.witness import witness_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("CommittedForEver",)


class CommittedForEver(Invariant):
    """New commits are compared at once, the whole log at a start, old entries one per step."""

    number = "I8"
    title = "A committed index has the same entry on all nodes, for ever."
    source = "openraft"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._witness = witness_of(world)

    def started(self, p: Process) -> None:
        self._witness.forget(p)
        self.changed(p)

    def changed(self, p: Process) -> None:
        witness = self._witness
        witness.follow(p)
        witness.probe(p)
        self._object()

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        self._witness.take(p, entries)
        self._object()

    def _object(self) -> None:
        conflict = self._witness.conflict
        if conflict is not None:
            found, known = conflict.found, conflict.known
            raise self.violated(
                f"{conflict.process} has committed entry {found.index} of term {found.term} "
                f"({found.data[:40]!r}), but it was committed with term {known.term} "
                f"({known.data[:40]!r})"
            )
