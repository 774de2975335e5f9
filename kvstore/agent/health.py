"""What the checks of one service add up to, and who is told of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from kvstore.agent.config import ServiceConfig
from kvstore.checks.probes import Target
from kvstore.checks.scheduler import Scheduler
from kvstore.checks.tally import Finding, Standing, Tally, shortened, worst
from kvstore.client.registry.values import CheckResult, Status

__all__ = ("Health", "Report")

_LOG = logging.getLogger(__name__)

Report = Callable[[Status, Mapping[str, CheckResult]], None]
"""Gets what all checks add up to, and the last result of each."""


class Health:
    """The checks of one instance; they run from `start` on."""

    def __init__(self, service: ServiceConfig, address: str, report: Report) -> None:
        self._service = service
        self._target = Target(address, service.port)
        self._report = report
        self._tallies = [Tally() for _ in service.checks]
        self._results: dict[str, CheckResult] = {}

    def start(self, scheduler: Scheduler) -> None:
        """Has them run."""
        for index, check in enumerate(self._service.checks):
            scheduler.add((id(self), index), check, self._target, partial(self._told, index))

    def stop(self, scheduler: Scheduler) -> None:
        """They run no more."""
        for index in range(len(self._tallies)):
            scheduler.remove((id(self), index))

    def _told(self, index: int, tally: Tally, finding: Finding) -> None:
        check = self._service.checks[index]
        _LOG.debug("check %s: %s", check.title, finding.summary)
        self._tallies[index] = tally
        self._results[check.title] = CheckResult(
            check.title,
            Status(tally.standing.value),
            shortened(f"{finding.summary}\n{finding.output}".rstrip().encode()),
            round(time.time() * 1000),
        )
        if any(each.standing is Standing.STARTING for each in self._tallies):
            return  # it is wanted only when every check has passed once
        overall = worst(each.standing for each in self._tallies)
        self._report(Status(overall.value), self._results)
