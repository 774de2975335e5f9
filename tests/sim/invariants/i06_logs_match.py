"""I6 (thesis §3.5): two logs with the same (index, term) are equal up to there.

By induction: it is enough that an (index, term) stands for one content everywhere, and that the
entry before it is of one and the same term.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.types import Entry
from tests.sim.books.inside import log_of
from tests.sim.books.tails import Tails
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("LogsMatch",)


class LogsMatch(Invariant):
    """Every entry is looked at once in each log, when it comes in or comes back from the disk."""

    number = "I6"
    title = "Two logs with the same (index, term) are equal up to there."
    source = "thesis §3.5"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._known: dict[tuple[int, int], tuple[Entry, int]] = {}
        self._tails = Tails()

    def started(self, p: Process) -> None:
        self._tails.forget(p)
        self.changed(p)

    def changed(self, p: Process) -> None:
        news = self._tails.news(p)
        if news is None:
            return
        entries = news[1]
        if not entries:
            return
        before = log_of(p).term_at(entries[0].index - 1)
        if before is None:
            before = -1  # compacted: nothing to compare with
        known = self._known
        for entry in entries:
            place = (entry.index, entry.term)
            first, first_before = known.setdefault(place, (entry, before))
            if first is not entry and first != entry:
                raise self.violated(
                    f"{p.name} holds another entry {entry.index} of term {entry.term} than "
                    f"others: {first.data[:40]!r} became {entry.data[:40]!r}"
                )
            if first_before != before and -1 not in (first_before, before):
                raise self.violated(
                    f"{p.name} has entry {entry.index} of term {entry.term} behind one of term "
                    f"{before}, others behind one of term {first_before}"
                )
            before = entry.term
