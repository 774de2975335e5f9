"""How much of the loop's time DNS may take: a fifth of every second, by its own clock readings."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter

from kvstore.gateways.dns.limits import BUDGET_BURST_S, BUDGET_SHARE, TURN_S

__all__ = ("Budget", "Worker")

_LOG = logging.getLogger(__name__)


class Budget:
    """A bucket of seconds: it fills at a fixed rate, and work takes out what it took."""

    def __init__(
        self,
        clock: Callable[[], float] = perf_counter,
        share: float = BUDGET_SHARE,
        burst_s: float = BUDGET_BURST_S,
    ) -> None:
        self._clock = clock
        self._share = share
        self._burst_s = burst_s
        self._left_s = burst_s
        self._at = clock()
        self.spent_s = 0.0
        """All that was ever taken."""

    def spend(self, took_s: float) -> None:
        """Work has been done."""
        self.spent_s += took_s
        self._refill()
        self._left_s -= took_s

    def wait_s(self) -> float:
        """0 if there is time to work; otherwise when half of the bucket is there again."""
        self._refill()
        if self._left_s > 0:
            return 0.0
        return (self._burst_s / 2 - self._left_s) / self._share

    def _refill(self) -> None:
        now = self._clock()
        self._left_s = min(self._burst_s, self._left_s + (now - self._at) * self._share)
        self._at = now


class Worker:
    """Longer work, one after another: a few steps in each turn of the loop, out of the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._works: deque[Iterator[None]] = deque()
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None

    def run(self, work: Iterator[None]) -> None:
        """Begins as soon as what came before is done."""
        self._works.append(work)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._turn)

    def stop(self) -> None:
        """Leaves undone what is not done."""
        self._works.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        began = perf_counter()
        while self._works and perf_counter() - began < TURN_S:
            try:
                next(self._works[0])
            except StopIteration:
                self._works.popleft()
            except Exception:
                self._works.popleft()
                _LOG.exception("some work for DNS failed; please report it")
        self._budget.spend(perf_counter() - began)
        self._timer = None
        if self._works:
            # A timer even when there is time left: whoever else waits for the loop goes first.
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(self._budget.wait_s(), TURN_S), self._turn)
