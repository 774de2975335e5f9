"""I52 (nacos, Eureka: ghosts): who was removed comes back by a registration alone.

Each beginning of an instance has a request of its own to register it, which was on its way at
that moment; heartbeats, reports, drains and checks never make an instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.linear.history import Outcome
from tests.sim.books.instances import instances_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from raft.types import Entry
    from tests.sim.process import Process
    from tests.sim.registry_history import Call
    from tests.sim.world import World

__all__ = ("DeregisteredStaysAway",)


class DeregisteredStaysAway(Invariant):
    """Requests to register that may still have an effect, by instance."""

    number = "I52"
    title = "A deregistered or expired instance does not come back without a new registration."
    source = "ghost instances of Eureka's replication and of nacos"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._book = instances_of(world)
        self._seen = 0
        self._open: dict[str, int] = {}
        """Instance → requests that nobody knows to be over."""

    def registry_asked(self, call: Call) -> None:
        if call.kind == "register":
            self._open[call.name] = self._open.get(call.name, 0) + 1

    def registry_told(self, call: Call) -> None:
        if call.kind == "register" and call.outcome is not Outcome.UNKNOWN:
            self._open[call.name] -= 1

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        steps = self._book.follow(p, entries, results)
        news, self._seen = steps[self._seen :], len(steps)
        for step in news:
            born = step.before is None and step.after is not None
            if born and step.by_registry and not self._open.get(step.name):
                raise self.violated(
                    f"{step.name} came to be at revision {step.revision} ({step.why}), and "
                    "nobody was registering it"
                )
