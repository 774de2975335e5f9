"""Deadlines that calls inside calls inherit: the time left is asked for where it is needed.

    with deadline(2.0):
        stub.Charge(request, timeout=timeout_s())    # gRPC passes it on to the server
        urlopen(url, timeout=timeout_s(at_most=0.5))

Held in a context variable, so it follows the thread, or the task and those it starts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from kvstore.client.errors import DeadlineError

__all__ = ("deadline", "deadline_at", "timeout_s")

_ends: ContextVar[float] = ContextVar("kvstore_deadline", default=math.inf)


@contextmanager
def deadline(
    seconds: float | None, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """What is inside has `seconds`, and not more than what is outside has left (None: as that)."""
    token = _ends.set(deadline_at(seconds, clock=clock))
    try:
        yield
    finally:
        _ends.reset(token)


def deadline_at(
    seconds: float | None = None, *, clock: Callable[[], float] = time.monotonic
) -> float:
    """The moment, on `clock`, at which `seconds` from now or the deadline here has passed."""
    ends = _ends.get()
    return ends if seconds is None else min(ends, clock() + seconds)


def timeout_s(
    at_most: float | None = None, *, clock: Callable[[], float] = time.monotonic
) -> float | None:
    """The seconds left, as the `timeout` of a call; None: there is no bound.

    Raises DeadlineError when nothing is left.
    """
    now = clock()
    left = _ends.get() - now
    if left <= 0:
        raise DeadlineError("the deadline has passed")
    if at_most is not None:
        return min(left, at_most)
    return None if math.isinf(left) else left
