"""I26 (etcd 3.5's postmortem): a store holds the image of exactly the entries 1 … applied index.

Data and index are never torn apart by a crash: what a process starts from, and what a snapshot
brings, is compared with the history, key by key and lease by lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.books.canon import canon_of
from tests.sim.books.reading import pairs_at
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("StateIsItsEntries",)


class StateIsItsEntries(Invariant):
    """Whatever the applied index says, the history knows the state that belongs to it."""

    number = "I26"
    title = (
        "Backend content = image of applying exactly entries 1…applied index; data and index are "
        "never torn apart by a crash."
    )
    source = "etcd 3.5 postmortem"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)

    def started(self, p: Process) -> None:
        self._check(p, "came back")

    def installed(self, p: Process, index: int, term: int) -> None:
        if p.machine.applied_index < index:
            raise self.violated(
                f"{p.name} installed a snapshot of {index}, but its state is of entry "
                f"{p.machine.applied_index}"
            )
        self._check(p, "installed a snapshot")

    def _check(self, p: Process, what: str) -> None:
        canon, machine = self._canon, p.machine
        index = machine.applied_index
        revision = canon.revision_at(index)
        if revision is None:
            return
        if machine.revision != revision:
            raise self.violated(
                f"{p.name} {what} with entry {index} applied at revision {machine.revision}, "
                f"which is revision {revision} for everybody else"
            )
        found, expected = pairs_at(p, revision), canon.state_at(revision)
        if found != expected:
            wrong = [
                key for key in sorted({*found, *expected}) if found.get(key) != expected.get(key)
            ]
            raise self.violated(
                f"{p.name} {what} with entry {index} applied, but {wrong[0]!r} is "
                f"{found.get(wrong[0])} instead of {expected.get(wrong[0])}"
            )
        leases = canon.leases_at(index)
        if leases is not None and frozenset(machine.leases) != leases:
            raise self.violated(
                f"{p.name} {what} with entry {index} applied and the leases "
                f"{sorted(machine.leases)}; there were {sorted(leases)}"
            )
