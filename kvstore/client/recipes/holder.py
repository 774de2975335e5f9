"""What everything that is held on a lease has in common: token, guard, loss, giving up.

A holder takes its place with a lease, one of its own (granted on entering, revoked on leaving) or
one that the caller gave (then only its keys come and go). If anything fails on the way in, the
place is given up; if that fails too, the lease's end does it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from kvstore.client.errors import (
    KvError,
    LeaseLostError,
    LockCanceledError,
    LockTimeoutError,
    PreconditionError,
)
from kvstore.client.keys import Key, to_bytes
from kvstore.client.recipes.line import Claim, Contender, contenders, line_prefix, resign
from kvstore.client.recipes.steps import (
    Bell,
    Bounded,
    Grant,
    HeldLease,
    LeaseStop,
    Limits,
    Program,
    Revoke,
    deadline_of,
    within,
)
from kvstore.client.txn import Compare, CreateRevision

__all__ = ("Clock", "HolderRecipe")

logger = logging.getLogger("kvstore.client")

Clock = Callable[[], float]
"""Seconds; the client's clock."""


class HolderRecipe:
    """A place in the store that a lease keeps; subclasses say how it is taken."""

    kind = "place"
    """What messages call it."""

    def __init__(
        self,
        name: Key,
        clock: Clock,
        *,
        ttl: int,
        lease: HeldLease | None = None,
        identifier: Key = b"",
    ) -> None:
        self.name = to_bytes(name)
        self.identifier = to_bytes(identifier)
        self._clock = clock
        self._ttl_s = ttl
        self._given = lease
        self._lease: HeldLease | None = None
        self._claim: Claim | None = None
        self._entering = threading.Lock()
        self._canceled = Bell(
            lambda: LockCanceledError(f"{self._what}: cancel() was called while waiting")
        )

    # What is known without asking.

    @property
    def _what(self) -> str:
        return f"{self.kind} {self.name.decode(errors='backslashreplace')!r}"

    @property
    def claim(self) -> Claim:
        """The place; raises KvError when there is none."""
        if self._claim is None:
            raise KvError(f"{self._what} is not held by this object")
        return self._claim

    @property
    def lease(self) -> HeldLease:
        """The lease behind the place; raises KvError when there is no place."""
        assert self.claim is not None
        assert self._lease is not None
        return self._lease

    @property
    def lost(self) -> bool:
        """The lease behind the place ended; somebody else may own it now."""
        return self._claim is not None and self._lease is not None and self._lease.lost

    @property
    def held(self) -> bool:
        return self._claim is not None and not self.lost

    def guard(self) -> list[Compare]:
        """Conditions for transactions: we still hold the place."""
        return [CreateRevision(self.claim.key) == self.claim.token]

    def check(self) -> None:
        """Raises LeaseLostError if the lease has ended, KvError if nothing was held."""
        if self.lost:
            raise LeaseLostError(
                f"{self._what}: lease {self.lease.id:x} has ended, somebody else may hold it now"
            )
        assert self.claim is not None

    def cancel(self) -> None:
        """End a wait that is under way in another thread or task: it raises LockCanceledError."""
        self._canceled.ring()

    # Programs.

    def contenders(self) -> Program[tuple[Contender, ...]]:
        """Everyone who holds it or waits for it, in order of arrival."""
        return contenders(line_prefix(self.name))

    def enter(
        self, take: Callable[[int], Program[Claim | None]], timeout: float | None
    ) -> Program[bool]:
        """Take the place by `take(lease_id)`; False if that returned None.

        Raises LockTimeoutError after `timeout` seconds, LeaseLostError, LockCanceledError.
        """
        if not self._entering.acquire(blocking=False):
            raise PreconditionError(
                f"{self._what}: this object is acquiring already, in another thread or task; "
                "give each its own object"
            )
        try:
            if self.held:
                raise PreconditionError(
                    f"{self._what} is held by this object already (token {self.claim.token}) and "
                    "is not reentrant: release it first, or make another object"
                )
            self._claim = None
            self._canceled.reset()
            return (yield from self._enter(take, timeout))
        except LockTimeoutError as error:
            raise LockTimeoutError(
                f"{self._what} was not acquired within {timeout:g} s: {error.message}",
                outcome=error.outcome,
            ) from error
        finally:
            self._entering.release()

    def _enter(
        self, take: Callable[[int], Program[Claim | None]], timeout: float | None
    ) -> Program[bool]:
        limits = Limits(deadline_of(self._clock(), timeout), (self._canceled,))
        lease: HeldLease = self._given or (yield Bounded(Grant(self._ttl_s), limits))
        if lease.id == 0:
            raise ValueError(f"{self._what}: the lease is not granted yet; await it first")
        self._lease = lease
        limits = replace(limits, stops=(LeaseStop(lease), *limits.stops))
        try:
            self._claim = yield from within(take(lease.id), limits)
        except GeneratorExit:
            raise
        except BaseException:
            yield from self._give_up(lease)
            raise
        if self._claim is None:
            yield from self._give_up(lease)
        return self._claim is not None

    def abandon(self, lease_id: int) -> Program[None]:
        """Delete what a failed `enter` may have left, where the lease is not ours to end."""
        raise AssertionError(f"{type(self).__name__} says how")
        yield

    def _give_up(self, lease: HeldLease) -> Program[None]:
        try:
            if self._given is None:
                yield Revoke(lease)
            else:
                yield from self.abandon(lease.id)
        except KvError as error:
            # The lease of our own is renewed no longer; a given one may still hold the place.
            logger.warning("%s: could not leave the line: %s", self._what, error)

    def end_lease(self) -> Program[None]:
        """End a lease of our own whose keys are gone already; a failure matters to nobody."""
        if self._given is None and self._lease is not None:
            try:
                yield Revoke(self._lease)
            except KvError as error:
                logger.warning("%s: could not revoke the lease: %s", self._what, error)

    def leave(self) -> Program[None]:
        """Give the place back; no effect if there is none."""
        claim, self._claim = self._claim, None
        if claim is None:
            return
        assert self._lease is not None
        if self._given is None:
            yield Revoke(self._lease)
        else:
            yield from resign(claim)
