"""Runs many checks, each at its own pace, at most so many probes at once."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Hashable
from typing import Protocol

from kvstore.checks import limits
from kvstore.checks.probes import Target
from kvstore.checks.spec import Check
from kvstore.checks.tally import Finding, Tally, pause_s

__all__ = ("Asks", "Scheduler", "Told")

_LOG = logging.getLogger(__name__)

Told = Callable[[Tally, Finding], None]
"""Hears of every finding, with where the check stands now. Called on the loop."""


class Asks(Protocol):
    """What the scheduler needs of a prober."""

    async def probe(self, check: Check, target: Target) -> Finding:
        """Asks once; never raises."""
        ...


class Scheduler:
    """The checks of one process. A check never overlaps with itself."""

    def __init__(
        self,
        prober: Asks,
        *,
        concurrency: int = limits.CONCURRENCY,
        eager: bool = False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`eager`: who is starting is asked more often (see `pause_s`)."""
        self._prober = prober
        self._slots = asyncio.Semaphore(concurrency)
        self._eager = eager
        self._chance = chance
        self._running: dict[Hashable, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._running

    def add(
        self,
        key: Hashable,
        check: Check,
        target: Target,
        told: Told,
        *,
        tally: Tally | None = None,
        first_after_s: float = 0.0,
    ) -> None:
        """Runs a check from now on; one that ran under this key ends.

        `tally`: where it stands already. `first_after_s`: many that begin together should not
        all ask at once.
        """
        self.remove(key)
        self._running[key] = asyncio.get_running_loop().create_task(
            self._run(check, target, told, tally or Tally(), first_after_s),
            name=f"check {check.title}",
        )

    def remove(self, key: Hashable) -> None:
        """Ends a check; a probe under way is given up. Unknown keys are fine."""
        task = self._running.pop(key, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Ends all of them, and waits until nothing runs any more."""
        tasks = list(self._running.values())
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(
        self, check: Check, target: Target, told: Told, tally: Tally, first_after_s: float
    ) -> None:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(first_after_s)
        while True:
            began = clock()
            async with self._slots:
                try:
                    finding = await self._prober.probe(check, target)
                    tally = tally.after(check, finding)
                    told(tally, finding)
                except Exception:  # a bug must not end the checking of this instance
                    _LOG.exception("check %s failed; going on", check.title)
            took_s = clock() - began
            await asyncio.sleep(pause_s(check, tally, took_s, self._chance(), eager=self._eager))
