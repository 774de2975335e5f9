"""I24 (etcd): reading at any revision in [compact, current] gives what was there, on every node.

Below the compact revision the answer is *compacted*, above the current one *future*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.errors import COMPACTED, FUTURE_REVISION
from tests.sim.books.canon import canon_of
from tests.sim.books.reading import pairs_at, refusal_at, running
from tests.sim.observer import Invariant
from tests.sim.prng import Prng

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("PastStays",)

_SAMPLES = 8
"""Past revisions read on each process at the end of a phase, beside both ends."""


class PastStays(Invariant):
    """At the end of each phase, on every process that runs, at sampled revisions."""

    number = "I24"
    title = (
        "Reading at any revision r in [compact, current] equals the model's state at r; below "
        "compact gives compacted, above current gives future, on every node alike."
    )
    source = "etcd"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)

    def phase_ended(self, name: str) -> None:
        canon = self._canon
        for p in running(self.world.processes):
            if p.machine.applied_index not in canon.outcomes:
                continue
            self._check(p, self._sampled(p, name))

    def _sampled(self, p: Process, name: str) -> list[int]:
        low, high = max(p.machine.compact_revision, 1), p.machine.revision
        prng: Prng = self.world.prng.fork(f"I24 {name} {p.name}")
        some = [prng.between(low, high) for _ in range(_SAMPLES)] if high > low else []
        return sorted({low, high, *some})

    def _check(self, p: Process, revisions: list[int]) -> None:
        canon = self._canon
        for revision in revisions:
            found, expected = pairs_at(p, revision), canon.state_at(revision)
            if found != expected:
                keys = sorted(
                    key for key in {*found, *expected} if found.get(key) != expected.get(key)
                )
                raise self.violated(
                    f"{p.name} at revision {revision} (compacted to {p.machine.compact_revision}, "
                    f"now {p.machine.revision}): {keys[0]!r} is {found.get(keys[0])}, but was "
                    f"{expected.get(keys[0])}; {len(keys)} keys differ"
                )
        compact, current = p.machine.compact_revision, p.machine.revision
        if compact > 1 and refusal_at(p, compact - 1) != COMPACTED:
            raise self.violated(
                f"{p.name} reads at revision {compact - 1}, below its compact revision {compact}"
            )
        if refusal_at(p, current + 1) != FUTURE_REVISION:
            raise self.violated(
                f"{p.name} reads at revision {current + 1}, beyond its own, {current}"
            )
