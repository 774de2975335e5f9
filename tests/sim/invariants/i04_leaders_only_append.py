"""I4 (thesis §3.6.3): a leader never overwrites or deletes its own entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from raft.types import Entry, Role
from tests.sim.books.inside import entry_at, log_of, newest_entry
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("LeadersOnlyAppend",)


class _Led(NamedTuple):
    term: int
    last: int
    newest: Entry | None
    marked: Entry | None


class LeadersOnlyAppend(Invariant):
    """Compares the end of a leader's log with the step before, and one entry that it had then.

    The marked entry is the log's end at some earlier step; each time the log grows, what was the
    end becomes the mark, so a change below the end is noticed soon after.
    """

    number = "I4"
    title = "A leader never overwrites or deletes its own entries."
    source = "thesis §3.6.3"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._led: dict[str, _Led] = {}

    def started(self, p: Process) -> None:
        self._led.pop(p.name, None)

    def changed(self, p: Process) -> None:
        raft = p.raft
        if raft.role is not Role.LEADER:
            if p.name in self._led:
                del self._led[p.name]
            return
        log = log_of(p)
        last, newest, term = log.last_index, newest_entry(log), raft.term
        before = self._led.get(p.name)
        if before is None or before.term != term:
            self._led[p.name] = _Led(term, last, newest, newest)
            return
        if last == before.last and newest is before.newest:
            return
        if last < before.last:
            raise self.violated(
                f"{p.name}, leader of term {term}, cut its log from {before.last} to {last}"
            )
        for entry in (before.newest, before.marked):
            if entry is not None:
                found = entry_at(log, entry.index)
                if found is not entry and found is not None and found != entry:
                    raise self.violated(
                        f"{p.name}, leader of term {term}, replaced its entry {entry.index} "
                        f"of term {entry.term} by one of term {found.term}"
                    )
        self._led[p.name] = _Led(term, last, newest, before.newest)
