"""Leaves out instances that keep failing, for a while that grows each time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ("OutlierPolicy", "Outliers")


@dataclass(frozen=True, slots=True)
class OutlierPolicy:
    """When an instance is left out."""

    consecutive_failures: int = 5
    ejection_s: float = 10.0
    """The first time; twice that the second time, and so on. Each such time spent well afterwards
    takes one off again."""
    ejection_max_s: float = 300.0
    max_ejected_percent: int = 50
    """Never more than this part of all instances at once: if everything fails, the instances are
    not the cause, and the few that were left would be overrun."""


@dataclass(slots=True)
class _Record:
    failures: int = 0
    """In a row."""
    times: int = 0
    """How often it was left out, less the good times since."""
    until: float = 0.0


class Outliers:
    """What this program has seen of the instances of one service; safe in threads."""

    def __init__(
        self,
        policy: OutlierPolicy = OutlierPolicy(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._records: dict[str, _Record] = {}
        self._last_until = 0.0
        self._lock = threading.Lock()

    def members(self, ids: Iterable[str]) -> None:
        """These are the instances now; what was seen of others is forgotten."""
        with self._lock:
            self._records = {id: self._records.get(id) or _Record() for id in ids}

    def succeeded(self, id: str) -> None:
        """A call to this instance went well."""
        record = self._records.get(id)
        if record is not None and (record.failures or record.times):
            with self._lock:
                record.failures = 0
                well_s = self._clock() - record.until
                if record.times and well_s >= self._policy.ejection_s:
                    good = int(well_s / self._policy.ejection_s)
                    record.times = max(record.times - good, 0)
                    record.until += good * self._policy.ejection_s

    def failed(self, id: str) -> bool:
        """A call failed by this instance's fault; True: it is left out from now on."""
        with self._lock:
            record = self._records.get(id)
            if record is None:
                return False
            record.failures += 1
            now = self._clock()
            if record.failures < self._policy.consecutive_failures or now < record.until:
                return False
            out = sum(each.until > now for each in self._records.values())
            if (out + 1) * 100 > self._policy.max_ejected_percent * len(self._records):
                return False
            record.times += 1
            record.failures = 0
            pause = min(self._policy.ejection_s * record.times, self._policy.ejection_max_s)
            record.until = now + pause
            self._last_until = max(self._last_until, record.until)
            return True

    def ejected(self) -> frozenset[str]:
        """The instances that are left out now."""
        now = self._clock()
        if now >= self._last_until:  # as nearly always: nobody is
            return frozenset()
        records = self._records
        return frozenset(id for id, record in records.items() if record.until > now)
