"""Paired runs in one figure: the median ratio and an interval that needs no assumption.

Each pair is two runs beside each other in time, so that the machine's moods fall on both. The
interval is between two of the ordered ratios: the true median lies outside with a probability that
follows from coin tosses alone, whatever the distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

__all__ = ("Interval", "median_interval", "ratios")


@dataclass(frozen=True, slots=True)
class Interval:
    """A median, and where the true one lies with a probability of `coverage`."""

    median: float
    low: float
    high: float
    coverage: float
    count: int


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The narrowest interval between two ordered values that has the confidence.

    With fewer than six values none has 95 %: then it is from the lowest to the highest, and
    `coverage` says what that is worth (five values: 94 %). Raises ValueError for no values.
    """
    ordered = sorted(values)
    count = len(ordered)
    if not count:
        raise ValueError("no values: nothing to take a median of")
    chosen, coverage = 0, _coverage(count, 0)
    while 2 * (chosen + 1) < count - 1 and _coverage(count, chosen + 1) >= confidence:
        chosen += 1
        coverage = _coverage(count, chosen)
    return Interval(median(ordered), ordered[chosen], ordered[count - 1 - chosen], coverage, count)


def _coverage(count: int, cut: int) -> float:
    """Probability that the median lies between the ordered values when `cut` are left off at
    each end: not as many as count - cut of `count` coins show the same side."""
    outside = sum(comb(count, heads) for heads in range(cut + 1)) / 2.0**count
    return max(0.0, 1.0 - 2.0 * outside)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Run by run; raises ValueError when the runs are not pairs or one of theirs is zero."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} runs beside {len(theirs)}: not pairs")
    if not all(theirs):
        raise ValueError("a run of the other side has measured nothing")
    return [one / other for one, other in zip(ours, theirs, strict=True)]
