"""I21 (etcd's model): what one request does to the revision.

A request that writes at least one key raises it by exactly 1; any other leaves it alone; the
changes of a revision are numbered 0 … n-1. The expiry of several leases is several requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvstore.machine.command import CommandKind
from raft.types import Entry
from tests.sim.books.canon import Applied, canon_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("OneRevisionPerWrite",)


class OneRevisionPerWrite(Invariant):
    """On every process: the store is read back, and held against the revisions of the results."""

    number = "I21"
    title = (
        "A request that writes at least one key raises the revision by exactly 1; any other "
        "leaves it; sub-revisions are 0…n−1 in order."
    )
    source = "etcd model"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)

    def started(self, p: Process) -> None:
        self._canon.resume(p)

    def installed(self, p: Process, index: int, term: int) -> None:
        self._canon.resume(p)

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        before: int | None = None
        for item in self._canon.read(p, entries, results):
            if before is None:
                before = item.canon.before
            self._check(p, item, before)
            before = item.result.revision

    def _check(self, p: Process, item: Applied, before: int) -> None:
        index, revision, changes = item.entry.index, item.result.revision, item.changes
        if not changes:
            if revision != before:
                raise self.violated(
                    f"{p.name}: entry {index} wrote nothing, but the revision went from {before} "
                    f"to {revision}"
                )
            return
        places = [(change.revision, change.sub) for change in changes]
        expected, sub, main = [], 0, before + 1
        for found, _ in places:
            if found != main:
                main, sub = main + 1, 0
            expected.append((main, sub))
            sub += 1
        if places != expected or places[-1][0] != revision:
            raise self.violated(
                f"{p.name}: entry {index} took the revision from {before} to {revision} with "
                f"changes at {places}"
            )
        if revision != before + 1 and item.canon.kind != CommandKind.LEASE_EXPIRE:
            raise self.violated(
                f"{p.name}: entry {index}, one request, took the revision from {before} to "
                f"{revision}"
            )
