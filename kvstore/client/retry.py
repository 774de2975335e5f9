"""When a failed call is tried again, where, and after which pause. Pure: time is passed in.

The rules (those of etcd's Go client, which servers are built for):
* A read is repeated after Unavailable, at the next endpoint.
* A write is repeated only if it surely was not executed: no connection could be made, or the
  server refused it before proposing it.
* Moving to an endpoint not yet asked in this round costs no pause; each full round does, and the
  pauses double up to a bound.
* With several endpoints an attempt that may be repeated gets half of the time that is left, so
  that a member that hangs does not use up the whole deadline.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from kvstore import errors as catalogue
from kvstore.client.call import Effect
from kvstore.client.errors import (
    ConnectError,
    DeadlineError,
    KvError,
    NoLeaderError,
    Outcome,
    UnavailableError,
)
from kvstore.client.limits import (
    BACKOFF_FIRST_S,
    BACKOFF_JITTER,
    BACKOFF_MAX_S,
    UNARY_ATTEMPTS_MAX,
)

__all__ = ("Attempts", "backoff_s", "blames_endpoint")

_HALVING_MIN_S = 0.5
"""An attempt is not cut shorter than this for the sake of the next one."""

_REFUSED_UNDONE = frozenset(
    {
        catalogue.PROPOSAL_DROPPED.message,
        catalogue.NOT_SUPPORTED_FOR_LEARNER.message,
        catalogue.NOT_CAPABLE.message,
    }
)


def backoff_s(rounds: int, random: Callable[[], float], limit_s: float = BACKOFF_MAX_S) -> float:
    """Pause before round `rounds` + 1 (from 1 on), doubling up to `limit_s`, with jitter."""
    pause = min(BACKOFF_FIRST_S * 2.0 ** min(rounds - 1, 16), limit_s)
    return pause * (1 + BACKOFF_JITTER * (2 * random() - 1))


def blames_endpoint(error: KvError) -> bool:
    """True when another endpoint may do better than the one that gave this error."""
    return (
        isinstance(error, (UnavailableError, DeadlineError))
        or error.message in _REFUSED_UNDONE
        or (error.code == catalogue.Code.CANCELLED and error.message not in catalogue.CATALOGUE)
    )


class Attempts:
    """One call's way through the endpoints until it succeeds, fails for good, or time is up."""

    __slots__ = (
        "_deadline",
        "_effect",
        "_endpoints",
        "_failures",
        "_maybe_done",
        "_random",
        "_single",
    )

    def __init__(
        self,
        effect: Effect,
        deadline: float,
        endpoints: int,
        random: Callable[[], float],
        *,
        single: bool = False,
    ) -> None:
        """`deadline` may be infinite; `single` forbids repetition (a pinned endpoint)."""
        self._effect = effect
        self._deadline = deadline
        self._endpoints = endpoints
        self._random = random
        self._single = single
        self._failures = 0
        self._maybe_done = False

    def timeout_s(self, now: float) -> float | None:
        """Time for the next attempt; None = no bound."""
        left = self._deadline - now
        if math.isinf(left):
            return None
        halve = self._effect is not Effect.WRITE and self._endpoints > 1 and not self._single
        if halve and self._failures + 1 < UNARY_ATTEMPTS_MAX:
            return max(left / 2, min(left, _HALVING_MIN_S), 0.0)
        return max(left, 0.0)

    def failed(self, error: KvError, now: float) -> float | None:
        """Pause before the next attempt, or None: give up and raise `error`.

        What is unknown after one attempt stays unknown: the last error's outcome is corrected.
        """
        self._failures += 1
        self._maybe_done |= error.outcome is Outcome.UNKNOWN
        if not self._single and self._failures < UNARY_ATTEMPTS_MAX and self._repeats(error):
            pause = 0.0
            if self._failures % self._endpoints == 0:
                pause = backoff_s(self._failures // self._endpoints, self._random)
            if now + pause < self._deadline:
                return pause
        if self._maybe_done:
            error.mark_unknown()
        return None

    def _repeats(self, error: KvError) -> bool:
        if isinstance(error, (ConnectError, NoLeaderError)) or error.message in _REFUSED_UNDONE:
            return error.outcome is Outcome.NOT_APPLIED
        if self._effect is Effect.WRITE:
            return False
        return blames_endpoint(error)
