"""Many seeds in several processes; each seed is a world of its own, so they need nothing shared.

A process is started anew, never forked: the traces of a seed must not depend on what ran before
in a parent, and a fixed PYTHONHASHSEED counts only for a process that begins with it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from tests.sim.mutants import planted
from tests.sim.run import run_seed

__all__ = ("PROCESSES", "Job", "Report", "Tally", "run_jobs")

PROCESSES: Final = int(os.environ.get("KVSTORE_SIM_PROCESSES", "2"))
_AHEAD: Final = 4
"""Jobs given to the pool beyond those that run, so that a campaign can be ended early."""


@dataclass(frozen=True, slots=True)
class Job:
    """One seed to run, with a known bug put in if `mutant` names one."""

    seed: int
    profile: str
    mutant: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a job, in a form that travels between processes."""

    job: Job
    violation: str
    """Empty if all held."""
    text: str
    ticks: int
    succeeded: int
    watch_events: int
    live: bool
    faults: dict[str, int]
    trace_sha256: str
    wall_s: float

    @property
    def ok(self) -> bool:
        return not self.violation


def _run(job: Job) -> Report:
    logging.disable(logging.NOTSET)
    name = job.mutant
    try:
        outcome = run_seed(
            job.seed, job.profile, mutant=(lambda: planted(name)) if name else nullcontext
        )
    except Exception as error:
        # A bug may break the simulator's own books before any invariant speaks.
        said = f"raised {error!r}"
        text = f"seed {job.seed} {job.profile}: {said}"
        return Report(job, said, text, 0, 0, 0, False, {}, "", 0.0)
    return Report(
        job,
        "" if outcome.ok else str(outcome.violation),
        str(outcome),
        outcome.ticks,
        outcome.succeeded,
        outcome.watch_events,
        outcome.live,
        dict(outcome.faults),
        outcome.trace_sha256,
        outcome.wall_s,
    )


@contextmanager
def _hash_seed(hash_seed: int | None) -> Iterator[None]:
    """Processes that are started meanwhile begin with this seed of Python's own hashes."""
    before = os.environ.get("PYTHONHASHSEED")
    if hash_seed is not None:
        os.environ["PYTHONHASHSEED"] = str(hash_seed)
    try:
        yield
    finally:
        if before is not None:
            os.environ["PYTHONHASHSEED"] = before
        elif hash_seed is not None:
            del os.environ["PYTHONHASHSEED"]


def run_jobs(
    jobs: Iterable[Job], *, processes: int = PROCESSES, hash_seed: int | None = None
) -> Iterator[Report]:
    """Runs the jobs, in any order; closing the iterator early drops those not begun."""
    waiting = iter(jobs)
    context = multiprocessing.get_context("spawn")
    with (
        _hash_seed(hash_seed),
        ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=50) as pool,
    ):
        running: set[Future[Report]] = set()
        try:
            while True:
                room = processes + _AHEAD - len(running)
                running |= {pool.submit(_run, job) for job in islice(waiting, room)}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()


@dataclass
class Tally:
    """A campaign's sums."""

    seeds: int = 0
    ticks: int = 0
    operations: int = 0
    watch_events: int = 0
    live: int = 0
    busy_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    void: list[str] = field(default_factory=list)

    def add(self, report: Report, *, least_operations: int) -> None:
        """Counts one report; too little traffic proves nothing, and makes a seed void."""
        self.seeds += 1
        self.ticks += report.ticks
        self.operations += report.succeeded
        self.watch_events += report.watch_events
        self.live += report.live
        self.busy_s += report.wall_s
        self.faults.update(report.faults)
        if not report.ok:
            self.violations.append(report.text)
        elif report.succeeded < least_operations:
            self.void.append(report.text)

    @property
    def numbers(self) -> dict[str, float]:
        """The sums, for the report."""
        return {
            "seeds": self.seeds,
            "virtual ticks of 10 ms": self.ticks,
            "operations that succeeded": self.operations,
            "watch events": self.watch_events,
            "seeds whose liveness was demanded and shown": self.live,
            "violations": len(self.violations),
            "void seeds": len(self.void),
            "seconds of processor time": round(self.busy_s),
        }
