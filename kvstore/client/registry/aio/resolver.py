"""A resolver for asyncio: one task reads the registry, picks and calls never wait for it."""

# ruff: noqa: ASYNC109 - a timeout argument is the shape that both clients share

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Generator
from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from kvstore.client.aio.signal import Signal
from kvstore.client.errors import DeadlineError, KvError
from kvstore.client.registry.aio.reader import AsyncReader
from kvstore.client.registry.answers import Update
from kvstore.client.registry.breaker import CircuitBreaker
from kvstore.client.registry.deadlines import deadline
from kvstore.client.registry.limits import READY_TIMEOUT_S
from kvstore.client.registry.resolving import CallPlan, ResolverBase, Toolbox
from kvstore.client.registry.retries import RetryPolicy
from kvstore.client.registry.stream import Cursor
from kvstore.client.registry.values import Instance, Selection

if TYPE_CHECKING:
    from kvstore.client.aio.client import AsyncClient

__all__ = ("AsyncResolver",)

T = TypeVar("T")


class AsyncResolver(ResolverBase):
    """The instances of one service, always at hand; runs until `close` (or the client's).

    What the registry tells is applied at once and acknowledged, so that an instance that leaves
    can wait until nobody picks it any more. When the cluster is away the answers stay as they
    were, marked `stale`. Begins when it is entered, awaited, or first waited for.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        namespace: str,
        service: str,
        selection: Selection,
        subscriber: str,
        tools: Toolbox,
    ) -> None:
        super().__init__(namespace, service, selection, tools)
        self._client = client
        self._changed = Signal()
        self._closed = False
        cursor = Cursor(
            namespace=namespace, service=service, selection=selection, subscriber=subscriber
        )
        self._reader = AsyncReader(client, cursor, self)

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def wait_ready(self, timeout: float | None = None) -> Self:
        """Return once the registry has answered. Raises DeadlineError, with the reason."""
        self._begin()
        await self._changed.wait_for(lambda: self.ready or self._closed, timeout)
        if not self.ready:
            raise DeadlineError(self._nobody(self.view)) from self._last_error
        return self

    async def call(
        self,
        work: Callable[[Instance], Awaitable[T]],
        *,
        key: str = "",
        idempotent: bool = False,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        breaker: CircuitBreaker | None = None,
    ) -> T:
        """`work(instance)` for an instance of the service, and for another one if that fails.

        Repeated, as `retry` says (default: the resolver's), is a call that was surely not sent (no
        connection), or any that an instance failed at if it is `idempotent`. Errors that are the
        caller's own are raised at once. Equal `key`s go to the same instance if the balancer is a
        ConsistentHash. `timeout` bounds the whole, pauses included; what is over is canceled, with
        a TimeoutError. `work` finds what is left of the time by `timeout_s()`.
        """
        with nullcontext() if breaker is None else breaker.permit():
            plan = self._plan(key, retry, timeout, idempotent)
            if not self.ready:
                await self.wait_ready(min(plan.ends - self._tools.clock(), READY_TIMEOUT_S))
            while True:
                try:
                    return await self._attempt(plan, work)
                except Exception as error:
                    pause = plan.pause_s(error)
                    if pause is None:
                        raise
                await asyncio.sleep(pause)

    async def _attempt(self, plan: CallPlan, work: Callable[[Instance], Awaitable[T]]) -> T:
        attempt = plan.begin()
        clock = self._tools.clock
        left = None if math.isinf(attempt.ends) else attempt.ends - clock()
        try:
            with deadline(left, clock=clock):
                async with asyncio.timeout(left):
                    result = await work(attempt.instance)
        except BaseException as error:
            plan.done(attempt, error)
            raise
        plan.done(attempt)
        return result

    async def close(self) -> None:
        """Read no more; what is known stays, and goes stale. May be called more than once."""
        self._stop()
        await self._reader.join()

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _begin(self) -> None:
        if not self._reader.started and not self._closed:
            self._client._check_usable()
            self._client.registry._add(self)
            self._reader.start()

    def _stop(self) -> None:
        self._closed = True
        self._reader.stop()
        self._view = self._view.as_stale()
        self._changed.fire()
        self._client.registry._forget(self)

    # What the reader calls.

    async def apply(self, update: Update) -> None:
        self._take(update)
        self._changed.fire()

    def lost(self, error: KvError, refused: bool) -> bool:
        # Even after a refusal: the namespace may be made, the permission given.
        self._cut_off(error)
        return True
