"""Recipes for threads, as far as they are nothing but programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from kvstore.client import recipes
from kvstore.client.blocking.face import Exclusive, Face, Holder, blocking
from kvstore.client.blocking.lease import Lease
from kvstore.client.errors import WatchCompacted
from kvstore.client.keys import Key, to_bytes
from kvstore.client.limits import SESSION_TTL_S
from kvstore.client.recipes import Contender
from kvstore.client.values import KeyValue, WatchFilter

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = (
    "Barrier",
    "Counter",
    "DoubleBarrier",
    "Election",
    "Leadership",
    "Lock",
    "LockingQueue",
    "Party",
    "Queue",
    "ReadLock",
    "Semaphore",
    "WriteLock",
)

T = TypeVar("T")


class Lock(Exclusive[recipes.LockRecipe]):
    """A lock that one holder in the cluster has at a time; see `Client.lock`.

    A holder whose lease ended is not stopped by anybody: pass `fencing_token` on to what the lock
    protects, or put `guard()` into transactions, and watch `lost`.
    """


class ReadLock(Exclusive[recipes.ReadLockRecipe]):
    """The readers' side of a read/write lock; see `Client.read_lock`."""


class WriteLock(Exclusive[recipes.WriteLockRecipe]):
    """The writers' side of a read/write lock; see `Client.write_lock`."""


class Semaphore(Exclusive[recipes.SemaphoreRecipe]):
    """One of a number of places; see `Client.semaphore`."""

    holders = blocking(recipes.SemaphoreRecipe.holders)

    @property
    def max_leases(self) -> int:
        return self._recipe.max_leases


class Leadership(Holder[recipes.LeadershipRecipe]):
    """An election that was won; as a context manager it resigns at the end."""

    proclaim = blocking(recipes.LeadershipRecipe.proclaim)
    resign = blocking(recipes.LeadershipRecipe.resign)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.resign()


class Election:
    """An election; see `Client.election`."""

    def __init__(self, client: Client, name: Key) -> None:
        self._client = client
        self.name = to_bytes(name)
        self._campaigns: list[recipes.LeadershipRecipe] = []

    def campaign(
        self,
        value: Key,
        *,
        ttl: int = SESSION_TTL_S,
        lease: Lease | None = None,
        timeout: float | None = None,
    ) -> Leadership:
        """Wait until we lead; raises LockTimeoutError after `timeout` seconds."""
        client = self._client
        candidate = recipes.LeadershipRecipe(
            self.name, client._clock, ttl=ttl, lease=lease, identifier=value
        )
        self._campaigns.append(candidate)
        try:
            client._run(candidate.acquire(timeout))
        finally:
            self._campaigns.remove(candidate)
        return Leadership(client, candidate)

    def cancel(self) -> None:
        """End the campaigns of this object that are under way: they raise LockCanceledError."""
        for each in list(self._campaigns):
            each.cancel()

    def run(self, value: Key, work: Callable[[Leadership], T], *, ttl: int = SESSION_TTL_S) -> T:
        """Wait until we lead, do `work(leadership)`, resign; returns what `work` returned."""
        with self.campaign(value, ttl=ttl) as leadership:
            return work(leadership)

    def contenders(self) -> tuple[Contender, ...]:
        """The leader, then everyone who wants to lead after it."""
        return self._client._run(recipes.contenders(recipes.line_prefix(self.name)))

    def leader(self) -> KeyValue:
        """The leader's key; `create_revision` is its token. Raises ElectionError if nobody is."""
        return self._client._run(recipes.current_leader(self.name))

    def observe(self) -> Iterator[KeyValue]:
        """The leader now, then every new leader and every new value a leader proclaims.

        Values that were replaced while nobody looked are left out.
        """
        client = self._client
        while not client.closed:
            found = client.call(recipes.leader(self.name))
            current, revision = found.first, found.header.revision + 1
            try:
                if current is None:
                    current = self._first_arrival(revision)
                    if current is None:
                        return
                    revision = current.mod_revision + 1
                yield current
                with client.watch(current.key, start_revision=revision) as changes:
                    for event in changes.events():
                        if event.is_delete:
                            break
                        yield event.kv
            except WatchCompacted:
                continue

    def _first_arrival(self, revision: int) -> KeyValue | None:
        with self._client.watch(
            recipes.line_prefix(self.name),
            prefix=True,
            start_revision=revision,
            filters=(WatchFilter.NO_DELETE,),
        ) as arrivals:
            for event in arrivals.events():
                return event.kv
        return None


class Barrier(Face[recipes.BarrierRecipe]):
    """Holds everyone up who waits, until it is removed; see `Client.barrier`."""

    create = blocking(recipes.BarrierRecipe.create)
    remove = blocking(recipes.BarrierRecipe.remove)
    wait = blocking(recipes.BarrierRecipe.wait)

    @property
    def name(self) -> bytes:
        return self._recipe.name


class DoubleBarrier(Holder[recipes.DoubleBarrierRecipe]):
    """Participants begin together and end together; see `Client.double_barrier`."""

    enter = blocking(recipes.DoubleBarrierRecipe.begin)
    leave = blocking(recipes.DoubleBarrierRecipe.end)

    @property
    def count(self) -> int:
        return self._recipe.count

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()


class Queue(Face[recipes.QueueRecipe]):
    """Entries that are gone when they are taken; see `Client.queue`."""

    put = blocking(recipes.QueueRecipe.put)
    put_all = blocking(recipes.QueueRecipe.put_all)
    get = blocking(recipes.QueueRecipe.get)
    size = blocking(recipes.QueueRecipe.size)

    @property
    def name(self) -> bytes:
        return self._recipe.name


class LockingQueue(Holder[recipes.LockingQueueRecipe]):
    """Entries that come back unless they are consumed; see `Client.locking_queue`."""

    put = blocking(recipes.LockingQueueRecipe.put)
    put_all = blocking(recipes.LockingQueueRecipe.put_all)
    get = blocking(recipes.LockingQueueRecipe.get)
    consume = blocking(recipes.LockingQueueRecipe.consume)
    release = blocking(recipes.LockingQueueRecipe.release)
    size = blocking(recipes.LockingQueueRecipe.size)


class Counter(Face[recipes.CounterRecipe]):
    """A number that many change at once; see `Client.counter`."""

    value = blocking(recipes.CounterRecipe.value)
    add = blocking(recipes.CounterRecipe.add)

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


class Party(Holder[recipes.PartyRecipe]):
    """Who is here; as a context manager it joins and leaves. See `Client.party`."""

    join = blocking(recipes.PartyRecipe.join)
    leave = blocking(recipes.PartyRecipe.part)
    members = blocking(recipes.PartyRecipe.members)

    def __enter__(self) -> Self:
        self.join()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()
