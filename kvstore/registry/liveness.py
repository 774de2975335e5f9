"""Who sends heartbeats and who fell silent: the leader's table of deadlines. Pure.

Each instance has two deadlines, counted from its last heartbeat: after its TTL it is silent,
after TTL and grace it is overdue (to be removed). A heartbeat only changes one number; the
records in the heap are early then, and are put back when they surface.

What is called a lease here is the id of the lease that the instance stands on.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kvstore.registry.limits import CONFIRMED_PAUSE_S, REMOVAL_RETRY_S

__all__ = ("Due", "Liveness", "Tracked")

_HEAP_SLACK = 1_024
"""Outdated records that the heap may hold before it is rebuilt."""


class Tracked(NamedTuple):
    """An instance to watch over."""

    lease: int
    ttl_s: float
    grace_s: float
    silent: bool
    """It was found silent already, by this leader or one before."""


class Due(NamedTuple):
    """What has come due."""

    silent: list[int]
    """No heartbeat for the TTL: told once, until a heartbeat comes."""
    overdue: list[int]
    """The grace is over, too: told again after REMOVAL_RETRY_S while it is still tracked."""


class _Pulse:
    """What is known of one lease."""

    __slots__ = ("at", "grace_s", "held", "last", "lease", "remove_at", "silent", "ttl_s")

    def __init__(self, tracked: Tracked, now: float) -> None:
        self.lease = tracked.lease
        self.ttl_s = tracked.ttl_s
        self.grace_s = tracked.grace_s
        self.silent = tracked.silent
        self.held = False
        self.last = now
        self.remove_at = now + tracked.ttl_s + tracked.grace_s
        """Only of meaning while it is silent."""
        self.at = 0.0
        """When its valid record in the heap surfaces; 0: it has none."""

    def deadline(self, margin_s: float) -> float:
        return self.remove_at if self.silent else self.last + self.ttl_s + margin_s


class Liveness:
    """The deadlines of all tracked leases; times are seconds of the leader's clock."""

    def __init__(self, margin_s: float = 0.0) -> None:
        """`margin_s`: what a heartbeat that came in time may take until it is told here."""
        self._margin_s = margin_s
        self._pulses: dict[int, _Pulse] = {}
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._pulses)

    def __contains__(self, lease: int) -> bool:
        return lease in self._pulses

    def promote(self, leases: Iterable[Tracked], now: float) -> None:
        """This member leads: everybody gets the whole TTL, who is silent the whole TTL and grace.

        Nobody knows when the leader before last heard of whom.
        """
        self.demote()
        for tracked in leases:
            self._pulses[tracked.lease] = _Pulse(tracked, now)
        self._rebuild()

    def demote(self) -> None:
        """This member leads no more."""
        self._pulses.clear()
        self._heap.clear()

    def track(self, tracked: Tracked, now: float) -> None:
        """Watches over an instance from now on; of one that is known, takes over TTL and grace."""
        pulse = self._pulses.get(tracked.lease)
        if pulse is None:
            pulse = self._pulses[tracked.lease] = _Pulse(tracked, now)
        elif (pulse.ttl_s, pulse.grace_s) == (tracked.ttl_s, tracked.grace_s):
            return
        else:
            if pulse.silent:
                pulse.remove_at += tracked.ttl_s + tracked.grace_s - pulse.ttl_s - pulse.grace_s
            pulse.ttl_s, pulse.grace_s = tracked.ttl_s, tracked.grace_s
        self._push(pulse, pulse.deadline(self._margin_s))

    def forget(self, lease: int) -> None:
        """The instance is gone."""
        self._pulses.pop(lease, None)

    def is_silent(self, lease: int) -> bool:
        """Whether a tracked lease has missed its deadline."""
        pulse = self._pulses.get(lease)
        return pulse is not None and pulse.silent

    def renewed(self, leases: Sequence[int], now: float) -> list[int]:
        """Heartbeats came in; returns those that had been silent. Unknown leases do not matter."""
        recovered: list[int] = []
        known = self._pulses.get
        for lease in leases:
            pulse = known(lease)
            if pulse is None:
                continue
            pulse.last = now
            if pulse.silent:
                pulse.silent = pulse.held = False
                recovered.append(lease)
                self._push(pulse, pulse.deadline(self._margin_s))
        return recovered

    def hold(self, leases: Iterable[int]) -> None:
        """Silent leases that are not to be overdue for now."""
        for lease in leases:
            pulse = self._pulses.get(lease)
            if pulse is not None and pulse.silent:
                pulse.held = True

    def let_go(self, leases: Iterable[int], now: float, *, gone: bool) -> None:
        """Ends the hold: they have their grace time from now on, at least.

        Those that are really `gone` are overdue as soon as it is told that they are DOWN.
        """
        for lease in leases:
            pulse = self._pulses.get(lease)
            if pulse is not None and pulse.held:
                pulse.held = False
                if gone:
                    pulse.remove_at = now + CONFIRMED_PAUSE_S
                else:
                    pulse.remove_at = max(pulse.remove_at, now + pulse.grace_s)
                self._push(pulse, pulse.remove_at)

    def has_due(self, now: float) -> bool:
        """Whether there are records to look at."""
        return bool(self._heap) and self._heap[0][0] <= now

    def due(self, now: float, at_most: int) -> Due:
        """What has come due; looks at `at_most` records and leaves the rest for the next time."""
        silent: list[int] = []
        overdue: list[int] = []
        heap, pulses = self._heap, self._pulses
        while heap and heap[0][0] <= now and at_most > 0:
            at_most -= 1
            at, lease = heapq.heappop(heap)
            pulse = pulses.get(lease)
            if pulse is None or pulse.at != at:
                continue
            pulse.at = 0.0
            if pulse.deadline(self._margin_s) > now:
                self._push(pulse, pulse.deadline(self._margin_s))
            elif not pulse.silent:
                pulse.silent = True
                pulse.remove_at = pulse.last + pulse.ttl_s + pulse.grace_s
                silent.append(lease)
                self._push(pulse, pulse.remove_at)
            elif not pulse.held:
                overdue.append(lease)
                pulse.remove_at = now + REMOVAL_RETRY_S
                self._push(pulse, pulse.remove_at)
            # One that is held gets its record back with `let_go`, or with a heartbeat.
        return Due(silent, overdue)

    def _push(self, pulse: _Pulse, at: float) -> None:
        if pulse.at == at:
            return
        pulse.at = at
        heapq.heappush(self._heap, (at, pulse.lease))
        if len(self._heap) > 2 * len(self._pulses) + _HEAP_SLACK:
            self._rebuild()

    def _rebuild(self) -> None:
        for pulse in self._pulses.values():
            pulse.at = pulse.deadline(self._margin_s)
        self._heap = [(pulse.at, pulse.lease) for pulse in self._pulses.values()]
        heapq.heapify(self._heap)
