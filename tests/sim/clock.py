"""A machine's two clocks: one that only moves forward, at a rate of its own, and the wall's.

The monotonic clock runs at 90 to 110 % of true time and stands still while the machine is
suspended; it never goes back. The wall clock follows it and is set at will.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from tests.sim.world import SECOND

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ("Clock",)

_EPOCH_S: Final = 1_700_000_000


class Clock:
    """The clocks of one machine."""

    def __init__(self, world: World, *, rate_percent: int = 100, uptime_s: float = 100.0) -> None:
        self._world = world
        self._rate = rate_percent / 100
        self._base_ns = world.now_ns
        self._base_s = uptime_s
        self._frozen = False
        self.wall_offset_s = 0.0
        """What somebody set the wall clock forward by."""

    @property
    def rate(self) -> float:
        """Seconds of this clock per second of true time, when it runs."""
        return self._rate

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        if self._frozen:
            return self._base_s
        return self._base_s + (self._world.now_ns - self._base_ns) * self._rate / SECOND

    def wall_s(self) -> float:
        """Seconds since 1970 as this machine has it."""
        return _EPOCH_S + self._world.now_ns / SECOND + self.wall_offset_s

    def true_ns(self, when: float) -> int:
        """The true time at which the clock will show this, should nothing happen to it."""
        left_ns = (when - self._base_s) * SECOND / self._rate
        return self._base_ns + math.ceil(left_ns)

    def set_rate(self, percent: int) -> None:
        """Goes on at another speed."""
        self._rebase()
        self._rate = percent / 100

    def freeze(self) -> None:
        """The machine is suspended: its clock stands still."""
        self._rebase()
        self._frozen = True

    def thaw_if_frozen(self) -> None:
        """The machine goes on; the time between has not happened for its clock."""
        if self._frozen:
            self._base_ns = self._world.now_ns
            self._frozen = False

    def reboot(self) -> None:
        """The machine has started anew: the monotonic clock begins from nothing."""
        self._base_ns = self._world.now_ns
        self._base_s = 1.0
        self._frozen = False

    def _rebase(self) -> None:
        self._base_s = self.now()
        self._base_ns = self._world.now_ns
