"""Locks and elections for asyncio."""

# ruff: noqa: ASYNC109 - a timeout argument is the shape that both clients share

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvstore.client import operations, recipes
from kvstore.client.aio.lease import AsyncLease
from kvstore.client.base import deadline_of
from kvstore.client.call import Effect
from kvstore.client.errors import ElectionError, KvError, LeaseLostError, WatchCompacted
from kvstore.client.keys import Key, to_bytes
from kvstore.client.limits import SESSION_TTL_S
from kvstore.client.recipes import Claim
from kvstore.client.txn import Compare, CreateRevision
from kvstore.client.values import KeyValue, WatchFilter

if TYPE_CHECKING:
    from kvstore.client.aio.client import AsyncClient

__all__ = ("AsyncElection", "AsyncLeadership", "AsyncLock")

logger = logging.getLogger("kvstore.client")


class _Place:
    """A claim in a queue, and the lease that holds it."""

    def __init__(self, client: AsyncClient, name: Key, ttl: int, lease: AsyncLease | None) -> None:
        self._client = client
        self.name = to_bytes(name)
        self._ttl = ttl
        self._given = lease
        self._lease: AsyncLease | None = None
        self._claim: Claim | None = None

    @property
    def key(self) -> bytes:
        """The key that stands for our place."""
        return self._held().key

    @property
    def token(self) -> int:
        """The fencing token: larger for every later owner."""
        return self._held().token

    @property
    def lease(self) -> AsyncLease:
        """The lease that holds the place."""
        self._held()
        assert self._lease is not None
        return self._lease

    @property
    def lost(self) -> bool:
        """The lease behind the place ended; somebody else may own it now."""
        return self._lease is not None and self._lease.lost

    @property
    def held(self) -> bool:
        return self._claim is not None and not self.lost

    def guard(self) -> Compare:
        """A condition for transactions: we still hold the place."""
        return CreateRevision(self.key) == self.token

    def _held(self) -> Claim:
        if self._claim is None:
            raise KvError(f"{self.name!r} is not held")
        return self._claim

    async def _enter(self, value: Key, timeout: float | None, *, wait: bool) -> bool:
        if self._claim is not None:
            raise KvError(f"{self.name!r} is held by this object already")
        deadline = deadline_of(self._client._clock(), timeout)
        lease = self._lease = self._given or await self._client.lease(self._ttl, timeout=timeout)
        place: Claim | None = None
        try:
            program = recipes.claim if wait else recipes.enqueue
            place = await self._client._run(
                program(self.name, lease.id, value), deadline=deadline, lease=lease
            )
            if place.owned:
                self._claim = place
            return place.owned
        finally:
            if self._claim is None:
                await self._give_up(lease)

    async def _give_up(self, lease: AsyncLease) -> None:
        """Leave the queue after a failure; what cannot be reached expires with the lease."""
        try:
            if self._given is None:
                await lease.revoke()
            else:
                key = recipes.queue_key(self.name, lease.id)
                await self._client.call(operations.delete(key)._replace(effect=Effect.REPEATABLE))
        except KvError as error:
            # The lease of our own is renewed no longer; a given one may still hold the place.
            logger.warning("could not leave the queue %r: %s", self.name, error)

    async def _leave(self) -> None:
        claim, self._claim = self._claim, None
        if claim is None:
            return
        assert self._lease is not None
        if self._given is None:
            await self._lease.revoke()
        else:
            await self._client._run(recipes.resign(claim))


class AsyncLock(_Place):
    """A lock that one holder in the cluster has at a time; see `Client.lock`.

    A holder whose lease ended is not stopped by anybody: pass `token` on to what the lock
    protects, or put `guard()` into transactions, and watch `lost`.
    """

    async def acquire(self, timeout: float | None = None) -> Self:
        """Wait for the lock; raises LockTimeoutError after `timeout` seconds."""
        await self._enter(b"", timeout, wait=True)
        return self

    async def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        return await self._enter(b"", None, wait=False)

    async def release(self) -> None:
        """Give the lock back; no effect if it is not held."""
        await self._leave()

    async def __aenter__(self) -> Self:
        return await self.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.release()


class AsyncLeadership(_Place):
    """An election that was won; as a context manager it resigns at the end."""

    async def proclaim(self, value: Key) -> int:
        """Change the leader's value; its revision. Raises ElectionError when we lead no more."""
        if self.lost:
            raise LeaseLostError(f"the lease of the leadership {self.name!r} was lost")
        return await self._client._run(recipes.proclaim(self._held(), value))

    async def resign(self) -> None:
        """Let the next candidate lead; no effect if we do not lead."""
        await self._leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.resign()


class AsyncElection:
    """An election; see `Client.election`."""

    def __init__(self, client: AsyncClient, name: Key) -> None:
        self._client = client
        self.name = to_bytes(name)

    async def campaign(
        self,
        value: Key,
        *,
        ttl: int = SESSION_TTL_S,
        lease: AsyncLease | None = None,
        timeout: float | None = None,
    ) -> AsyncLeadership:
        """Wait until we lead; raises LockTimeoutError after `timeout` seconds."""
        leadership = AsyncLeadership(self._client, self.name, ttl, lease)
        await leadership._enter(value, timeout, wait=True)
        return leadership

    async def leader(self) -> KeyValue:
        """The leader's key; `create_revision` is its token. Raises ElectionError if nobody is."""
        first = (await self._client.call(recipes.leader(self.name))).first
        if first is None:
            raise ElectionError("election: no leader")
        return first

    async def observe(self) -> AsyncIterator[KeyValue]:
        """The leader now, then every new leader and every new value a leader proclaims.

        Values that were replaced while nobody looked are left out.
        """
        client = self._client
        while not client.closed:
            found = await client.call(recipes.leader(self.name))
            current, revision = found.first, found.header.revision + 1
            try:
                if current is None:
                    current = await self._first_arrival(revision)
                    if current is None:
                        return
                    revision = current.mod_revision + 1
                yield current
                async with client.watch(current.key, start_revision=revision) as changes:
                    async for event in changes.events():
                        if event.is_delete:
                            break
                        yield event.kv
            except WatchCompacted:
                continue

    async def _first_arrival(self, revision: int) -> KeyValue | None:
        async with self._client.watch(
            self.name + b"/",
            prefix=True,
            start_revision=revision,
            filters=(WatchFilter.NO_DELETE,),
        ) as arrivals:
            async for event in arrivals.events():
                return event.kv
        return None
