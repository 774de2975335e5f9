"""I35 (etcd #15220): a progress mark r means every event ≤ r was handed over, and none follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.linear.history import WatchRecord, WatchResponse
from tests.sim.books.canon import canon_of
from tests.sim.books.watching import Memories, delivered_before, name_of, owed
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ("MarksAreTrue",)


class MarksAreTrue(Invariant):
    """At each mark nothing may be owed any more; what follows must be newer."""

    number = "I35"
    title = (
        "A progress mark r means every event ≤ r was already handed over, and no later event is "
        "≤ r."
    )
    source = "etcd #15220"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)
        self._delivered = Memories(delivered_before)
        self._mark = Memories(lambda _record: [0])

    def watched(self, record: WatchRecord, response: WatchResponse) -> None:
        delivered, mark = self._delivered.of(record), self._mark.of(record)
        delivered.take(response)
        for event in response.events:
            if event.kv.mod <= mark[0]:
                raise self.violated(
                    f"{name_of(record)} got revision {event.kv.mod} ({event.kv.key!r}) after the "
                    f"progress mark {mark[0]}"
                )
            delivered.position = event.kv.mod
        if not response.progress:
            return
        missing = owed(self._canon, record, delivered.position, response.revision)
        if missing:
            raise self.violated(
                f"{name_of(record)} got the progress mark {response.revision}, but is still owed "
                f"{len(missing)} events, the first at revision {missing[0].kv.mod}"
            )
        mark[0] = max(mark[0], response.revision)
        delivered.position = max(delivered.position, response.revision)
