"""A queue whose entries are gone when they are taken: each goes to one consumer, at most once.

Consumers who find it empty stand in a line; only the first of it watches for entries, and as long
as anybody waits, those who come later do not overtake.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from kvstore.client.errors import KvError, LockTimeoutError
from kvstore.client.keys import Key, to_bytes
from kvstore.client.recipes.entries import PRIORITY_DEFAULT, EntriesRecipe
from kvstore.client.recipes.holder import Clock
from kvstore.client.recipes.line import line_prefix
from kvstore.client.recipes.lock import LockRecipe
from kvstore.client.recipes.steps import (
    HeldLease,
    LeaseStop,
    Limits,
    Program,
    WaitChange,
    deadline_of,
    ensuring,
    within,
)
from kvstore.client.txn import Compare, CreateRevision, Delete, ModRevision, Txn
from kvstore.client.values import KeyValue, RangeResult, TxnResult, WatchFilter

__all__ = ("QueueRecipe",)

logger = logging.getLogger("kvstore.client")


class QueueRecipe:
    """Keys: those of the entries, and NAME/line/LEASE for consumers who wait."""

    def __init__(
        self, name: Key, clock: Clock, *, ttl: int, lease: HeldLease | None = None
    ) -> None:
        self.name = to_bytes(name)
        self._clock = clock
        self._ttl_s = ttl
        self._given = lease
        self._entries = EntriesRecipe(name)
        self._line = line_prefix(name) + b"line"

    def put(self, value: Key, priority: int = PRIORITY_DEFAULT) -> Program[None]:
        """Add an entry; those of a lower `priority` (0 to 999) are taken before it."""
        return self._entries.put(value, priority)

    def put_all(self, values: Iterable[Key], priority: int = PRIORITY_DEFAULT) -> Program[None]:
        """Add entries in this order, all or none; at most 127 with a server's usual settings."""
        return self._entries.put_all(values, priority)

    def size(self) -> Program[int]:
        """How many entries there are."""
        return self._entries.size()

    def get(self, timeout: float | None = None) -> Program[bytes | None]:
        """Take the next entry, waiting for one; None when `timeout` seconds passed before.

        A `timeout` of 0 takes what is there. An error whose `outcome` is UNKNOWN means that an
        entry may have been taken; use a locking queue where that must not lose it.
        """
        deadline = deadline_of(self._clock(), timeout)
        if timeout is not None and timeout <= 0:
            return (yield from self._take_first(wait=False))
        found: RangeResult = yield self._entries.first()
        if found.first is not None:
            nobody_waits = CreateRevision(line_prefix(self._line), prefix=True) == 0
            value = yield from _take(found.first, nobody_waits)
            if value is not None:
                return value
        line = LockRecipe(self._line, self._clock, ttl=self._ttl_s, lease=self._given)
        try:
            yield from line.acquire(timeout)
            limits = Limits(deadline, (LeaseStop(line.lease),))
            waiting = within(self._take_first(wait=True), limits)
            return (yield from ensuring(waiting, lambda: _leave(line)))
        except LockTimeoutError:
            return None

    def _take_first(self, *, wait: bool) -> Program[bytes | None]:
        while True:
            found: RangeResult = yield self._entries.first()
            if found.first is not None:
                value = yield from _take(found.first)
                if value is not None:
                    return value
            elif wait:
                yield WaitChange.under(
                    self._entries.prefix, found.header.revision + 1, (WatchFilter.NO_DELETE,)
                )
            else:
                return None


def _take(entry: KeyValue, *conditions: Compare) -> Program[bytes | None]:
    """The entry's value, if it was still there and the conditions hold."""
    txn = (
        Txn().when(ModRevision(entry.key) == entry.mod_revision, conditions).then(Delete(entry.key))
    )
    answer: TxnResult = yield txn.build()
    return entry.value if answer.succeeded else None


def _leave(line: LockRecipe) -> Program[None]:
    """Leave the line; a failure must not cost the entry that was taken."""
    try:
        yield from line.release()
    except KvError as error:
        logger.warning("queue: could not leave the line of consumers: %s", error)
