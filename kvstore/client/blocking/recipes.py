"""The recipes as methods of the blocking client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from kvstore.client import recipes
from kvstore.client.blocking.lease import Lease
from kvstore.client.blocking.partitioner import Partitioner
from kvstore.client.blocking.sync import (
    Barrier,
    Counter,
    DoubleBarrier,
    Election,
    Lock,
    LockingQueue,
    Party,
    Queue,
    ReadLock,
    Semaphore,
    WriteLock,
)
from kvstore.client.blocking.tree import TreeCache
from kvstore.client.keys import Key
from kvstore.client.limits import SESSION_TTL_S

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = ("Recipes",)


class Recipes:
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
        lease: Lease | None = None,
        identifier: Key = b"",
    ) -> Lock:
        """The lock `name`, to be acquired: `with client.lock("jobs") as lock: ...`.

        Works together with `etcdctl lock`.
        """
        client = cast("Client", self)
        return Lock(
            client,
            recipes.LockRecipe(name, client._clock, ttl=ttl, lease=lease, identifier=identifier),
        )

    def read_lock(
        self,
        name: Key,
        *,
        ttl: int = SESSION_TTL_S,
        lease: Lease | None = None,
        identifier: Key = b"",
    ) -> ReadLock:
        """The readers' side of the read/write lock `name`: shared with other readers.

        In the order of arrival: who comes after a waiting writer waits for it.
        """
        client = cast("Client", self)
        return ReadLock(
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
        lease: Lease | None = None,
        identifier: Key = b"",
    ) -> WriteLock:
        """The writers' side of the read/write lock `name`: shared with nobody."""
        client = cast("Client", self)
        return WriteLock(
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
        lease: Lease | None = None,
        identifier: Key = b"",
    ) -> Semaphore:
        """One of the `max_leases` places of `name`; all users must give the same number."""
        client = cast("Client", self)
        return Semaphore(
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

    def election(self, name: Key) -> Election:
        """The election `name`: `with client.election("jobs").campaign("me") as leadership: ...`.

        Works together with `etcdctl elect`.
        """
        return Election(cast("Client", self), name)

    def barrier(self, name: Key) -> Barrier:
        """The barrier `name`: while it stands, `wait` waits. It outlives its creator."""
        client = cast("Client", self)
        return Barrier(client, recipes.BarrierRecipe(name, client._clock))

    def double_barrier(
        self,
        name: Key,
        count: int,
        *,
        ttl: int = SESSION_TTL_S,
        lease: Lease | None = None,
        identifier: Key = b"",
    ) -> DoubleBarrier:
        """`count` participants enter together, and leave together."""
        client = cast("Client", self)
        return DoubleBarrier(
            client,
            recipes.DoubleBarrierRecipe(
                name, client._clock, count=count, ttl=ttl, lease=lease, identifier=identifier
            ),
        )

    def queue(self, name: Key, *, ttl: int = SESSION_TTL_S, lease: Lease | None = None) -> Queue:
        """The queue `name`; who takes an entry has it alone, and loses it if it dies."""
        client = cast("Client", self)
        return Queue(client, recipes.QueueRecipe(name, client._clock, ttl=ttl, lease=lease))

    def locking_queue(
        self,
        name: Key,
        *,
        ttl: int = SESSION_TTL_S,
        lease: Lease | None = None,
        identifier: Key = b"",
    ) -> LockingQueue:
        """The queue `name`; entries come back unless they are consumed."""
        client = cast("Client", self)
        return LockingQueue(
            client,
            recipes.LockingQueueRecipe(
                name, client._clock, ttl=ttl, lease=lease, identifier=identifier
            ),
        )

    def counter(self, name: Key, default: recipes.Number = 0) -> Counter:
        """The number at `name`, an int or a float as `default` is."""
        return Counter(cast("Client", self), recipes.CounterRecipe(name, default))

    def party(
        self,
        name: Key,
        identifier: Key = b"",
        *,
        ttl: int = SESSION_TTL_S,
        lease: Lease | None = None,
    ) -> Party:
        """The party `name`: join it, leave it, see who is here."""
        client = cast("Client", self)
        return Party(
            client,
            recipes.PartyRecipe(name, client._clock, ttl=ttl, lease=lease, identifier=identifier),
        )

    def partitioner(
        self,
        name: Key,
        items: Iterable[Key],
        *,
        ttl: int = SESSION_TTL_S,
        lease: Lease | None = None,
        identifier: Key = b"",
        division: recipes.Division = recipes.divide,
    ) -> Partitioner:
        """`items` divided among the living members of `name`, each to one at a time.

        All members must give the same items and the same `division`.
        """
        client = cast("Client", self)
        return Partitioner(
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

    def tree_cache(self, prefix: Key) -> TreeCache:
        """A local copy of everything under `prefix`: `with client.tree_cache("a/") as cache`."""
        return TreeCache(cast("Client", self), prefix)
