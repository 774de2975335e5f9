"""The long campaign, cut to the time there is: fresh seeds first, then every other proof.

`python -m tests.sim.nightly --minutes 90` spends about half of the time on new seeds of the
simulator and gives the rest to the other campaigns, one after the other; what no longer fits is
said, not passed over in silence. Counts go where KVSTORE_COUNTS says; any failure fails the whole.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.sim.campaign import Campaign
from tests.sim.pool import Job, run_jobs

__all__ = ("main",)

_SEEDS_SHARE = 0.5
_MIX = {"long": 1, "short": 3}
"""How many seeds of each profile are run in turn."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One campaign of the test suite."""

    name: str
    minutes: float
    """What it takes, about, on two cores."""
    tests: tuple[str, ...]


STAGES = (
    Stage("mutants and canary", 5, ("tests/sim/test_mutants.py",)),
    Stage("determinism", 6, ("tests/sim/test_determinism.py", "-m", "slow")),
    Stage("checkers", 1, ("tests/linear", "-m", "sim")),
    Stage("nemesis", 8, ("tests/process/test_nemesis.py", "-m", "slow")),
    Stage("damage of logs", 4, ("tests/sim/test_wal_damage.py",)),
    Stage("crash points", 5, ("tests/sim/test_sweep.py",)),
    Stage("fault points", 4, ("tests/process/test_fault_points.py",)),
    Stage("damage of stores", 5, ("tests/process/test_store_damage.py", "-m", "slow")),
    Stage("fuzz", 10, ("tests/fuzz", "-m", "slow")),
)


def _jobs(first: int) -> Iterator[Job]:
    seed = first
    while True:
        for profile, share in _MIX.items():
            for _ in range(share):
                yield Job(seed, profile)
                seed += 1


def _seeds(first: int, until: float) -> bool:
    """Fresh seeds until the time is up; True if all held."""
    campaigns = {profile: Campaign(profile) for profile in _MIX}
    reports = run_jobs(_jobs(first))
    for job, outcome in reports:
        campaigns[job.profile].outcomes.append(outcome)
        if not outcome.ok:
            print(f"{outcome}\n  {outcome.replay}", flush=True)
        if time.monotonic() > until:
            break
    reports.close()
    for campaign in campaigns.values():
        campaign.count()
        print(campaign, flush=True)
        for each in campaign.void:
            print(f"too little succeeded: {each}", flush=True)
        if campaign.silent():
            print(f"never happened: {', '.join(campaign.silent())}", flush=True)
    return not any(
        campaign.failed or campaign.void or campaign.silent() for campaign in campaigns.values()
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit code is 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.nightly", description=__doc__)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--first", type=int, help="first seed; by the day if not given")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    end = began + 60 * options.minutes
    first = options.first or int(time.time() // 86_400) * 1_000_000
    print(f"seeds from {first}", flush=True)
    good = _seeds(first, began + 60 * options.minutes * _SEEDS_SHARE)
    for stage in STAGES:
        left = (end - time.monotonic()) / 60
        if stage.minutes > left:
            print(f"{stage.name}: left out, it takes {stage.minutes} of {left:.0f} minutes")
            continue
        command = [sys.executable, "-m", "pytest", "-q", "--timeout", "0", *stage.tests]
        result = subprocess.run(command, check=False)
        print(f"{stage.name}: {'ok' if result.returncode == 0 else 'FAILED'}", flush=True)
        good &= result.returncode == 0
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
