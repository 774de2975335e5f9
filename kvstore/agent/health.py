"""What the checks of one service add up to, and who is told of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from kvstore.agent.config import ServiceConfig
from kvstore.checks.probes import Target
from kvstore.checks.scheduler import Scheduler
from kvstore.checks.tally import Finding, Standing, Tally, worst
from kvstore.client.registry.values import CheckResult, Status

__all__ = ("Health", "Report")

Report = Callable[[Status, CheckResult], None]


class Health:
    """The checks of one instance; they run from `start` on."""

    def __init__(self, service: ServiceConfig, address: str, report: Report) -> None:
        self._service = service
        self._target = Target(address, service.port)
        self._report = report
        self._tallies = [Tally() for _ in service.checks]

    def start(self, scheduler: Scheduler) -> None:
        """Has them run."""
        for index, check in enumerate(self._service.checks):
            scheduler.add((id(self), index), check, self._target, partial(self._told, index))

    def stop(self, scheduler: Scheduler) -> None:
        """They run no more."""
        for index in range(len(self._tallies)):
            scheduler.remove((id(self), index))

    def _told(self, index: int, tally: Tally, finding: Finding) -> None:
        self._tallies[index] = tally
        overall = worst(each.standing for each in self._tallies)
        if overall is Standing.STARTING or tally.standing is not overall:
            return  # another check decides; its own finding was told
        check = self._service.checks[index]
        status = Status(overall.value)
        output = f"{finding.summary}\n{finding.output}".rstrip()
        self._report(status, CheckResult(check.title, status, output, round(time.time() * 1000)))
