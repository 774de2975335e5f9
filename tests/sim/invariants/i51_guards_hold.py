"""I51 (Eureka's self-preservation, mended): a guard keeps its word, and minds its own business.

While a service's guard says that it holds, nobody who was not DOWN before is found so, or removed;
and only instances on leases that the registry gave are ever marked, found silent or removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.sim.books.instances import Step, instances_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from raft.types import Entry
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("GuardsHold",)

_HOLDS = "holding"
_OF_THE_KEEPER = ("stale", "missed_heartbeat", "confirmed", "expired")


class GuardsHold(Invariant):
    """Looks at each change of an instance, with the note of its guard as it was before."""

    number = "I51"
    title = (
        "While a mass-expiry guard says that it holds, what it holds is neither removed nor "
        "DOWN; leases that are not the registry's are never guarded."
    )
    source = "Eureka's self-preservation, spring-cloud-netflix #2115 and kin"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._book = instances_of(world)
        self._seen = 0

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        steps = self._book.follow(p, entries, results)
        news, self._seen = steps[self._seen :], len(steps)
        for step in news:
            self._look_at(step)

    def _look_at(self, step: Step) -> None:
        before, after = step.before, step.after
        if before is None or not step.by_registry:
            return
        code = step.why.partition(":")[0]
        if code not in _OF_THE_KEEPER:
            return
        if not before.owned:
            raise self.violated(
                f"{step.name} stands on the lease {before.lease} of a client, and at revision "
                f"{step.revision} the keeper wrote {step.why}"
            )
        # Who was DOWN before the guard engaged is none of its business.
        ends = not before.silent and (after is None or after.silent)
        state = self._book.guard_at(step.service, step.revision - 1)
        if ends and state == _HOLDS and self._book.guard_at(step.service, step.revision) == _HOLDS:
            raise self.violated(
                f"the guard of {step.service} says that it holds, and at revision "
                f"{step.revision} the keeper wrote of {step.name} {step.why}"
            )
