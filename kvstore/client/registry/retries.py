"""When a failed call is made again, and how much of that there may be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ("NO_RETRY", "RetryBudget", "RetryPolicy")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and with which pauses."""

    attempts: int = 3
    """In all, the first one included."""
    first_s: float = 0.025
    """The pause before the second attempt is anything up to this (full jitter); the bound doubles
    with each further attempt, …"""
    max_s: float = 1.0
    """… up to this."""
    attempt_s: float | None = None
    """One attempt may take so long; None: all the time that the call has."""

    def pause_s(self, failures: int, random: Callable[[], float]) -> float:
        """The pause after so many failures."""
        return random() * float(min(self.first_s * 2.0 ** (failures - 1), self.max_s))


NO_RETRY = RetryPolicy(attempts=1)
"""One attempt."""


class RetryBudget:
    """Bounds retries to a part of the calls, so that they cannot bury what already fails.

    Each call earns `ratio` of a retry, up to `reserve` saved; `least_per_s` are earned by time, so
    that rare callers have some, too. Safe in threads.
    """

    def __init__(
        self,
        ratio: float = 0.2,
        *,
        reserve: float = 50.0,
        least_per_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._least_per_s = least_per_s
        self._clock = clock
        self._saved = reserve
        self._at = clock()
        self._lock = threading.Lock()

    @property
    def saved(self) -> float:
        """How many retries are possible now."""
        with self._lock:
            self._earn(0.0)
            return self._saved

    def called(self) -> None:
        """A call was made; not a retry."""
        with self._lock:
            self._earn(self._ratio)

    def spend(self) -> bool:
        """Take one retry; False: there is none left."""
        with self._lock:
            self._earn(0.0)
            if self._saved < 1.0:
                return False
            self._saved -= 1.0
            return True

    def _earn(self, more: float) -> None:
        now = self._clock()
        more += (now - self._at) * self._least_per_s
        self._at = now
        self._saved = min(self._saved + more, self._reserve)
