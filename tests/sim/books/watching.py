"""What the invariants of watches share: one memory per watch, and the events it is owed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from tests.linear.history import Event, WatchRecord, WatchResponse, covers

if TYPE_CHECKING:
    from tests.sim.books.canon import Canon

__all__ = ("Delivered", "Memories", "delivered_before", "name_of", "owed")

M = TypeVar("M")


class Memories(Generic[M]):
    """A memory for each watch; the record is kept, so that its place is not taken by another."""

    def __init__(self, make: Callable[[WatchRecord], M]) -> None:
        self._make = make
        self._of: dict[int, tuple[WatchRecord, M]] = {}

    def of(self, record: WatchRecord) -> M:
        """The memory of this very watch."""
        found = self._of.get(id(record))
        if found is None:
            found = self._of[id(record)] = (record, self._make(record))
        return found[1]


class Delivered:
    """How far a watch has been served, as its client can tell."""

    def __init__(self, record: WatchRecord) -> None:
        self.position = record.start_revision - 1
        """Everything up to here was handed over, or was never owed; -1: not known yet."""
        self.pieces: list[Event] = []
        """Events of fragments whose last piece has not come."""

    def take(self, response: WatchResponse) -> tuple[Event, ...] | None:
        """The events of a whole response; None while pieces of it are missing."""
        if response.created and self.position < 0:
            self.position = response.revision
        self.pieces += response.events
        if response.fragment:
            return None
        events, self.pieces = tuple(self.pieces), []
        return events


def delivered_before(record: WatchRecord) -> Delivered:
    """A fresh memory."""
    return Delivered(record)


def owed(canon: Canon, record: WatchRecord, after: int, upto: int) -> list[Event]:
    """The events of after < revision ≤ upto in the range of a watch, its filters applied."""
    return [
        event
        for revision in range(after + 1, upto + 1)
        for event in canon.events.get(revision, ())
        if covers(record.key, record.end, event.kv.key) and event.kind not in record.filters
    ]


def name_of(record: WatchRecord) -> str:
    """A watch in words."""
    return (
        f"the watch of client {record.client} on {record.key!r}"
        f"{'' if record.end is None else f' … {record.end!r}'} from {record.start_revision}"
    )
