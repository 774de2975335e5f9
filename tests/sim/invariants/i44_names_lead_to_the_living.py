"""I44 (Consul #3687, CoreDNS): an answer names exactly those that should be asked.

DNS and healthy-only questions are answered from instances that are routable at the revision the
answer is as of; other questions name all that there are then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.sim.books.instances import instances_of
from tests.sim.observer import Invariant
from tests.sim.registry_history import Shown

if TYPE_CHECKING:
    from kvstore.machine import Result
    from raft.types import Entry
    from tests.sim.process import Process
    from tests.sim.registry_history import Reading
    from tests.sim.world import World

__all__ = ("NamesLeadToTheLiving",)


class NamesLeadToTheLiving(Invariant):
    """Compares each answer with the committed history at its revision."""

    number = "I44"
    title = (
        "DNS answers, and answers to healthy-only questions, name only instances that were "
        "routable at the revision of the answer."
    )
    source = "Consul's and CoreDNS's answers that outlive their instances"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._book = instances_of(world)

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        self._book.follow(p, entries, results)

    def registry_read(self, p: Process, reading: Reading) -> None:
        if not self._book.whole:
            return
        there = self._book.at(reading.service, reading.revision)
        if reading.how == "dns":
            good = {state.address for state in there.values() if state.routable}
            wrong = sorted(set(reading.shown) - good)
            if wrong:
                raise self.violated(
                    f"DNS of {p.name} names {wrong} for {reading.service} at revision "
                    f"{reading.revision}; routable are {sorted(good)}"
                )
            return
        wanted = {
            name: Shown(state.revision, state.status)
            for name, state in there.items()
            if state.routable or not reading.healthy
        }
        if reading.shown != wanted:
            raise self.violated(
                f"{p.name} was asked for {reading.service} (healthy: {reading.healthy}) and "
                f"answered as of {reading.revision} {reading.shown}; there were {wanted}"
            )
