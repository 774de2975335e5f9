"""Many seeds in several processes; each seed is a world of its own, so they need nothing shared.

A process is started anew, never forked: the traces of a seed must not depend on what ran before
in a parent.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from tests.sim.mutants import planted
from tests.sim.observer import Violated
from tests.sim.run import Outcome, run_seed

__all__ = ("Job", "run_jobs")

_PROCESSES: Final = int(os.environ.get("KVSTORE_SIM_PROCESSES", "2"))
_AHEAD: Final = 4
"""Jobs given to the pool beyond those that run, so that a campaign can be ended early."""
_JOBS_MAX: Final = 200
"""Jobs of a pool before another takes its place: a process that made many worlds is large."""


@dataclass(frozen=True, slots=True)
class Job:
    """One seed to run, with a known bug put in if `mutant` names one."""

    seed: int
    profile: str
    mutant: str = ""

    def run(self) -> Outcome:
        """Runs it here. What the simulator itself raises is a violation, too: a bug may break
        its books before any invariant speaks."""
        planting = planted(self.mutant) if self.mutant else nullcontext()
        try:
            return run_seed(self.seed, self.profile, mutant=lambda: planting)
        except Exception as error:
            return Outcome(self.seed, self.profile, Violated("raised", repr(error)))


def _run(job: Job) -> tuple[Job, Outcome]:
    logging.getLogger().addHandler(logging.NullHandler())
    return job, job.run()


def run_jobs(jobs: Iterable[Job]) -> Generator[tuple[Job, Outcome], None, None]:
    """Runs the jobs, in any order; closing the generator early drops those not begun."""
    waiting = iter(jobs)
    for first in waiting:
        yield from _run_some(chain((first,), islice(waiting, _JOBS_MAX - 1)))


def _run_some(waiting: Iterator[Job]) -> Generator[tuple[Job, Outcome], None, None]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, mp_context=context) as pool:
        running: set[Future[tuple[Job, Outcome]]] = set()
        try:
            while True:
                room = _PROCESSES + _AHEAD - len(running)
                running |= {pool.submit(_run, job) for job in islice(waiting, room)}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()
