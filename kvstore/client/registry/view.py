"""What a resolver knows of a service: a copy of the registry's answer, kept by updates. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kvstore.client.registry.answers import Update
from kvstore.client.registry.values import (
    Guard,
    Health,
    Instance,
    InstanceName,
    Selection,
    Status,
)

__all__ = ("EMPTY", "Change", "View", "updated")


@dataclass(frozen=True, slots=True)
class View:
    """The instances of a service as of a revision; never changed, only replaced."""

    instances: tuple[Instance, ...] = ()
    """All of the answer: those of the preferred zone first, then by id."""
    candidates: tuple[Instance, ...] = ()
    """Those that may get requests now."""
    revision: int = 0
    """0: nothing was heard yet."""
    stale: bool = True
    """The cluster cannot be asked now, or has no leader: this is how it was."""
    guard: Guard | None = None

    @property
    def ready(self) -> bool:
        """The registry has answered at least once."""
        return self.revision > 0

    def as_stale(self) -> View:
        """The same, known to be old."""
        return replace(self, stale=True)


EMPTY = View()


@dataclass(frozen=True, slots=True)
class Change:
    """What is different in a view from the one before."""

    view: View
    joined: tuple[Instance, ...] = ()
    changed: tuple[Instance, ...] = ()
    left: tuple[Instance, ...] = ()
    """As they were last."""

    def __bool__(self) -> bool:
        return bool(self.joined or self.changed or self.left)


def updated(view: View, update: Update, selection: Selection) -> Change:
    """What comes of a view by an update."""
    before = {each.name: each for each in view.instances}
    after = {each.name: each for each in update.snapshot} if update.is_snapshot else dict(before)
    left: dict[InstanceName, Instance] = {}
    for event in update.events:
        name = event.instance.name
        if event.left:
            after.pop(name, None)
            left[name] = event.instance
        else:
            after[name] = event.instance
    new = View(
        revision=update.revision,
        stale=update.header.no_leader,
        # A message without changes does not tell of the guard.
        guard=view.guard if update.is_progress else update.guard,
    )
    if after == before:
        # The same tuples: balancers keep what they have computed from them.
        return Change(replace(new, instances=view.instances, candidates=view.candidates))
    instances = tuple(
        sorted(after.values(), key=lambda i: (i.zone != selection.prefer_zone, i.name))
    )
    new = replace(new, instances=instances, candidates=_candidates(instances, selection))
    return _change(new, before, after, left)


def _change(
    view: View,
    before: Mapping[InstanceName, Instance],
    after: Mapping[InstanceName, Instance],
    left: Mapping[InstanceName, Instance],
) -> Change:
    return Change(
        view,
        joined=tuple(each for name, each in after.items() if name not in before),
        changed=tuple(each for name, each in after.items() if before.get(name, each) != each),
        left=tuple(left.get(name, each) for name, each in before.items() if name not in after),
    )


def _candidates(instances: tuple[Instance, ...], selection: Selection) -> tuple[Instance, ...]:
    fit = tuple(
        each
        for each in instances
        if each.routable or (selection.unknown_is_healthy and each.status is Status.UNKNOWN)
    )
    if fit or selection.health is not Health.HEALTHY_OR_ELSE_ALL:
        return fit
    return instances
