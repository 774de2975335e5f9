"""I51 (Eureka's self-preservation, mended): a guard keeps its word, and minds its own business.

While a service's guard says that it holds, no instance that it marked is removed or found DOWN;
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

_ENDED = ("confirmed",)
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
        for step in steps[self._seen :]:
            self._look_at(step)
        self._seen = len(steps)

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
        state = self._book.guard_at(step.service, step.revision - 1)
        ends = after is None or after.silent
        if before.stale and ends and state and state not in _ENDED:
            same = self._book.guard_at(step.service, step.revision)
            if same == state:
                raise self.violated(
                    f"{step.name} was held by the guard of {step.service} (state {state}), and at "
                    f"revision {step.revision} the keeper wrote {step.why}"
                )
