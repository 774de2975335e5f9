"""What the resolvers of both clients share: the cache, the picks, and the course of one call."""

from __future__ import annotations

import logging
import os
import random as random_module
import socket
import threading
import time
import uuid
from collections.abc import Callable, Container
from typing import NamedTuple

from kvstore.client.errors import KvError
from kvstore.client.registry.answers import Update
from kvstore.client.registry.balancers import Balancer, RoundRobin
from kvstore.client.registry.deadlines import deadline_at
from kvstore.client.registry.errors import NoInstanceError
from kvstore.client.registry.failures import Failure, judge
from kvstore.client.registry.outliers import Outliers
from kvstore.client.registry.retries import RetryBudget, RetryPolicy
from kvstore.client.registry.values import Instance, Selection
from kvstore.client.registry.view import EMPTY, Change, View, updated

__all__ = ("Attempt", "CallPlan", "ResolverBase", "Toolbox", "subscriber_name")

logger = logging.getLogger("kvstore.client")


def subscriber_name() -> str:
    """An id for one that watches and acknowledges: people find the program by it."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Toolbox(NamedTuple):
    """What a resolver works with; each part may be replaced."""

    balancer: Balancer
    outliers: Outliers
    retry: RetryPolicy
    budget: RetryBudget
    judge: Callable[[BaseException], Failure]
    random: Callable[[], float]
    clock: Callable[[], float]

    @classmethod
    def make(
        cls,
        *,
        balancer: Balancer | None = None,
        outliers: Outliers | None = None,
        retry: RetryPolicy | None = None,
        budget: RetryBudget | None = None,
        judge: Callable[[BaseException], Failure] = judge,
        random: Callable[[], float] = random_module.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> Toolbox:
        """With the usual part for each that is not given."""
        return cls(
            RoundRobin(random) if balancer is None else balancer,
            Outliers(clock=clock) if outliers is None else outliers,
            RetryPolicy() if retry is None else retry,
            RetryBudget(clock=clock) if budget is None else budget,
            judge,
            random,
            clock,
        )


class ResolverBase:
    """The instances of one service, and who of them gets the next request. Safe in threads."""

    def __init__(self, namespace: str, service: str, selection: Selection, tools: Toolbox) -> None:
        self.namespace = namespace
        self.service = service
        self._selection = selection
        self._tools = tools
        self._view = EMPTY
        self._last_error: KvError | None = None
        self._callbacks: list[Callable[[Change], None]] = []
        self._picking = threading.Lock()

    # What is known.

    @property
    def view(self) -> View:
        """Everything that is known, of one moment."""
        return self._view

    @property
    def ready(self) -> bool:
        """The registry has answered at least once."""
        return self._view.ready

    @property
    def stale(self) -> bool:
        """The cluster cannot be asked now: the answers are what was known last."""
        return self._view.stale

    @property
    def last_error(self) -> KvError | None:
        """Why the last stream from the registry ended; None while one runs."""
        return self._last_error

    def instances(self) -> tuple[Instance, ...]:
        """The instances, from memory; look at `stale` if their age matters."""
        return self._view.instances

    def on_change(self, callback: Callable[[Change], None]) -> None:
        """Call `callback` at each change from now on, before it is acknowledged: briefly."""
        self._callbacks.append(callback)

    # Picks.

    def pick(self, *, key: str = "", avoid: Container[str] = ()) -> Instance:
        """The instance for the next request, from memory. Raises NoInstanceError.

        Instances that are draining, down or gone are never picked; those that fail again and again
        are left out as long as there are others; those in `avoid` (ids) likewise.
        """
        view = self._view
        candidates = view.candidates
        ejected = self._tools.outliers.ejected()
        with self._picking:
            balancer = self._tools.balancer
            chosen = None
            if ejected or avoid:
                unwanted = [
                    each.id for each in candidates if each.id in ejected or each.id in avoid
                ]
                chosen = balancer.pick(candidates, key=key, avoid=frozenset(unwanted))
                if chosen is None and ejected and avoid:
                    chosen = balancer.pick(candidates, key=key, avoid=avoid)
            if chosen is None:
                chosen = balancer.pick(candidates, key=key)
        if chosen is None:
            raise NoInstanceError(self._nobody(view))
        return chosen

    def began(self, instance: Instance) -> None:
        """A request that `call` does not see begins: some balancers count those under way."""
        with self._picking:
            self._tools.balancer.began(instance.id)

    def ended(self, instance: Instance, error: BaseException | None = None) -> None:
        """It has ended so; an instance that fails again and again is left out for a while."""
        with self._picking:
            self._tools.balancer.ended(instance.id)
        if error is None or self._tools.judge(error) is Failure.CALLER:
            self._tools.outliers.succeeded(instance.id)
        elif isinstance(error, Exception) and self._tools.outliers.failed(instance.id):
            logger.warning("%s is left out for a while: %s", instance.name, error)

    def _nobody(self, view: View) -> str:
        service = f"{self.namespace}/{self.service}"
        if not view.ready:
            why = "the registry has not answered yet"
            return f"{service}: {why}" + (f" ({self._last_error})" if self._last_error else "")
        if not view.instances:
            return f"{service} has no healthy instance"
        return f"none of the {len(view.instances)} instances of {service} may get requests"

    # What the reader tells.

    def _take(self, update: Update) -> Change:
        """Apply an update; whatever is picked from now on is picked from it."""
        if self._last_error is not None:
            logger.info("instances of %s/%s are fresh again", self.namespace, self.service)
        self._last_error = None
        change = updated(self._view, update, self._selection)
        if change or not self._view.ready:
            self._tools.outliers.members(each.id for each in change.view.instances)
        self._view = change.view
        if change:
            for callback in list(self._callbacks):
                try:
                    callback(change)
                except Exception:
                    logger.exception("an on_change callback of %s failed", self.service)
        return change

    def _cut_off(self, error: KvError) -> None:
        """The stream has ended; until there is another one, what is known may be old."""
        if self._last_error is None:
            logger.warning("instances of %s/%s may be old: %s", self.namespace, self.service, error)
        self._last_error = error
        self._view = self._view.as_stale()

    def _plan(
        self, key: str, retry: RetryPolicy | None, timeout: float | None, idempotent: bool
    ) -> CallPlan:
        ends = deadline_at(timeout, clock=self._tools.clock)
        self._tools.budget.called()
        return CallPlan(self, key, retry or self._tools.retry, ends, idempotent)


class Attempt(NamedTuple):
    """One try at one instance."""

    instance: Instance
    ends: float
    """It is over at this moment; infinite: whenever it is."""


class CallPlan:
    """The course of one call: whom to ask, and what to do when it fails. Does not wait itself."""

    __slots__ = ("_ends", "_failures", "_idempotent", "_key", "_resolver", "_retry", "_tried")

    def __init__(
        self,
        resolver: ResolverBase,
        key: str,
        retry: RetryPolicy,
        ends: float,
        idempotent: bool,
    ) -> None:
        self._resolver = resolver
        self._key = key
        self._retry = retry
        self._ends = ends
        self._idempotent = idempotent
        self._failures = 0
        self._tried: set[str] = set()

    @property
    def ends(self) -> float:
        """When the whole call is over."""
        return self._ends

    def begin(self) -> Attempt:
        """The next try, at an instance that was not tried yet, if there is one.

        Raises NoInstanceError.
        """
        instance = self._resolver.pick(key=self._key, avoid=self._tried)
        self._tried.add(instance.id)
        self._resolver.began(instance)
        ends = self._ends
        if self._retry.attempt_s is not None:
            ends = min(ends, self._resolver._tools.clock() + self._retry.attempt_s)
        return Attempt(instance, ends)

    def done(self, attempt: Attempt, error: BaseException | None = None) -> None:
        """The try has ended so."""
        self._resolver.ended(attempt.instance, error)

    def pause_s(self, error: Exception) -> float | None:
        """How long to wait before the next try; None: there is none, raise `error`."""
        tools = self._resolver._tools
        self._failures += 1
        if self._failures >= self._retry.attempts:
            return None
        failure = tools.judge(error)
        if failure is Failure.CALLER or (failure is Failure.INSTANCE and not self._idempotent):
            return None
        pause = self._retry.pause_s(self._failures, tools.random)
        if tools.clock() + pause >= self._ends or not tools.budget.spend():
            return None
        return pause
