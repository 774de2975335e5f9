"""Rounds of faults on one cluster: traffic, fault, well again, and everything judged.

The checkers need a history that began on an empty store, so each round is judged on everything
since the cluster's start; whoever runs many rounds begins a new cluster after a few
(`ROUNDS_PER_CLUSTER`), which keeps the search short.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.linear.history import Outcome, Range
from tests.linear.judge import judge
from tests.sim import counts
from tests.support.battlefield import HEALTHY_S, Field
from tests.support.load import Load, replayed
from tests.support.nemesis import Fault
from tests.support.rpc import Rpc
from tests.support.traffic import settled_hashes

__all__ = ("ROUNDS_PER_CLUSTER", "Campaign", "Round", "run")

ROUNDS_PER_CLUSTER = 8
BEFORE_MIN, AFTER_MIN = 30, 30
"""Requests that must succeed before the fault and after it: below, a round proves nothing."""
WAIT_S = 15.0
VOID_MAX = 2
"""How often a void round is repeated."""


@dataclass(frozen=True)
class Round:
    """What happened in one round."""

    fault: str
    size: int
    requests: int
    unknown: int
    during: int
    """Requests that succeeded while the fault lasted, and while the cluster came to itself."""
    fault_s: float
    healthy_s: float
    judged: int
    """Length of the history that was judged, with the rounds before."""
    void: bool

    def __str__(self) -> str:
        state = "VOID" if self.void else "ok"
        return (
            f"{state:4} {self.fault} ({self.size} members): {self.requests} requests, "
            f"{self.unknown} unknown, {self.during} during {self.fault_s:.1f} s of fault, healthy "
            f"{self.healthy_s:.1f} s later, history of {self.judged} judged"
        )


class Campaign:
    """One cluster, its traffic and its rounds."""

    def __init__(self, field: Field, *, seed: int) -> None:
        self.field = field
        self.load = Load([server.endpoint for server in field.servers], seed=seed)
        self.rounds: list[Round] = []

    def round(self, name: str, fault: Fault) -> Round:
        """Raises AssertionError if anything was violated; a void round is not green either."""
        field, load = self.field, self.load
        known, fired = len(load.history), field.fired + field.proxy.fired
        with load.running():
            enough = load.wait_acknowledged(BEFORE_MIN, WAIT_S)
            began, acknowledged = time.monotonic(), load.acknowledged
            fault(field)
            ended = time.monotonic()
            field.start_all()
            healthy_s = field.wait_healthy()
            during = load.acknowledged - acknowledged
            enough &= load.wait_acknowledged(AFTER_MIN, WAIT_S)
        assert field.fired + field.proxy.fired != fired, f"{name}: no fault has fired"
        self._judge()
        new = load.history[known:]
        result = Round(
            fault=name,
            size=field.size,
            requests=len(new),
            unknown=sum(op.outcome is Outcome.UNKNOWN for op in new),
            during=during,
            fault_s=ended - began,
            healthy_s=healthy_s,
            judged=len(load.history),
            void=not enough,
        )
        self.rounds.append(result)
        print(result, flush=True)
        return result

    def _judge(self) -> None:
        """Every member answers the last question alike, and all that was said before fits."""
        load, field = self.load, self.field
        hashes = settled_hashes(field.cluster)
        assert len(set(hashes)) == 1, hashes
        for server in field.servers:
            with Rpc(server.endpoint, timeout_s=HEALTHY_S) as rpc:
                last = load.ask(rpc, load.number(), Range(b"k", b"l"))
            assert last.outcome is Outcome.OK, last
        log = replayed(field.shuffled()[0].endpoint, hashes[0][0])
        judge(load.history, load.watches, log).demand()

    def finish(self) -> None:
        """Every member stops in order, its directory is whole, its log holds no bug's trace."""
        for server in self.field.servers:
            assert server.stop() == 0, server.log()[-2000:]
            self.field.check_offline(server)
            for line in server.log().splitlines():
                expected = "kvstore.storage.errors." in line  # a disk that is full or damaged
                assert "Traceback" not in line or expected, line


def run(
    name: str,
    faults: Sequence[tuple[str, Fault]],
    directory: Path,
    *,
    seed: int,
    size: Callable[[int], int] = lambda _: 3,
) -> Counter[str]:
    """Runs a round of each fault, on as many clusters as that takes; prints and records counts.

    `size` gives the members of the n-th cluster.
    """
    total: Counter[str] = Counter()
    waiting = iter(faults)
    cluster = 0
    while batch := list(islice(waiting, ROUNDS_PER_CLUSTER)):
        with Field(directory / f"{name}{cluster}", size=size(cluster), seed=seed) as field:
            campaign = Campaign(field, seed=seed)
            try:
                for label, fault in batch:
                    _until_it_counts(campaign, label, fault)
            except BaseException:
                print(f"seed {seed}, after {[each.fault for each in campaign.rounds]}")
                raise
            campaign.finish()
            total += tally(campaign)
        cluster, seed = cluster + 1, seed + 1
    counts.record(f"nemesis.{name}", **{key.replace(" ", "_"): n for key, n in total.items()})
    print(f"{name}: " + ", ".join(f"{key} {count}" for key, count in total.items()), flush=True)
    return total


def _until_it_counts(campaign: Campaign, label: str, fault: Fault) -> None:
    for _ in range(1 + VOID_MAX):
        if not campaign.round(label, fault).void:
            return
    raise AssertionError(f"{label}: void {1 + VOID_MAX} times, so it shows nothing")


def tally(campaign: Campaign) -> Counter[str]:
    """A campaign in numbers."""
    load, field, rounds = campaign.load, campaign.field, campaign.rounds
    numbers = Counter(
        {
            "rounds": sum(not each.void for each in rounds),
            "void rounds": sum(each.void for each in rounds),
            "requests": len(load.history),
            "acknowledged": load.acknowledged,
            "unknown": sum(op.outcome is Outcome.UNKNOWN for op in load.history),
            "refused": sum(op.outcome is Outcome.REFUSED for op in load.history),
            "watches": len(load.watches),
            "watch events": sum(len(r.events) for w in load.watches for r in w.responses),
            "directories checked": field.checked,
        }
    )
    return numbers + field.fired + field.proxy.fired
