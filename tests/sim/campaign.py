"""Many seeds on all cores, and what must be true of them together.

Zero violations mean little by themselves: every kind of fault must have fired, every seed must
have done enough, and the canary must have been caught.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from kvstore import faults
from tests.sim.counts import record
from tests.sim.params import CRASH_KINDS, FAULT_KINDS
from tests.sim.pool import Job, run_jobs
from tests.sim.run import Outcome

__all__ = ("Campaign", "campaign")

_LEAST: Final = {"long": 20, "short": 8}
"""A seed with fewer successful operations is void."""
_DISK_KINDS: Final = (
    "disk: kill",
    "disk: bit flipped",
    "disk: sync: EIO",
    "disk: write: EIO",
    "disk: write torn",
    "disk: write lost",
    "disk: name change lost",
    "disk: store commits lost",
    "disk: power loss: drop all",
    "disk: power loss: keep a prefix",
    "disk: power loss: keep any writes, and any sectors of some",
    "disk: power loss: tear the last write",
    "disk: power loss: lose one sector of the writes",
)
_NETWORK_KINDS: Final = (
    "message lost",
    "message doubled",
    "message replayed",
    "message slow",
    "message cut off",
    "message held up",
    "connection reset",
    "link over capacity",
    "client message lost",
    "snapshot installed",
    "watch stalled",
    "MemberAdd",
    "MemberRemove",
)
_ARMED: Final = ("crash at operation", "crash at point")
"""Decisions that only prepare something; what comes of it has names of its own."""
_SHORT_KINDS: Final = (
    *(kind for kind in CRASH_KINDS if kind not in _ARMED),
    "crash at write",
    "crash at sync",
    "crash at create",
    "crash at store commit",
    "died at a point",
)


@dataclass(slots=True)
class Campaign:
    """The outcomes of many seeds of one profile."""

    profile: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        """Seeds that broke a promise; the one that did so first in ticks comes first."""
        return sorted((each for each in self.outcomes if not each.ok), key=lambda each: each.ticks)

    @property
    def void(self) -> list[Outcome]:
        """Seeds in which too little succeeded to mean anything."""
        least = _LEAST.get(self.profile, 0)
        return [each for each in self.outcomes if each.ok and each.succeeded < least]

    @property
    def faults(self) -> Counter[str]:
        """What happened in all of them together."""
        total: Counter[str] = Counter()
        for outcome in self.outcomes:
            total.update(outcome.faults)
        return total

    def silent(self) -> list[str]:
        """Kinds of faults that never fired."""
        expected = _SHORT_KINDS
        if self.profile == "long":
            planned = tuple(kind for kind in FAULT_KINDS if kind not in _ARMED)
            chosen = tuple(f"choice {name}" for name in faults.CHOICES)
            expected = (*planned, *chosen, *_DISK_KINDS, *_NETWORK_KINDS, *_SHORT_KINDS)
        fired = self.faults
        return sorted({kind for kind in expected if not fired[kind]})

    def __str__(self) -> str:
        return (
            f"{self.profile}: {len(self.outcomes)} seeds, {len(self.failed)} violations, "
            f"{len(self.void)} void, {sum(each.live for each in self.outcomes)} live"
        )

    def count(self) -> None:
        """Adds this campaign's numbers to the report's."""
        fired = self.faults
        points: Counter[str] = Counter()
        for outcome in self.outcomes:
            points.update(outcome.points)
        numbers = {
            "seeds": len(self.outcomes),
            "violations": len(self.failed),
            "void": len(self.void),
            "ticks": sum(each.ticks for each in self.outcomes),
            "node_ticks": sum(each.ticks * each.nodes for each in self.outcomes),
            "operations": sum(each.operations for each in self.outcomes),
            "succeeded": sum(each.succeeded for each in self.outcomes),
            "watch_events": sum(each.watch_events for each in self.outcomes),
            "events": sum(each.events for each in self.outcomes),
            "live": sum(each.live for each in self.outcomes),
            "histories_judged": fired["history judged"],
            "seconds": round(sum(each.wall_s for each in self.outcomes), 1),
        }
        record(f"sim-{self.profile}", **numbers)
        record(f"faults.{self.profile}", **fired)
        record(f"points.{self.profile}", **points)


def campaign(profile: str, seeds: Iterable[int]) -> Campaign:
    """Runs these seeds, each in one of a few processes that know nothing of each other."""
    result = Campaign(profile)
    result.outcomes += (outcome for _, outcome in run_jobs(Job(seed, profile) for seed in seeds))
    result.outcomes.sort(key=lambda each: each.seed)
    return result
