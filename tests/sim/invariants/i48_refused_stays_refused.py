"""I48 (Redis-Raft): what was refused never takes effect; what is unknown does so at most once.

Written values carry client and serial, so a value says which request it came from. One that
several requests carry says nothing, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raft.types import Entry
from tests.linear.history import Operation, Outcome
from tests.sim.books.canon import canon_of, kv_of
from tests.sim.books.writing import values_written
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("RefusedStaysRefused",)


class RefusedStaysRefused(Invariant):
    """Compares the history with what clients were told, whichever comes first."""

    number = "I48"
    title = (
        "A request answered refused never takes effect; one answered unknown takes effect at "
        "most once."
    )
    source = "Jepsen, Redis-Raft"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)
        self._owner: dict[bytes, tuple[int, int]] = {}
        """Value → (client, time) of the request that carries it; (-1, -1) if there are several."""
        self._refused: set[tuple[int, int]] = set()
        self._done: dict[tuple[int, int], int] = {}
        """Request → the revision at which it took effect."""

    def invoked(self, op: Operation) -> None:
        mine = (op.client, op.call)
        for _, value in values_written(op.request):
            owner = self._owner.setdefault(value, mine)
            if owner != mine:
                self._owner[value] = (-1, -1)

    def completed(self, op: Operation) -> None:
        if op.outcome is not Outcome.REFUSED:
            return
        mine = (op.client, op.call)
        self._refused.add(mine)
        if mine in self._done:
            raise self.violated(
                f"client {op.client} was refused ({op.error}) what took effect at revision "
                f"{self._done[mine]}: {op.request!r:.200}"
            )

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        for item in self._canon.read(p, entries, results):
            if item.first:
                for change in item.changes:
                    if change.kv and not change.kind:
                        self._took_effect(kv_of(change.kv).value, change.revision)

    def _took_effect(self, value: bytes, revision: int) -> None:
        owner = self._owner.get(value)
        if owner is None or owner == (-1, -1):
            return
        if owner in self._refused:
            raise self.violated(
                f"the request of client {owner[0]} at {owner[1]} ns was refused, but took effect "
                f"at revision {revision} ({value[:60]!r})"
            )
        first = self._done.setdefault(owner, revision)
        if first != revision:
            raise self.violated(
                f"the request of client {owner[0]} at {owner[1]} ns took effect at revision "
                f"{first} and again at {revision} ({value[:60]!r})"
            )
