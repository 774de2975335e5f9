"""A circuit breaker: calls that are bound to fail are refused at once, and given time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Self

from kvstore.client.registry.errors import CircuitOpenError
from kvstore.client.registry.failures import Failure, judge

__all__ = ("BreakerState", "CircuitBreaker", "Permit")

logger = logging.getLogger("kvstore.client")


class BreakerState(StrEnum):
    """How a circuit breaker is."""

    CLOSED = "closed"
    """Calls go through; their results are counted."""
    OPEN = "open"
    """Calls are refused."""
    HALF_OPEN = "half-open"
    """A few calls go through, to see."""


class CircuitBreaker:
    """Around any call, blocking or awaited: `with breaker.permit(): ...`. Safe in threads.

    Opens when of the last `window` calls (and at least `at_least`) more than `failure_share` have
    failed; refuses for `open_s`; then lets `probes` calls through, and closes if all of them go
    well. An exception is a failure unless `judge` finds it to be the caller's own.
    """

    def __init__(
        self,
        name: str = "",
        *,
        failure_share: float = 0.5,
        window: int = 50,
        at_least: int = 10,
        open_s: float = 10.0,
        probes: int = 1,
        judge: Callable[[BaseException], Failure] = judge,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._failure_share = failure_share
        self._at_least = at_least
        self._open_s = open_s
        self._probes = probes
        self._judge = judge
        self._clock = clock
        self._failed: deque[bool] = deque(maxlen=window)
        self._state = BreakerState.CLOSED
        self._until = 0.0
        self._probing = 0
        self._probed = 0
        self._turn = 0
        self._lock = threading.Lock()

    @property
    def state(self) -> BreakerState:
        """As a call would find it now."""
        with self._lock:
            if self._state is BreakerState.OPEN and self._clock() >= self._until:
                return BreakerState.HALF_OPEN
            return self._state

    def permit(self) -> Permit:
        """The right to make one call, to be entered. Raises CircuitOpenError."""
        with self._lock:
            now = self._clock()
            if self._state is BreakerState.OPEN and now >= self._until:
                self._turn_to(BreakerState.HALF_OPEN)
            if self._state is BreakerState.HALF_OPEN:
                if self._probing + self._probed >= self._probes:
                    raise CircuitOpenError(f"circuit {self.name}: a probe is under way", 0.0)
                self._probing += 1
            elif self._state is BreakerState.OPEN:
                left = self._until - now
                raise CircuitOpenError(f"circuit {self.name} is open for {left:.1f} s", left)
            return Permit(self, self._turn)

    def _done(self, turn: int, error: BaseException | None) -> None:
        """The call of a permit is over."""
        counts = error is None or isinstance(error, Exception)
        failed = error is not None and counts and self._judge(error) is not Failure.CALLER
        with self._lock:
            if turn != self._turn:
                return  # from before the state changed: no news
            if self._state is BreakerState.HALF_OPEN:
                self._probing -= 1
                if failed:
                    self._open()
                elif counts:
                    self._probed += 1
                    if self._probed >= self._probes:
                        self._turn_to(BreakerState.CLOSED)
            elif self._state is BreakerState.CLOSED and counts:
                self._failed.append(failed)
                failures = sum(self._failed)
                seen = len(self._failed)
                if seen >= self._at_least and failures > self._failure_share * seen:
                    self._open()

    def _open(self) -> None:
        self._until = self._clock() + self._open_s
        self._turn_to(BreakerState.OPEN)

    def _turn_to(self, state: BreakerState) -> None:
        logger.info("circuit %s is %s", self.name, state)
        self._state = state
        self._turn += 1
        self._probing = self._probed = 0
        self._failed.clear()


class Permit:
    """The right to make one call; leaving it tells the breaker how the call went."""

    __slots__ = ("_breaker", "_turn")

    def __init__(self, breaker: CircuitBreaker, turn: int) -> None:
        self._breaker = breaker
        self._turn = turn

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._breaker._done(self._turn, error)
