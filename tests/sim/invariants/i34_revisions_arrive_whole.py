"""I34 (etcd): the events of one revision arrive together, or as marked fragments side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.linear.history import WatchRecord, WatchResponse
from tests.sim.books.watching import Memories, name_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ("RevisionsArriveWhole",)


class _Before:
    def __init__(self, record: WatchRecord) -> None:
        self.revision = 0
        self.fragment = False


class RevisionsArriveWhole(Invariant):
    """Looks at where one response ends and the next begins (that none is missing: I33)."""

    number = "I34"
    title = (
        "All events of one revision arrive together, or as marked fragments with nothing in "
        "between."
    )
    source = "etcd"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._before = Memories(_Before)

    def watched(self, record: WatchRecord, response: WatchResponse) -> None:
        before = self._before.of(record)
        if before.fragment and not response.events and not response.canceled:
            raise self.violated(
                f"{name_of(record)} got something else between the fragments of revision "
                f"{before.revision}"
            )
        if response.events:
            if response.events[0].kv.mod == before.revision and not before.fragment:
                raise self.violated(
                    f"{name_of(record)} got revision {before.revision} in two responses, the "
                    "first of them not marked as a fragment"
                )
            before.revision = response.events[-1].kv.mod
        before.fragment = response.fragment
