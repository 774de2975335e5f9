"""I22 (etcd #17780): revision and compact revision never decrease on a node.

While it lives they only grow. At a start, and after a snapshot, they are exactly what they were
for everybody at that applied index: remembered, not worked out from what keys survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raft.types import Entry
from tests.sim.books.canon import canon_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("RevisionsOnlyGrow",)


class RevisionsOnlyGrow(Invariant):
    """Two numbers per process and step; per index, the pair that its first process had."""

    number = "I22"
    title = (
        "Revision and compact revision never decrease on a node, across restart, restore, "
        "compaction, defragment."
    )
    source = "etcd #17780"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)
        self._now: dict[str, tuple[int, int]] = {}
        self._at: dict[int, tuple[int, int]] = {}
        """Applied index → (revision, compact revision)."""

    def started(self, p: Process) -> None:
        self._now.pop(p.name, None)
        self._compare(p, "came back")

    def installed(self, p: Process, index: int, term: int) -> None:
        self._compare(p, "installed a snapshot")

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        self._compare(p, "applied entries")

    def _compare(self, p: Process, what: str) -> None:
        machine = p.machine
        index, now = machine.applied_index, (machine.revision, machine.compact_revision)
        known = self._at.setdefault(index, now)
        if known != now:
            raise self.violated(
                f"{p.name} {what}: at entry {index} it has revision {now[0]} and compact revision "
                f"{now[1]}, others had {known[0]} and {known[1]}"
            )
        revision = self._canon.revision_at(index)
        if revision is not None and revision != now[0]:
            raise self.violated(
                f"{p.name} {what}: at entry {index} it has revision {now[0]}, others {revision}"
            )

    def changed(self, p: Process) -> None:
        machine = p.machine
        now = (machine.revision, machine.compact_revision)
        before = self._now.get(p.name)
        if now == before:
            return
        self._now[p.name] = now
        if before is not None and (now[0] < before[0] or now[1] < before[1]):
            raise self.violated(
                f"{p.name} went from revision {before[0]}, compact revision {before[1]} back to "
                f"{now[0]}, {now[1]}"
            )
