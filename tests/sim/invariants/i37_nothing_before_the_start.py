"""I37 (etcd #20221): nothing below the start, and every event tells its past as it was.

A watch with a future start receives neither events nor marks below it; `prev_kv` and "created"
equal the model at revision − 1. A previous pair that is compacted may be left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.linear.history import Event, WatchRecord, WatchResponse
from tests.sim.books.canon import canon_of
from tests.sim.books.watching import name_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ("NothingBeforeTheStart",)


class NothingBeforeTheStart(Invariant):
    """Needs no memory: each response is judged by itself."""

    number = "I37"
    title = (
        "A watch with a future start receives neither events nor marks below it; prev_kv and "
        "is_create equal the model at revision − 1."
    )
    source = "etcd #20221"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)

    def watched(self, record: WatchRecord, response: WatchResponse) -> None:
        start = record.start_revision
        if response.progress and response.revision < start:
            raise self.violated(f"{name_of(record)} got the progress mark {response.revision}")
        for event in response.events:
            if event.kv.mod < start:
                raise self.violated(
                    f"{name_of(record)} got an event of revision {event.kv.mod} ({event.kv.key!r})"
                )
            self._check_past(record, event)

    def _check_past(self, record: WatchRecord, event: Event) -> None:
        kv = event.kv
        past = self._canon.state_of_key(kv.key, kv.mod - 1)
        if event.kind == "put" and (kv.create == kv.mod) != (past is None):
            raise self.violated(
                f"{name_of(record)}: the put of {kv.key!r} at revision {kv.mod} says created at "
                f"{kv.create}, though before it there was {past}"
            )
        wanted = past if record.prev_kv else None
        compacted = event.prev is None and kv.mod - 1 < self._canon.compacted
        if event.prev != wanted and not compacted:
            raise self.violated(
                f"{name_of(record)}: the {event.kind} of {kv.key!r} at revision {kv.mod} tells "
                f"{event.prev} as the pair before, it was {wanted}"
            )
