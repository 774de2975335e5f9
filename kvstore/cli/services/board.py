"""What `service top` knows: the instances of each service, and the latest changes. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from kvstore.client.registry.answers import Update
from kvstore.client.registry.values import Instance, InstanceEvent, ServiceName, Status

__all__ = ("Board", "Row")

CHANGES_MAX: Final = 200
"""Changes that are remembered."""


class Row(NamedTuple):
    """One service in numbers."""

    name: ServiceName
    instances: int
    routable: int
    stale: int
    by_status: Mapping[Status, int]
    changed_ms: int
    """When one of its instances last changed; 0: they are all gone, or the time is not known."""


class Board:
    """Fed with the updates of a watch."""

    def __init__(self) -> None:
        self._services: dict[ServiceName, dict[str, Instance]] = {}
        self._rows: dict[ServiceName, Row] = {}
        self.changes: deque[tuple[int, InstanceEvent]] = deque(maxlen=CHANGES_MAX)
        """When we heard of it (Unix time in ms) and what it was; newest last."""
        self.revision = 0
        self.no_leader = False
        """The member that tells us has no leader: what it tells may be old."""
        self.known = False
        """There was a first update."""

    def apply(self, update: Update, now_ms: int) -> None:
        """Takes an update in."""
        self.known = True
        self.revision = max(self.revision, update.revision)
        self.no_leader = update.header.no_leader
        if update.is_snapshot:
            self._services.clear()
            self._rows.clear()
            for each in update.snapshot:
                self._services.setdefault(each.name.of, {})[each.id] = each
        for event in update.events:
            self.changes.append((now_ms, event))
            name = event.instance.name.of
            self._rows.pop(name, None)
            instances = self._services.setdefault(name, {})
            if not event.left:
                instances[event.instance.id] = event.instance
            else:
                instances.pop(event.instance.id, None)
                if not instances:
                    del self._services[name]

    def instances(self, name: ServiceName) -> list[Instance]:
        """The instances of a service, by id."""
        return sorted(self._services.get(name, {}).values(), key=lambda each: each.id)

    def rows(self) -> list[Row]:
        """All services; those that did not change since are not counted again."""
        for name in self._services.keys() - self._rows.keys():
            self._rows[name] = _counted(name, self._services[name])
        return list(self._rows.values())


def _counted(name: ServiceName, instances: Mapping[str, Instance]) -> Row:
    return Row(
        name,
        len(instances),
        sum(each.routable for each in instances.values()),
        sum(each.stale for each in instances.values()),
        Counter(each.status for each in instances.values()),
        max((each.changed_at_ms for each in instances.values()), default=0),
    )
