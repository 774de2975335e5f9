"""I27 (FAST'18): a damaged committed record is never served, voted with, or silently truncated.

A start that succeeds must bring back all that was durable when the member ended. If damage has
made that impossible, the member has to refuse to start, which is not an event here. What it does
bring back, I6 and I8 compare with what everybody else holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.books.durable import DurableLog, durable_logs
from tests.sim.books.witness import witness_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("DamageIsNeverCutAway",)


class DamageIsNeverCutAway(Invariant):
    """Compares the recovered log with the durable one of the member's last life."""

    number = "I27"
    title = (
        "A damaged committed record is never served, never voted with, never silently truncated."
    )
    source = "FAST'18"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._durable = durable_logs(world)
        self._witness = witness_of(world)

    def started(self, p: Process) -> None:
        start = p.start
        for entry in start.entries:
            known = self._witness.entries.get(entry.index)
            if known is not None and known.term == entry.term and known != entry:
                raise self.violated(
                    f"{p.name} came back with a changed entry {entry.index} of term {entry.term}: "
                    f"{known.data[:40]!r} became {entry.data[:40]!r}"
                )
        before = self._durable.before(p.member_id)
        if before is not None:
            self._compare(p, before)

    def _compare(self, p: Process, before: DurableLog) -> None:
        start = p.start
        if start.hard_state.term < before.hard_state.term:
            raise self.violated(
                f"{p.name} came back in term {start.hard_state.term}; term "
                f"{before.hard_state.term} was durable"
            )
        for entry in start.entries:
            durable = before.term_at(entry.index)
            if durable is None or durable == entry.term:
                continue
            if durable < entry.term:
                return  # A write that nobody waited for any more has replaced what was here.
            raise self.violated(
                f"{p.name} came back with entry {entry.index} of term {entry.term}; one of term "
                f"{durable} was durable"
            )
        last = start.base[0] + len(start.entries)
        if last < before.last:
            raise self.violated(
                f"{p.name} came back with its log up to {last}; {before.last} was durable"
            )
