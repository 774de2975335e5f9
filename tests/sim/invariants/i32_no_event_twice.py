"""I32 (etcd #17247): no event is delivered twice on a watch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.linear.history import WatchRecord, WatchResponse
from tests.sim.books.canon import canon_of
from tests.sim.books.watching import Memories, name_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ("NoEventTwice",)


class _Seen:
    def __init__(self, record: WatchRecord) -> None:
        self.times: Counter[tuple[int, bytes, str]] = Counter()


class NoEventTwice(Invariant):
    """Counts (revision, key, kind); more often than it happened is too often."""

    number = "I32"
    title = "No event (revision, key) is delivered twice on a watch."
    source = "etcd #17247"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)
        self._seen = Memories(_Seen)

    def watched(self, record: WatchRecord, response: WatchResponse) -> None:
        times = self._seen.of(record).times
        for event in response.events:
            place = (event.kv.mod, event.kv.key, event.kind)
            times[place] += 1
            if times[place] > 1 and times[place] > self._happened(*place):
                raise self.violated(
                    f"{name_of(record)} got the {event.kind} of {event.kv.key!r} at revision "
                    f"{event.kv.mod} {times[place]} times"
                )

    def _happened(self, revision: int, key: bytes, kind: str) -> int:
        return sum(
            event.kv.key == key and event.kind == kind
            for event in self._canon.events.get(revision, ())
        )
