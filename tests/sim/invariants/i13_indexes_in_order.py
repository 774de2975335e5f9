"""I13 (openraft): purged ≤ snapshot ≤ applied ≤ committed ≤ last, and applied ≤ durable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.books.durable import durable_logs
from tests.sim.books.inside import log_of, purged_index, snapshot_indexes, state_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("IndexesInOrder",)


class IndexesInOrder(Invariant):
    """Between accepting a snapshot and having installed it the log is ahead of the state: then
    only the part that still holds is asked for."""

    number = "I13"
    title = "purged ≤ snapshot ≤ applied ≤ committed ≤ last, and applied ≤ durable, on every node."
    source = "openraft"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._durable = durable_logs(world)
        self._now: dict[str, tuple[int, int, int, int]] = {}
        self._purged: dict[str, int] = {}

    def started(self, p: Process) -> None:
        self._durable.begin(p)
        self._now.pop(p.name, None)
        self._purged.pop(p.name, None)

    def stopped(self, p: Process, why: str) -> None:
        self._durable.end(p)

    def changed(self, p: Process) -> None:
        log = log_of(p)
        applied = p.machine.applied_index
        now = (log.base_index, applied, log.commit, log.last_index)
        if now == self._now.get(p.name):
            return
        self._now[p.name] = now
        if applied > log.commit:
            raise self.violated(f"{p.name} applied {applied}, but only {log.commit} is committed")
        if log.commit > log.last_index:
            raise self.violated(
                f"{p.name} knows {log.commit} as committed, its log ends at {log.last_index}"
            )
        if state_of(p).pending_snapshot is None:
            self._check_settled(p, log.base_index, applied)

    def _check_settled(self, p: Process, base: int, applied: int) -> None:
        if base > applied:
            raise self.violated(f"{p.name} dropped entries up to {base}, but applied {applied}")
        purged = purged_index(p)
        if purged != self._purged.get(p.name):
            self._purged[p.name] = purged
            # A file that was received and never installed may be ahead of the state.
            covering = [index for index in snapshot_indexes(p) if purged <= index <= applied]
            if not covering and purged:
                raise self.violated(
                    f"{p.name} purged its log to {purged} and has applied {applied}, but no "
                    f"snapshot in between: {snapshot_indexes(p)}"
                )
        durable = self._durable.of(p)
        if durable is not None and applied > durable.last:
            raise self.violated(
                f"{p.name} applied {applied}, but its disk holds the log up to {durable.last}"
            )
