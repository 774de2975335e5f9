"""One seed from its first event to its verdict, and the command line that replays it.

    python -m tests.sim.run --seed 7 --profile long --upto 3000 --log

Safety phase: everything happens that the seed has drawn. Then all faults stop, a quorum is chosen
as core and healed, the links of everybody else may stay bad for ever, and the core must have a
leader, agree, and serve. At the end all states and all histories are compared.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

from tests.linear.history import Operation, WatchRecord
from tests.sim import canary
from tests.sim.clients import Clients, Recorder
from tests.sim.cluster import Cluster
from tests.sim.complaints import Complaints
from tests.sim.endgame import Endgame
from tests.sim.faults import Faults, plan
from tests.sim.frontdoor import FrontDoor
from tests.sim.invariants import ALL
from tests.sim.judging import judge
from tests.sim.observer import Invariant, Violated
from tests.sim.operator import Operator
from tests.sim.params import PROFILES, Params, draw, overridden
from tests.sim.points import Points
from tests.sim.registrants import Registrants
from tests.sim.registry_readers import start_readers
from tests.sim.watchers import Watcher
from tests.sim.world import TICK, World

__all__ = ("Outcome", "Seed", "main", "run_seed")

Mutant = Callable[[], AbstractContextManager[Any]]
"""A context manager that breaks the product for the time of a seed."""

_COLLECTED_TICKS: Final = 2_000
"""Garbage is collected at these points and nowhere else, so that finalisers run at the same
moments in every run."""


@dataclass(slots=True)
class Outcome:
    """What came of a seed."""

    seed: int
    profile: str
    violation: Violated | None
    ticks: int = 0
    """How far the seed got, in ticks of true time."""
    operations: int = 0
    succeeded: int = 0
    events: int = 0
    watch_events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    """How often each fault point of the program was passed."""
    trace_sha256: str = ""
    wall_s: float = 0.0
    live: bool = False
    """Whether liveness could be demanded, and was shown."""
    nodes: int = 0
    decisions: int = 0
    lines: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return self.violation is None

    @property
    def replay(self) -> str:
        """The command that shows it again."""
        return f"python -m tests.sim.run --seed {self.seed} --profile {self.profile}"

    def __str__(self) -> str:
        verdict = "ok" if self.ok else f"VIOLATED {self.violation}"
        return (
            f"seed {self.seed} {self.profile}: {verdict}; {self.ticks} ticks, "
            f"{self.succeeded} of {self.operations} operations, {self.events} events, "
            f"{sum(self.faults.values())} faults, {self.wall_s:.1f} s, {self.trace_sha256[:16]}"
        )


class Seed:
    """Everything of one seed, put together."""

    def __init__(
        self,
        params: Params,
        *,
        skipped: Collection[int] = (),
        keep_log: bool = False,
        invariants: Sequence[type[Invariant]] | None = None,
    ) -> None:
        self.params = params
        self.cluster = Cluster(params, keep_log=keep_log)
        self.world: World = self.cluster.world
        wanted = ALL if invariants is None else invariants
        if params.profile == "canary":
            wanted = [*wanted, canary.Canary]
        self.world.watch([each(self.world) for each in wanted])
        self.recorder = Recorder(self.world)
        self.door = FrontDoor(self.world, params.client_delay_ns, params.client_loss_rate)
        self.clients = Clients(self.cluster, self.door, self.recorder)
        chance = self.world.prng.fork("watchers")
        self.watchers = [
            Watcher(self.clients, number, chance.fork(f"{number}"))
            for number in range(params.watchers)
        ]
        self.registrants = Registrants(self.clients)
        self.operator = Operator(self.cluster, self.clients)
        self.decisions = plan(params)
        self.points = Points(self.world)
        self.faults = Faults(
            self.cluster, self.door, self.operator, self.points, self.decisions, skipped
        )
        self.live = False

    @property
    def history(self) -> list[Operation]:
        """What every client did and saw."""
        return self.recorder.operations

    @property
    def watches(self) -> list[WatchRecord]:
        """What every watching client saw."""
        return [record for watcher in self.watchers for record in watcher.records]

    def run(self, until_tick: int | None = None) -> None:
        """The whole seed, or its beginning; ends early when a promise is broken."""
        world, params = self.world, self.params
        self.cluster.launch()
        self.clients.start()
        self.registrants.start()
        start_readers(self.clients)
        if params.stop_traffic_early:
            world.at(params.safety_ns * 9 // 10, self.clients.stop)
        last = params.safety_ns if until_tick is None else min(until_tick * TICK, params.safety_ns)
        while world.now_ns < last and world.violation is None:
            world.run(min(last, world.now_ns + _COLLECTED_TICKS * TICK))
            gc.collect(1)
        if world.violation is not None or last < params.safety_ns:
            return
        world.show("phase_ended", "safety")
        endgame = Endgame(
            self.cluster, self.clients, self.registrants, self.operator, self.faults, self.door
        )
        self.live = endgame.play()
        if world.violation is None:
            world.show("phase_ended", "end")
        if world.violation is None:
            judge(world, self.history, self.watches)


def run_seed(
    seed: int,
    profile: str = "long",
    *,
    until_tick: int | None = None,
    mutant: Mutant | None = None,
    keep_log: bool = False,
    skipped: Collection[int] = (),
    change: Callable[[Params], None] | None = None,
    invariants: Sequence[type[Invariant]] | None = None,
) -> Outcome:
    """Runs one seed. `skipped` decisions do not happen; `change` may alter the parameters."""
    began = time.perf_counter()
    params = draw(seed, profile)
    if change is not None:
        change(params)
    collecting = gc.isenabled()
    gc.disable()
    hooks = sys.get_asyncgen_hooks()
    # A stream of a process that has died just ends: nothing in it runs again.
    sys.set_asyncgen_hooks(finalizer=lambda _: None)
    try:
        broken = nullcontext() if mutant is None else mutant()
        with overridden(params), broken, Complaints() as complaints:
            made = Seed(params, skipped=skipped, keep_log=keep_log, invariants=invariants)
            complaints.world = made.world
            with made.points:
                made.run(until_tick)
            complaints.world = None
            made.cluster.bury()
            gc.collect(1)
    finally:
        sys.set_asyncgen_hooks(*hooks)
        if collecting:
            gc.enable()
    return _outcome(made, time.perf_counter() - began)


def _outcome(made: Seed, wall_s: float) -> Outcome:
    world = made.world
    faults = Counter(world.fired)
    for process in world.processes.values():
        faults.update({f"disk: {kind}": n for kind, n in process.disk.fired.items()})
    return Outcome(
        made.params.seed,
        made.params.profile,
        world.violation,
        world.tick,
        len(made.history),
        made.recorder.succeeded,
        world.events,
        sum(len(response.events) for record in made.watches for response in record.responses),
        faults,
        made.points.passed,
        world.trace_sha256(),
        wall_s,
        made.live,
        made.params.nodes,
        len(made.decisions),
        world.lines or [],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.run", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="long")
    parser.add_argument("--upto", type=int, metavar="TICK", help="stop after this many ticks")
    parser.add_argument("--skip", default="", help="numbers of decisions to leave out, with commas")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER", dest="changes",
                        help="set a parameter otherwise than drawn")  # fmt: skip
    parser.add_argument("--log", action="store_true", help="print every event, a line each")
    parser.add_argument("--faults", action="store_true", help="print what happened how often")
    options = parser.parse_args(arguments)
    skipped = {int(number) for number in options.skip.split(",") if number}

    def change(params: Params) -> None:
        for text in options.changes:
            name, _, number = text.partition("=")
            setattr(params, name, int(number))

    outcome = run_seed(
        options.seed,
        options.profile,
        until_tick=options.upto,
        keep_log=options.log,
        skipped=skipped,
        change=change,
    )
    for line in outcome.lines:
        print(line)
    if options.faults:
        for kind, count in sorted(outcome.faults.items()):
            print(f"{count:8} {kind}")
    print(outcome)
    print(f"trace {outcome.trace_sha256}")
    return 0 if outcome.ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
