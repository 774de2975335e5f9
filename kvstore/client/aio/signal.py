"""Lets tasks of one loop wait until a condition that other tasks change has become true."""

# ruff: noqa: ASYNC109 - a timeout argument is the shape that both clients share

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ("Signal",)


class Signal:
    """A condition variable without a lock: a loop runs one task at a time anyway."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def fire(self) -> None:
        """Something changed: every waiter looks at its condition again."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_for(self, condition: Callable[[], object], timeout: float | None = None) -> bool:
        """Return True once `condition()` holds, False when `timeout` seconds passed before."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
        except TimeoutError:
            return bool(condition())
        return True
