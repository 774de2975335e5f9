"""A resolver for threads: one thread reads the registry, picks and calls never wait for it."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from kvstore.client.errors import DeadlineError, KvError
from kvstore.client.registry.answers import Update
from kvstore.client.registry.blocking.reader import Reader
from kvstore.client.registry.breaker import CircuitBreaker
from kvstore.client.registry.deadlines import deadline
from kvstore.client.registry.limits import READY_TIMEOUT_S
from kvstore.client.registry.resolving import CallPlan, ResolverBase, Toolbox
from kvstore.client.registry.retries import RetryPolicy
from kvstore.client.registry.stream import Cursor
from kvstore.client.registry.values import Instance, Selection

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = ("Resolver",)

T = TypeVar("T")


class Resolver(ResolverBase):
    """The instances of one service, always at hand; runs until `close` (or the client's).

    What the registry tells is applied at once and acknowledged, so that an instance that leaves
    can wait until nobody picks it any more. When the cluster is away the answers stay as they
    were, marked `stale`.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        service: str,
        selection: Selection,
        subscriber: str,
        tools: Toolbox,
    ) -> None:
        super().__init__(namespace, service, selection, tools)
        self._client = client
        self._changed = threading.Condition()
        self._closed = threading.Event()
        cursor = Cursor(
            namespace=namespace, service=service, selection=selection, subscriber=subscriber
        )
        self._reader = Reader(client, cursor, self)
        client.registry._add(self)
        self._reader.start()

    def wait_ready(self, timeout: float | None = None) -> Self:
        """Return once the registry has answered. Raises DeadlineError, with the reason."""
        with self._changed:
            self._changed.wait_for(lambda: self.ready or self._closed.is_set(), timeout)
        if not self.ready:
            raise DeadlineError(self._nobody(self.view)) from self._last_error
        return self

    def call(
        self,
        work: Callable[[Instance], T],
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
        ConsistentHash. `timeout` bounds the whole, pauses included; `work` finds what is left of
        it by `timeout_s()`, and must use it: a thread cannot be interrupted.
        """
        with nullcontext() if breaker is None else breaker.permit():
            plan = self._plan(key, retry, timeout, idempotent)
            if not self.ready:
                self.wait_ready(min(plan.ends - self._tools.clock(), READY_TIMEOUT_S))
            while True:
                try:
                    return self._attempt(plan, work)
                except Exception as error:
                    pause = plan.pause_s(error)
                    if pause is None:
                        raise
                self._closed.wait(pause)

    def _attempt(self, plan: CallPlan, work: Callable[[Instance], T]) -> T:
        attempt = plan.begin()
        clock = self._tools.clock
        left = None if math.isinf(attempt.ends) else attempt.ends - clock()
        try:
            with deadline(left, clock=clock):
                result = work(attempt.instance)
        except BaseException as error:
            plan.done(attempt, error)
            raise
        plan.done(attempt)
        return result

    def close(self) -> None:
        """Read no more; what is known stays, and goes stale. May be called more than once."""
        self._stop()

    def _stop(self) -> None:
        if sys.is_finalizing():
            return  # the reader thread is dead, perhaps with a lock in its hands
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        self._reader.stop()
        self._view = self._view.as_stale()
        self._client.registry._forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # What the reader calls.

    def apply(self, update: Update) -> None:
        self._take(update)
        with self._changed:
            self._changed.notify_all()

    def lost(self, error: KvError, refused: bool) -> bool:
        # Even after a refusal: the namespace may be made, the permission given.
        self._cut_off(error)
        return True
