"""A queue whose entries are locked while they are worked on: none is lost, each done at least once.

An entry stays where it is; who works on it has a key of the entry's name on a lease. If the
worker dies, the key goes and the entry is free again. `consume` deletes both, and fails if the
key is another one by now. Consumers stand in a line; only the first of it looks for free entries.
"""

from __future__ import annotations

from collections.abc import Iterable

from kvstore.client import operations
from kvstore.client.call import Effect
from kvstore.client.errors import LeaseLostError, LockTimeoutError
from kvstore.client.keys import Key, prefix_end
from kvstore.client.limits import SCAN_PAGE
from kvstore.client.recipes.entries import PRIORITY_DEFAULT, EntriesRecipe
from kvstore.client.recipes.holder import Clock, HolderRecipe
from kvstore.client.recipes.line import (
    Claim,
    Contender,
    contenders,
    enqueue,
    line_prefix,
    queue_key,
    strange_answer,
    wait_turn,
)
from kvstore.client.recipes.steps import HeldLease, Program, WaitChange
from kvstore.client.txn import CreateRevision, Delete, Get, ModRevision, Put, Txn
from kvstore.client.values import KeyValue, RangeResult, TxnResult

__all__ = ("LockingQueueRecipe",)


class LockingQueueRecipe(HolderRecipe):
    """Keys: those of the entries, NAME/line/LEASE, and NAME/held/ENTRY with the identifier."""

    kind = "entry of queue"

    def __init__(
        self,
        name: Key,
        clock: Clock,
        *,
        ttl: int,
        lease: HeldLease | None = None,
        identifier: Key = b"",
    ) -> None:
        super().__init__(name, clock, ttl=ttl, lease=lease, identifier=identifier)
        self._entries = EntriesRecipe(name)
        self._line = line_prefix(self.name) + b"line"
        self._held = line_prefix(self.name) + b"held/"
        self._entry: KeyValue | None = None

    def put(self, value: Key, priority: int = PRIORITY_DEFAULT) -> Program[None]:
        """Add an entry; those of a lower `priority` (0 to 999) are taken before it."""
        return self._entries.put(value, priority)

    def put_all(self, values: Iterable[Key], priority: int = PRIORITY_DEFAULT) -> Program[None]:
        """Add entries in this order, all or none; at most 127 with a server's usual settings."""
        return self._entries.put_all(values, priority)

    def size(self) -> Program[int]:
        """How many entries there are, those that are worked on included."""
        return self._entries.size()

    def contenders(self) -> Program[tuple[Contender, ...]]:
        """Everyone who works on an entry, then everyone who waits for one."""
        working = yield from contenders(self._held)
        return working + (yield from contenders(line_prefix(self._line)))

    def get(self, timeout: float | None = None) -> Program[bytes | None]:
        """Lock the next free entry and return its value, waiting for one.

        None when `timeout` seconds passed before (0: take what is there). An entry that this
        object holds already must be consumed or released first.
        """
        wait = timeout is None or timeout > 0
        try:
            yield from self.enter(
                lambda lease_id: self._take(lease_id, wait=wait), timeout if wait else None
            )
        except LockTimeoutError:
            return None
        return self._entry.value if self._claim is not None and self._entry else None

    def consume(self) -> Program[None]:
        """The entry is done: delete it.

        Raises LeaseLostError if our lease ended: the entry is free again, or another's by now.
        """
        self.check()
        claim, entry = self.claim, self._entry
        assert entry is not None
        txn = Txn().when(self.guard()).then(Delete(entry.key), Delete(claim.key))
        answer: TxnResult = yield txn.build()
        self._claim = self._entry = None
        if not answer.succeeded:
            raise LeaseLostError(
                f"{self._what}: lease {claim.lease_id:x} has ended, the entry went back"
            )
        yield from self.end_lease()

    def release(self) -> Program[None]:
        """Give the entry back; it is the next one to be taken. No effect if there is none."""
        self._entry = None
        return self.leave()

    def _take(self, lease_id: int, *, wait: bool) -> Program[Claim | None]:
        self._entry = None
        place = yield from enqueue(self._line, lease_id, self.identifier)
        if not place.owned:
            if not wait:
                return None
            place = yield from wait_turn(line_prefix(self._line), place)
        while True:
            entry, revision = yield from self._find_free()
            if entry is not None:
                held = yield from self._hold(entry, place)
                if held is not None:
                    return held
            elif wait:
                # From `entries/` to the end of `held/`: a new entry, or one that is freed.
                end = prefix_end(self._held)
                yield WaitChange(self._entries.prefix, revision + 1, end)
            else:
                return None

    def _find_free(self) -> Program[tuple[KeyValue | None, int]]:
        """The first entry that nobody holds, and the revision to wait from if there is none.

        That is the first page's: what changes between two pages is seen by the watch.
        """
        start, revision = self._entries.prefix, 0
        end = prefix_end(self._entries.prefix)
        while True:
            txn = Txn().then(
                Get(start, range_end=end, limit=SCAN_PAGE),
                Get(self._held, prefix=True, keys_only=True),
            )
            answer: TxnResult = yield txn.build()
            match answer.responses:
                case (RangeResult() as entries, RangeResult() as held):
                    pass
                case _:
                    raise strange_answer()
            revision = revision or answer.header.revision
            busy = {kv.key.removeprefix(self._held) for kv in held}
            for kv in entries:
                if kv.key.removeprefix(self._entries.prefix) not in busy:
                    return kv, revision
            if not entries.more:
                return None, revision
            if not entries.kvs:
                raise strange_answer()
            start = entries.kvs[-1].key + b"\0"

    def _hold(self, entry: KeyValue, place: Claim) -> Program[Claim | None]:
        """Go from the line to the entry; None if that is not free any more."""
        key = self._held + entry.key.removeprefix(self._entries.prefix)
        txn = (
            Txn()
            .when(
                CreateRevision(place.key) == place.token,
                CreateRevision(key) == 0,
                ModRevision(entry.key) == entry.mod_revision,
            )
            .then(Put(key, self.identifier, lease=place.lease_id), Delete(place.key))
            .otherwise(Get(place.key))
        )
        self._entry = entry
        answer: TxnResult = yield txn.build()
        revision = answer.header.revision
        if answer.succeeded:
            return Claim(key, revision, place.lease_id, True, revision)
        self._entry = None
        match answer.responses:
            case (RangeResult(kvs=(own,)),) if own.create_revision == place.token:
                return None
            case _:
                raise LeaseLostError(f"{self._what}: lease {place.lease_id:x} ended in the line")

    def abandon(self, lease_id: int) -> Program[None]:
        txn = Txn().then(Delete(queue_key(self._line, lease_id)))
        if self._entry is not None:
            # The answer to holding it was lost: it may have happened.
            key = self._held + self._entry.key.removeprefix(self._entries.prefix)
            found: RangeResult = yield operations.range(key)
            if found.first is not None and found.first.lease == lease_id:
                txn = txn.then(Delete(key))
        yield txn.build()._replace(effect=Effect.REPEATABLE)
