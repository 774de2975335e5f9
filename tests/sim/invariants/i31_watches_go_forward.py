"""I31 (etcd #15271): revisions on one watch never decrease.

Across leader changes and snapshot restores, which the stream outlives; a client that reconnects
begins another watch, from where it stood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.linear.history import WatchRecord, WatchResponse
from tests.sim.books.watching import Memories, name_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ("WatchesGoForward",)


class _Last:
    def __init__(self, record: WatchRecord) -> None:
        self.event = 0
        self.header = 0


class WatchesGoForward(Invariant):
    """Events, and the headers of what carries events or marks."""

    number = "I31"
    title = (
        "Revisions on one watch never decrease, across reconnect of the hub, leader change and "
        "snapshot restore."
    )
    source = "etcd #15271"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._last = Memories(_Last)

    def watched(self, record: WatchRecord, response: WatchResponse) -> None:
        last = self._last.of(record)
        if response.events or response.progress:
            if response.revision < last.header:
                raise self.violated(
                    f"{name_of(record)} got a response of revision {response.revision} after one "
                    f"of {last.header}"
                )
            last.header = response.revision
        for event in response.events:
            if event.kv.mod < last.event:
                raise self.violated(
                    f"{name_of(record)} got revision {event.kv.mod} ({event.kv.key!r}) after "
                    f"{last.event}"
                )
            last.event = event.kv.mod
