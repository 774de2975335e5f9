"""What a row of findings adds up to: thresholds, pauses, several checks of one instance. Pure.

A check begins undecided. `healthy_after` findings in a row that are not critical make it pass,
`unhealthy_after` critical ones make it fail. A program that never passed is *starting*, however
often it was asked: starting up takes as long as it takes, and nobody is sent there meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from kvstore.checks import limits
from kvstore.checks.spec import Check

__all__ = ("Finding", "Standing", "Tally", "Verdict", "pause_s", "shortened", "worst")


class Verdict(Enum):
    """What one probe found, in the words of Consul."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


class Standing(Enum):
    """What the findings mean for the instance: the names of the registry's statuses."""

    STARTING = "STARTING"
    UP = "UP"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"


_GRAVITY: Final = {
    Standing.UP: 0,
    Standing.DEGRADED: 1,
    Standing.STARTING: 2,
    Standing.DOWN: 3,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one probe."""

    verdict: Verdict
    summary: str
    """One line, such as `HTTP 200` or `connection refused`."""
    output: str = ""
    """The beginning of what was answered."""

    @property
    def good(self) -> bool:
        """It counts towards passing."""
        return self.verdict is not Verdict.CRITICAL


@dataclass(frozen=True, slots=True)
class Tally:
    """Where a check stands; a value, replaced by each finding."""

    standing: Standing = Standing.STARTING
    in_row: int = 0
    """Findings of the same side (good or critical) since the last of the other."""
    good: bool = False
    """The side of the last finding."""

    def after(self, check: Check, finding: Finding) -> Tally:
        """With one more finding."""
        in_row = self.in_row + 1 if finding.good is self.good else 1
        standing = self.standing
        if not finding.good:
            if in_row >= check.unhealthy_after and standing is not Standing.STARTING:
                standing = Standing.DOWN
        elif in_row >= check.healthy_after or standing in (Standing.UP, Standing.DEGRADED):
            warns = finding.verdict is Verdict.WARNING
            standing = Standing.DEGRADED if warns else Standing.UP
        return Tally(standing, in_row, finding.good)


def pause_s(check: Check, tally: Tally, took_s: float, chance: float, *, eager: bool) -> float:
    """Until the next probe, after one that took `took_s`.

    `chance`, from 0 to 1, chooses the jitter. An eager one asks a program that is starting more
    often, so that it gets its requests soon.
    """
    interval_s = check.interval_s
    if eager and tally.standing is Standing.STARTING:
        interval_s = min(interval_s, limits.STARTING_INTERVAL_S)
    jittered_s = interval_s * (1 + limits.JITTER * (2 * chance - 1))
    return max(jittered_s - took_s, limits.PAUSE_MIN_S)


def worst(standings: Iterable[Standing]) -> Standing:
    """Of several checks of one instance the gravest counts; without a check it is UP."""
    return max(standings, key=_GRAVITY.__getitem__, default=Standing.UP)


def shortened(output: bytes) -> str:
    """What is kept of an output: the beginning, as text."""
    text = output[: limits.OUTPUT_BYTES_MAX].decode("utf-8", "replace")
    # A byte that is no UTF-8 becomes a character of three bytes.
    while len(text.encode()) > limits.OUTPUT_BYTES_MAX:
        text = text[: -max(1, (len(text.encode()) - limits.OUTPUT_BYTES_MAX) // 3)]
    return text
