"""I36 (etcd #18089, #19179): a start at or above the compact revision is served in full.

Below it the watch ends, with the compact revision told. That nothing is missing from what is
served, events at the compact revision itself included, I33 sees to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.linear.history import WatchRecord, WatchResponse
from tests.sim.books.canon import canon_of
from tests.sim.books.watching import Memories, delivered_before, name_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ("CompactedOnlyBelow",)


class CompactedOnlyBelow(Invariant):
    """Judges each cancellation for compaction, and the first events after a compaction."""

    number = "I36"
    title = (
        "A start revision ≥ compact revision is served in full, including events at that very "
        "revision; below it the watch ends with the compact revision told."
    )
    source = "etcd #18089, #19179"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)
        self._delivered = Memories(delivered_before)

    def watched(self, record: WatchRecord, response: WatchResponse) -> None:
        delivered = self._delivered.of(record)
        delivered.take(response)
        compact = response.compact_revision
        if response.canceled and compact:
            if compact > self._canon.compacted:
                raise self.violated(
                    f"{name_of(record)} ended with compact revision {compact}; nobody compacted "
                    f"beyond {self._canon.compacted}"
                )
            if delivered.position + 1 >= compact:
                raise self.violated(
                    f"{name_of(record)} ended as compacted at {compact}, though it had been "
                    f"served up to {delivered.position} and so needed nothing below it"
                )
        if response.events:
            delivered.position = response.events[-1].kv.mod
        elif response.progress:
            delivered.position = max(delivered.position, response.revision)
