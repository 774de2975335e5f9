"""A semaphore: at most so many holders at a time, in the order of arrival.

Whoever wants in stands in a line. Only the first of it watches the holders; everyone else waits
for the one before. Going in moves the place from the line to the holders in one transaction, so
the first of the line alone can make the holders more, and counting before is safe.

The number is agreed in the store: who comes to an unused semaphore sets it, who brings another
number while it is in use is refused.
"""

from __future__ import annotations

from kvstore.client.call import Effect
from kvstore.client.errors import KvError, LeaseLostError, LockTimeoutError, PreconditionError
from kvstore.client.keys import Key
from kvstore.client.recipes.holder import Clock
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
from kvstore.client.recipes.lock import ExclusiveRecipe
from kvstore.client.recipes.steps import HeldLease, Program, WaitChange
from kvstore.client.txn import CreateRevision, Delete, Get, Put, Txn, Value
from kvstore.client.values import RangeResult, TxnResult, WatchFilter

__all__ = ("SemaphoreRecipe",)


class SemaphoreRecipe(ExclusiveRecipe):
    """Keys: NAME/limit, NAME/line/LEASE and NAME/holders/LEASE with the identifier as value."""

    kind = "semaphore"

    def __init__(
        self,
        name: Key,
        clock: Clock,
        *,
        max_leases: int,
        ttl: int,
        lease: HeldLease | None = None,
        identifier: Key = b"",
    ) -> None:
        super().__init__(name, clock, ttl=ttl, lease=lease, identifier=identifier)
        if max_leases < 1:
            raise ValueError(f"{self._what}: max_leases must be 1 or more, not {max_leases}")
        self.max_leases = max_leases
        self._limit = line_prefix(self.name) + b"limit"
        self._line = line_prefix(self.name) + b"line"
        self._holders = line_prefix(self.name) + b"holders"
        self._going_in = False

    def holders(self) -> Program[tuple[Contender, ...]]:
        """Everyone inside, in the order in which they came in."""
        return contenders(line_prefix(self._holders))

    def contenders(self) -> Program[tuple[Contender, ...]]:
        """Everyone inside, then everyone who waits."""
        inside = yield from self.holders()
        return inside + (yield from contenders(line_prefix(self._line)))

    def _take(self, lease_id: int, *, wait: bool) -> Program[Claim | None]:
        self._going_in = False
        yield from self._agree()
        place = yield from enqueue(self._line, lease_id, self.identifier)
        if not place.owned:
            if not wait:
                return None
            place = yield from wait_turn(line_prefix(self._line), place)
        while True:
            revision = yield from self._full(lease_id)
            if revision == 0:
                return (yield from self._go_in(place))
            if not wait:
                return None
            try:
                yield WaitChange.under(
                    line_prefix(self._holders), revision + 1, (WatchFilter.NO_PUT,)
                )
            except LockTimeoutError as error:
                raise LockTimeoutError(
                    f"all {self.max_leases} places are taken", outcome=error.outcome
                ) from error

    def _agree(self) -> Program[None]:
        """Make sure that the store has our number, or can have it; raises PreconditionError."""
        wanted = b"%d" % self.max_leases
        unused = (
            CreateRevision(line_prefix(self._line), prefix=True) == 0,
            CreateRevision(line_prefix(self._holders), prefix=True) == 0,
        )
        replace = Txn().when(unused).then(Put(self._limit, wanted)).otherwise(Get(self._limit))
        txn = Txn().when(Value(self._limit) == wanted).otherwise(replace)
        answer: TxnResult = yield txn.build()._replace(effect=Effect.REPEATABLE)
        match answer.responses:
            case () if answer.succeeded:
                return
            case (TxnResult(succeeded=True),):
                return
            case (TxnResult(responses=(RangeResult() as stored,)),):
                raise self._disagreement(stored)
            case _:
                raise strange_answer()

    def _disagreement(self, stored: RangeResult) -> KvError:
        value = stored.first.value.decode(errors="backslashreplace") if stored.first else "none"
        return PreconditionError(
            f"{self._what} is in use with max_leases {value}, not {self.max_leases}; all its "
            "users must give the same number"
        )

    def _full(self, lease_id: int) -> Program[int]:
        """0 if there is room for us, the first in line; else the revision at which it was full.

        Nobody can change the number while our place makes the line not empty, so what is read
        here is what holds.
        """
        txn = Txn().then(Get(self._limit), Get(line_prefix(self._holders), prefix=True))
        answer: TxnResult = yield txn.build()
        match answer.responses:
            case (RangeResult() as limit, RangeResult() as inside):
                pass
            case _:
                raise strange_answer()
        if limit.first is None or limit.first.value != b"%d" % self.max_leases:
            raise self._disagreement(limit)
        if any(kv.key == queue_key(self._holders, lease_id) for kv in inside):
            raise PreconditionError(
                f"{self._what}: lease {lease_id:x} is inside already; "
                "use another lease for another place"
            )
        return answer.header.revision if len(inside) >= self.max_leases else 0

    def _go_in(self, place: Claim) -> Program[Claim]:
        key = queue_key(self._holders, place.lease_id)
        txn = (
            Txn()
            .when(CreateRevision(place.key) == place.token)
            .then(Put(key, self.identifier, lease=place.lease_id), Delete(place.key))
        )
        self._going_in = True
        answer: TxnResult = yield txn.build()
        if not answer.succeeded:
            raise LeaseLostError(f"{self._what}: lease {place.lease_id:x} ended in the line")
        revision = answer.header.revision
        return Claim(key, revision, place.lease_id, True, revision)

    def abandon(self, lease_id: int) -> Program[None]:
        keys = [queue_key(self._line, lease_id)]
        if self._going_in:
            # The answer to going in was lost: it may have happened.
            keys.append(queue_key(self._holders, lease_id))
        txn = Txn().then(*map(Delete, keys))
        yield txn.build()._replace(effect=Effect.REPEATABLE)
