"""I33 (etcd #17529): a watch gets exactly the events of its range and filter, none missing.

Checked as each response arrives: it must hold what happened between the one before it and its
own last event. What lies behind the last response, a client cannot miss yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.linear.history import WatchRecord, WatchResponse
from tests.sim.books.canon import canon_of
from tests.sim.books.watching import Memories, delivered_before, name_of, owed
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ("ExactlyItsEvents",)


class ExactlyItsEvents(Invariant):
    """Against the event log; the pieces of a fragmented response are put together first."""

    number = "I33"
    title = (
        "From its start to the last revision or mark received, a watch got exactly the model's "
        "events in its range and filter - none missing, none extra."
    )
    source = "etcd #17529"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)
        self._delivered = Memories(delivered_before)

    def watched(self, record: WatchRecord, response: WatchResponse) -> None:
        delivered = self._delivered.of(record)
        events = delivered.take(response)
        if response.progress:
            delivered.position = max(delivered.position, response.revision)
        if not events:
            return
        last = events[-1].kv.mod
        expected = owed(self._canon, record, delivered.position, last)
        found = [(event.kind, event.kv) for event in events]
        wanted = [(event.kind, event.kv) for event in expected]
        if found != wanted:
            missing = [item for item in wanted if item not in found][:3]
            extra = [item for item in found if item not in wanted][:3]
            raise self.violated(
                f"{name_of(record)}, served up to {delivered.position}, got {len(found)} events "
                f"up to {last} instead of {len(wanted)}: missing {missing}, not owed {extra}"
            )
        delivered.position = last
