"""Deadlines of many calls with one timer: coarse buckets, cheap to enter and to leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvstore.api.http2 import limits

__all__ = ("Bucket", "Deadlines", "Expiring")


class Expiring(Protocol):
    """Something that has a deadline."""

    def expire(self) -> None:
        """The deadline has passed."""


Bucket = dict[int, Expiring]
"""Calls whose deadlines fall into the same step of time, by identity."""


class Deadlines:
    """Expires calls up to a step late, never early. `schedule(delay, function)` is a timer."""

    def __init__(
        self,
        clock: Callable[[], float],
        schedule: Callable[[float, Callable[[], None]], object],
        step_s: float = limits.DEADLINE_STEP_S,
    ) -> None:
        self._clock = clock
        self._schedule = schedule
        self._step_s = step_s
        self._buckets: dict[int, Bucket] = {}
        self._timing = False

    def add(self, call: Expiring, seconds: float) -> Bucket:
        """Enters a call that has this many seconds left; returns where `remove` finds it."""
        number = int((self._clock() + seconds) / self._step_s) + 1
        bucket = self._buckets.setdefault(number, {})
        bucket[id(call)] = call
        if not self._timing:
            self._timing = True
            self._schedule(self._step_s, self._tick)
        return bucket

    @staticmethod
    def remove(call: Expiring, bucket: Bucket) -> None:
        """The call has ended before its deadline."""
        bucket.pop(id(call), None)

    def _tick(self) -> None:
        now = int(self._clock() / self._step_s)
        for number in [number for number in self._buckets if number <= now]:
            for call in list(self._buckets.pop(number).values()):
                call.expire()
        for number in [number for number, bucket in self._buckets.items() if not bucket]:
            del self._buckets[number]
        self._timing = bool(self._buckets)
        if self._timing:
            self._schedule(self._step_s, self._tick)
