"""The recipes as methods of the asyncio client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from kvstore.client import recipes
from kvstore.client.aio.lease import AsyncLease
from kvstore.client.aio.partitioner import AsyncPartitioner
from kvstore.client.aio.sync import (
    AsyncBarrier,
    AsyncCounter,
    AsyncDoubleBarrier,
    AsyncElection,
    AsyncLock,
    AsyncLockingQueue,
    AsyncParty,
    AsyncQueue,
    AsyncReadLock,
    AsyncSemaphore,
    AsyncWriteLock,
)
from kvstore.client.aio.tree import AsyncTreeCache
from kvstore.client.keys import Key
from kvstore.client.limits import SESSION_TTL_S

if TYPE_CHECKING:
    from kvstore.client.aio.client import AsyncClient

__all__ = ("AsyncRecipes",)


class AsyncRecipes:
    """Each method makes an object and asks nobody; see docs/recipes.md.

    What is held is held by `lease`, or by a lease of the object's own of `ttl` seconds.
    `identifier` is what others see of us. A name must not be another's with a slash and more
    behind it ("a" and "a/b"): keys of the one would count for the other.
    """

    def lock(
        self,
        name: Key,
        *,
        ttl: int = SESSION_TTL_S,
        lease: AsyncLease | None = None,
        identifier: Key = b"",
    ) -> AsyncLock:
        """The lock `name`, to be acquired: `async with client.lock("jobs") as lock: ...`.

        Works together with `etcdctl lock`.
        """
        client = cast("AsyncClient", self)
        return AsyncLock(
            client,
            recipes.LockRecipe(name, client._clock, ttl=ttl, lease=lease, identifier=identifier),
        )

    def read_lock(
        self,
        name: Key,
        *,
        ttl: int = SESSION_TTL_S,
        lease: AsyncLease | None = None,
        identifier: Key = b"",
    ) -> AsyncReadLock:
        """The readers' side of the read/write lock `name`: shared with other readers.

        In the order of arrival: who comes after a waiting writer waits for it.
        """
        client = cast("AsyncClient", self)
        return AsyncReadLock(
            client,
            recipes.ReadLockRecipe(
                name, client._clock, ttl=ttl, lease=lease, identifier=identifier
            ),
        )

    def write_lock(
        self,
        name: Key,
        *,
        ttl: int = SESSION_TTL_S,
        lease: AsyncLease | None = None,
        identifier: Key = b"",
    ) -> AsyncWriteLock:
        """The writers' side of the read/write lock `name`: shared with nobody."""
        client = cast("AsyncClient", self)
        return AsyncWriteLock(
            client,
            recipes.WriteLockRecipe(
                name, client._clock, ttl=ttl, lease=lease, identifier=identifier
            ),
        )

    def semaphore(
        self,
        name: Key,
        max_leases: int,
        *,
        ttl: int = SESSION_TTL_S,
        lease: AsyncLease | None = None,
        identifier: Key = b"",
    ) -> AsyncSemaphore:
        """One of the `max_leases` places of `name`; all users must give the same number."""
        client = cast("AsyncClient", self)
        return AsyncSemaphore(
            client,
            recipes.SemaphoreRecipe(
                name,
                client._clock,
                max_leases=max_leases,
                ttl=ttl,
                lease=lease,
                identifier=identifier,
            ),
        )

    def election(self, name: Key) -> AsyncElection:
        """The election `name`: `async with await client.election("jobs").campaign("me"): ...`.

        Works together with `etcdctl elect`.
        """
        return AsyncElection(cast("AsyncClient", self), name)

    def barrier(self, name: Key) -> AsyncBarrier:
        """The barrier `name`: while it stands, `wait` waits. It outlives its creator."""
        client = cast("AsyncClient", self)
        return AsyncBarrier(client, recipes.BarrierRecipe(name, client._clock))

    def double_barrier(
        self,
        name: Key,
        count: int,
        *,
        ttl: int = SESSION_TTL_S,
        lease: AsyncLease | None = None,
        identifier: Key = b"",
    ) -> AsyncDoubleBarrier:
        """`count` participants enter together, and leave together."""
        client = cast("AsyncClient", self)
        return AsyncDoubleBarrier(
            client,
            recipes.DoubleBarrierRecipe(
                name, client._clock, count=count, ttl=ttl, lease=lease, identifier=identifier
            ),
        )

    def queue(
        self, name: Key, *, ttl: int = SESSION_TTL_S, lease: AsyncLease | None = None
    ) -> AsyncQueue:
        """The queue `name`; who takes an entry has it alone, and loses it if it dies."""
        client = cast("AsyncClient", self)
        return AsyncQueue(client, recipes.QueueRecipe(name, client._clock, ttl=ttl, lease=lease))

    def locking_queue(
        self,
        name: Key,
        *,
        ttl: int = SESSION_TTL_S,
        lease: AsyncLease | None = None,
        identifier: Key = b"",
    ) -> AsyncLockingQueue:
        """The queue `name`; entries come back unless they are consumed."""
        client = cast("AsyncClient", self)
        return AsyncLockingQueue(
            client,
            recipes.LockingQueueRecipe(
                name, client._clock, ttl=ttl, lease=lease, identifier=identifier
            ),
        )

    def counter(self, name: Key, default: recipes.Number = 0) -> AsyncCounter:
        """The number at `name`, an int or a float as `default` is."""
        return AsyncCounter(cast("AsyncClient", self), recipes.CounterRecipe(name, default))

    def party(
        self,
        name: Key,
        identifier: Key = b"",
        *,
        ttl: int = SESSION_TTL_S,
        lease: AsyncLease | None = None,
    ) -> AsyncParty:
        """The party `name`: join it, leave it, see who is here."""
        client = cast("AsyncClient", self)
        return AsyncParty(
            client,
            recipes.PartyRecipe(name, client._clock, ttl=ttl, lease=lease, identifier=identifier),
        )

    def partitioner(
        self,
        name: Key,
        items: Iterable[Key],
        *,
        ttl: int = SESSION_TTL_S,
        lease: AsyncLease | None = None,
        identifier: Key = b"",
        division: recipes.Division = recipes.divide,
    ) -> AsyncPartitioner:
        """`items` divided among the living members of `name`, each to one at a time.

        All members must give the same items and the same `division`.
        """
        client = cast("AsyncClient", self)
        return AsyncPartitioner(
            client,
            recipes.PartitionerRecipe(
                name,
                client._clock,
                items=items,
                ttl=ttl,
                lease=lease,
                identifier=identifier,
                division=division,
            ),
        )

    def tree_cache(self, prefix: Key) -> AsyncTreeCache:
        """A local copy of everything under `prefix`: `async with client.tree_cache("a/") as c`."""
        return AsyncTreeCache(cast("AsyncClient", self), prefix)
