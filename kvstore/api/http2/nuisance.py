"""Counts frames that cost us work and bring nothing, and ends connections that live on them."""

from __future__ import annotations

from collections.abc import Callable

from kvstore.api.http2 import limits
from kvstore.api.http2.errors import ErrorCode, Http2Error

__all__ = ("Nuisances",)


class Nuisances:
    """One connection's counts. The clock is read only when a count is high."""

    __slots__ = (
        "_clock",
        "_frames",
        "_frames_progress",
        "_frames_since",
        "_resets",
        "_resets_opened",
        "_resets_since",
    )

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._frames = self._frames_progress = 0
        self._resets = self._resets_opened = 0
        self._frames_since = self._resets_since = clock()

    def frame(self, progress: int, weight: int = 1) -> None:
        """A ping, a setting, an empty frame, …; `progress` counts streams begun and DATA sent.

        `weight`: as how many of them this one counts. Raises Http2Error when there were too many.
        """
        self._frames += weight
        if self._frames <= limits.NUISANCES + progress - self._frames_progress:
            return
        now = self._clock()
        if now - self._frames_since < limits.NUISANCE_PERIOD_S:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many pings or empty frames")
        self._frames, self._frames_since, self._frames_progress = 0, now, progress

    def reset(self, opened: int) -> None:
        """The client has reset a stream, one of `opened`. Raises Http2Error."""
        self._resets += 1
        ended_well = opened - self._resets_opened - self._resets
        if self._resets <= limits.RESETS + max(ended_well, 0):
            return
        now = self._clock()
        if now - self._resets_since < limits.NUISANCE_PERIOD_S:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many streams reset")
        self._resets, self._resets_since, self._resets_opened = 0, now, opened
