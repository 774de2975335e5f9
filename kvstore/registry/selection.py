"""Which instances of a service somebody wants, and in which order. Pure.

Most selections judge each instance by itself (`Selection.is_plain`). Two do not: all instances if
none is healthy, and only those of a zone if there is one. There the whole service decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from kvstore.registry.model import Instance, is_routable

__all__ = ("EVERYTHING", "HEALTHY", "Chosen", "Health", "Selection")


class Health(Enum):
    """Instances of which health are wanted; the numbers are those of the protobuf enum."""

    HEALTHY = 0
    """UP and DEGRADED."""
    ALL = 1
    HEALTHY_OR_ELSE_ALL = 2
    """All of them if none is healthy: better a try than nothing."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What somebody wants; equal selections are equal keys."""

    health: Health = Health.HEALTHY
    tags: tuple[str, ...] = ()
    """All of these."""
    version: str = ""
    prefer_zone: str = ""
    """Its instances come first."""
    only_preferred: bool = False
    """The others are left out, if one of that zone qualifies."""
    unknown_is_healthy: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether each instance can be judged without the others."""
        zone_decides = self.only_preferred and self.prefer_zone
        return self.health is not Health.HEALTHY_OR_ELSE_ALL and not zone_decides

    def matches(self, instance: Instance) -> bool:
        """Whether an instance is of the kind that is wanted, healthy or not."""
        if self.version and instance.version != self.version:
            return False
        return all(tag in instance.tags for tag in self.tags)

    def is_healthy(self, instance: Instance) -> bool:
        """Whether it counts as healthy here."""
        return is_routable(instance.status, unknown=self.unknown_is_healthy)

    def takes(self, instance: Instance) -> bool:
        """Whether a plain selection holds this instance."""
        healthy = self.health is Health.ALL or self.is_healthy(instance)
        return healthy and self.matches(instance)

    def choose(self, instances: Iterable[Instance]) -> Chosen:
        """Those that are wanted, in order."""
        wanted = [each for each in instances if self.matches(each)]
        fell_back = False
        if self.health is not Health.ALL:
            healthy = [each for each in wanted if self.is_healthy(each)]
            fell_back = self.health is Health.HEALTHY_OR_ELSE_ALL and not healthy and bool(wanted)
            if not fell_back:
                wanted = healthy
        if self.only_preferred and self.prefer_zone:
            near = [each for each in wanted if each.zone == self.prefer_zone]
            wanted = near or wanted
        wanted.sort(key=self.rank)
        return Chosen(wanted, fell_back)

    def rank(self, instance: Instance) -> tuple[bool, str, str, str]:
        """Sorts: the preferred zone first, then by name."""
        far = bool(self.prefer_zone) and instance.zone != self.prefer_zone
        return far, instance.namespace, instance.service, instance.id


HEALTHY = Selection()
EVERYTHING = Selection(Health.ALL)


class Chosen(NamedTuple):
    """What a selection makes of a service."""

    instances: list[Instance]
    fell_back: bool
    """None was healthy, these are all."""
