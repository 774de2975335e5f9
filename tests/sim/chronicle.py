"""The event log of the whole cluster: what each revision did, as whoever applied it first had it.

Everybody who applies the same revision later must have done the same to the same keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kvstore.pb import kv_pb2
from tests.linear.history import KV, Event
from tests.sim.observer import Violated

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ("Chronicle",)


class Chronicle:
    """Revision by revision; `events` is the witness that histories are judged by."""

    def __init__(self, world: World) -> None:
        self.events: list[tuple[int, tuple[Event, ...]]] = []
        self.whole = True
        """False once a revision was compacted before anybody could be asked about it."""
        self._world = world
        self._raw: dict[int, list[tuple[int, bytes, bytes]]] = {}
        self._live: dict[bytes, KV] = {}
        self._last = 1

    @property
    def revision(self) -> int:
        """The last revision that is known."""
        return self._last

    def note(self, who: str, changes: Iterable[Any]) -> None:
        """Changes that somebody has applied, in order, whole revisions."""
        by_revision: dict[int, list[tuple[int, bytes, bytes]]] = {}
        for change in changes:
            by_revision.setdefault(change.revision, []).append((change.kind, change.key, change.kv))
        for revision, raw in by_revision.items():
            known = self._raw.get(revision)
            if known is None:
                self._append(revision, raw)
            elif known != raw:
                self._world.violate(
                    Violated(
                        "I28", f"{who} made another revision {revision}: {raw} and not {known}"
                    )
                )

    def catch_up(self, who: str, machine: Any) -> None:
        """What a process did just before it died shows when it is back."""
        if machine.revision <= self._last:
            return
        view = machine.view()
        try:
            if view.compact_revision > self._last + 1:
                self.whole = False
            else:
                self.note(who, list(view.changes(self._last + 1, machine.revision + 1)))
        finally:
            view.close()

    def _append(self, revision: int, raw: list[tuple[int, bytes, bytes]]) -> None:
        if revision != self._last + 1:
            self.whole = False
        self._raw[revision] = raw
        self._last = max(self._last, revision)
        events = []
        for kind, key, encoded in raw:
            before = self._live.pop(key, None)
            if kind == kv_pb2.Event.DELETE:
                events.append(Event("delete", KV(key, b"", 0, revision, 0), before))
                continue
            kv = kv_pb2.KeyValue.FromString(encoded)
            now = KV(key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
            self._live[key] = now
            events.append(Event("put", now, before))
        self.events.append((revision, tuple(events)))
