"""AsyncRecipes for asyncio, as far as they are nothing but programs."""

# ruff: noqa: ASYNC109 - a timeout argument is the shape that both clients share

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from kvstore.client import recipes
from kvstore.client.aio.face import Exclusive, Face, Holder, awaited
from kvstore.client.aio.lease import AsyncLease
from kvstore.client.errors import WatchCompacted
from kvstore.client.keys import Key, to_bytes
from kvstore.client.limits import SESSION_TTL_S
from kvstore.client.recipes import Contender
from kvstore.client.values import KeyValue, WatchFilter

if TYPE_CHECKING:
    from kvstore.client.aio.client import AsyncClient

__all__ = (
    "AsyncBarrier",
    "AsyncCounter",
    "AsyncDoubleBarrier",
    "AsyncElection",
    "AsyncLeadership",
    "AsyncLock",
    "AsyncLockingQueue",
    "AsyncParty",
    "AsyncQueue",
    "AsyncReadLock",
    "AsyncSemaphore",
    "AsyncWriteLock",
)

T = TypeVar("T")


class AsyncLock(Exclusive[recipes.LockRecipe]):
    """A lock that one holder in the cluster has at a time; see `Client.lock`.

    A holder whose lease ended is not stopped by anybody: pass `fencing_token` on to what the lock
    protects, or put `guard()` into transactions, and watch `lost`.
    """


class AsyncReadLock(Exclusive[recipes.ReadLockRecipe]):
    """The readers' side of a read/write lock; see `Client.read_lock`."""


class AsyncWriteLock(Exclusive[recipes.WriteLockRecipe]):
    """The writers' side of a read/write lock; see `Client.write_lock`."""


class AsyncSemaphore(Exclusive[recipes.SemaphoreRecipe]):
    """One of a number of places; see `Client.semaphore`."""

    holders = awaited(recipes.SemaphoreRecipe.holders)

    @property
    def max_leases(self) -> int:
        return self._recipe.max_leases


class AsyncLeadership(Holder[recipes.LeadershipRecipe]):
    """An election that was won; as a context manager it resigns at the end."""

    proclaim = awaited(recipes.LeadershipRecipe.proclaim)
    resign = awaited(recipes.LeadershipRecipe.resign)

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
        self._campaigns: list[recipes.LeadershipRecipe] = []

    async def campaign(
        self,
        value: Key,
        *,
        ttl: int = SESSION_TTL_S,
        lease: AsyncLease | None = None,
        timeout: float | None = None,
    ) -> AsyncLeadership:
        """Wait until we lead; raises LockTimeoutError after `timeout` seconds."""
        client = self._client
        candidate = recipes.LeadershipRecipe(
            self.name, client._clock, ttl=ttl, lease=lease, identifier=value
        )
        self._campaigns.append(candidate)
        try:
            await client._run(candidate.acquire(timeout))
        finally:
            self._campaigns.remove(candidate)
        return AsyncLeadership(client, candidate)

    def cancel(self) -> None:
        """End the campaigns of this object that are under way: they raise LockCanceledError."""
        for each in list(self._campaigns):
            each.cancel()

    async def run(
        self,
        value: Key,
        work: Callable[[AsyncLeadership], Awaitable[T]],
        *,
        ttl: int = SESSION_TTL_S,
    ) -> T:
        """Wait until we lead, do `work(leadership)`, resign; returns what `work` returned."""
        async with await self.campaign(value, ttl=ttl) as leadership:
            return await work(leadership)

    async def contenders(self) -> tuple[Contender, ...]:
        """The leader, then everyone who wants to lead after it."""
        return await self._client._run(recipes.contenders(recipes.line_prefix(self.name)))

    async def leader(self) -> KeyValue:
        """The leader's key; `create_revision` is its token. Raises ElectionError if nobody is."""
        return await self._client._run(recipes.current_leader(self.name))

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
            recipes.line_prefix(self.name),
            prefix=True,
            start_revision=revision,
            filters=(WatchFilter.NO_DELETE,),
        ) as arrivals:
            async for event in arrivals.events():
                return event.kv
        return None


class AsyncBarrier(Face[recipes.BarrierRecipe]):
    """Holds everyone up who waits, until it is removed; see `Client.barrier`."""

    create = awaited(recipes.BarrierRecipe.create)
    remove = awaited(recipes.BarrierRecipe.remove)
    wait = awaited(recipes.BarrierRecipe.wait)

    @property
    def name(self) -> bytes:
        return self._recipe.name


class AsyncDoubleBarrier(Holder[recipes.DoubleBarrierRecipe]):
    """Participants begin together and end together; see `Client.double_barrier`."""

    enter = awaited(recipes.DoubleBarrierRecipe.begin)
    leave = awaited(recipes.DoubleBarrierRecipe.end)

    @property
    def count(self) -> int:
        return self._recipe.count

    async def __aenter__(self) -> Self:
        await self.enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.leave()


class AsyncQueue(Face[recipes.QueueRecipe]):
    """Entries that are gone when they are taken; see `Client.queue`."""

    put = awaited(recipes.QueueRecipe.put)
    put_all = awaited(recipes.QueueRecipe.put_all)
    get = awaited(recipes.QueueRecipe.get)
    size = awaited(recipes.QueueRecipe.size)

    @property
    def name(self) -> bytes:
        return self._recipe.name


class AsyncLockingQueue(Holder[recipes.LockingQueueRecipe]):
    """Entries that come back unless they are consumed; see `Client.locking_queue`."""

    put = awaited(recipes.LockingQueueRecipe.put)
    put_all = awaited(recipes.LockingQueueRecipe.put_all)
    get = awaited(recipes.LockingQueueRecipe.get)
    consume = awaited(recipes.LockingQueueRecipe.consume)
    release = awaited(recipes.LockingQueueRecipe.release)
    size = awaited(recipes.LockingQueueRecipe.size)


class AsyncCounter(Face[recipes.CounterRecipe]):
    """A number that many change at once; see `Client.counter`."""

    value = awaited(recipes.CounterRecipe.value)
    add = awaited(recipes.CounterRecipe.add)

    @property
    def name(self) -> bytes:
        return self._recipe.name

    @property
    def pre_value(self) -> recipes.Number | None:
        """The number before the last change by this object."""
        return self._recipe.pre_value

    @property
    def post_value(self) -> recipes.Number | None:
        """The number after the last change by this object."""
        return self._recipe.post_value


class AsyncParty(Holder[recipes.PartyRecipe]):
    """Who is here; as a context manager it joins and leaves. See `Client.party`."""

    join = awaited(recipes.PartyRecipe.join)
    leave = awaited(recipes.PartyRecipe.part)
    members = awaited(recipes.PartyRecipe.members)

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.leave()
