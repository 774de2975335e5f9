"""A double barrier: a number of participants begin together, and end together.

`ready` appears when enough are inside; its create revision names the round. Those who come later
wait until the round is over. Its last participant deletes `ready` together with its own key; if
that one dies instead, the next to come sees `ready` without anyone inside, and deletes it.
"""

from __future__ import annotations

from kvstore.client import operations
from kvstore.client.call import Effect
from kvstore.client.errors import LeaseLostError, LockTimeoutError
from kvstore.client.keys import Key
from kvstore.client.recipes.holder import Clock, HolderRecipe
from kvstore.client.recipes.line import (
    Claim,
    Contender,
    contenders,
    line_prefix,
    queue_key,
    resign,
    strange_answer,
)
from kvstore.client.recipes.steps import (
    HeldLease,
    LeaseStop,
    Limits,
    Program,
    WaitChange,
    WaitDeleted,
    deadline_of,
    ensuring,
    within,
)
from kvstore.client.txn import CreateRevision, Delete, Get, Put, Txn
from kvstore.client.values import (
    RangeResult,
    SortOrder,
    SortTarget,
    TxnResult,
    WatchFilter,
)

__all__ = ("DoubleBarrierRecipe",)


class DoubleBarrierRecipe(HolderRecipe):
    """Keys: NAME/ready and NAME/inside/LEASE with the identifier as value."""

    kind = "double barrier"

    def __init__(
        self,
        name: Key,
        clock: Clock,
        *,
        count: int,
        ttl: int,
        lease: HeldLease | None = None,
        identifier: Key = b"",
    ) -> None:
        super().__init__(name, clock, ttl=ttl, lease=lease, identifier=identifier)
        if count < 1:
            raise ValueError(f"{self._what}: count must be 1 or more, not {count}")
        self.count = count
        self._ready = line_prefix(self.name) + b"ready"
        self._inside = line_prefix(self.name) + b"inside"
        self._round = 0

    def contenders(self) -> Program[tuple[Contender, ...]]:
        """Everyone who entered, or waits for enough others."""
        return contenders(line_prefix(self._inside))

    def begin(self, timeout: float | None = None) -> Program[None]:
        """Wait until `count` participants are here; raises LockTimeoutError."""
        yield from self.enter(self._take, timeout)

    def end(self, timeout: float | None = None) -> Program[None]:
        """Wait until all participants of this round end; raises LockTimeoutError.

        Whatever happens, we are out of the round afterwards.
        """
        self.check()
        limits = Limits(deadline_of(self._clock(), timeout), (LeaseStop(self.lease),))
        try:
            yield from ensuring(within(self._end(), limits), self.leave)
        except LockTimeoutError as error:
            raise LockTimeoutError(
                f"{self._what}: others had not ended within {timeout:g} s", outcome=error.outcome
            ) from error

    # Going in.

    def _take(self, lease_id: int) -> Program[Claim]:
        key = queue_key(self._inside, lease_id)
        place = yield from self._step_in(key, lease_id)
        while True:
            txn = Txn().then(
                Get(self._ready), Get(key), Get(line_prefix(self._inside), prefix=True)
            )
            answer: TxnResult = yield txn.build()
            match answer.responses:
                case (RangeResult() as ready, RangeResult() as own, RangeResult() as inside):
                    pass
                case _:
                    raise strange_answer()
            if own.first is None or own.first.create_revision != place.token:
                raise LeaseLostError(f"{self._what}: lease {lease_id:x} ended at the barrier")
            if ready.first is not None:
                self._round = ready.first.create_revision
                return place
            if len(inside) >= self.count:
                yield from self._open(place)
                continue
            try:
                yield WaitChange(
                    self._ready, answer.header.revision + 1, filters=(WatchFilter.NO_DELETE,)
                )
            except LockTimeoutError as error:
                raise LockTimeoutError(
                    f"{len(inside)} of {self.count} participants are here", outcome=error.outcome
                ) from error

    def _step_in(self, key: bytes, lease_id: int) -> Program[Claim]:
        """Put our key where no round is under way, else wait for the round's end."""
        inside = line_prefix(self._inside)
        oldest = Get(
            inside,
            prefix=True,
            sort_target=SortTarget.CREATE,
            sort_order=SortOrder.ASCEND,
            limit=1,
        )
        put = Txn().when(CreateRevision(key) == 0).then(Put(key, self.identifier, lease=lease_id))
        stale = Txn().when(CreateRevision(inside, prefix=True) == 0).then(Delete(self._ready))
        txn = (
            Txn()
            .when(CreateRevision(self._ready) == 0)
            .then(put, Get(key))
            .otherwise(oldest, stale)
        )
        while True:
            answer: TxnResult = yield txn.build()._replace(effect=Effect.REPEATABLE)
            match answer.responses:
                case (TxnResult(), RangeResult(kvs=(own,))) if answer.succeeded:
                    revision = answer.header.revision
                    return Claim(key, own.create_revision, lease_id, False, revision)
                case (RangeResult() as first, TxnResult()) if not answer.succeeded:
                    if first.first is not None:
                        yield WaitDeleted(first.first.key, answer.header.revision + 1)
                case _:
                    raise strange_answer()

    def _open(self, place: Claim) -> Program[None]:
        """Begin the round, unless somebody else has done so, or we are gone."""
        txn = (
            Txn()
            .when(CreateRevision(self._ready) == 0, CreateRevision(place.key) == place.token)
            .then(Put(self._ready, b"%d" % self.count))
        )
        yield txn.build()._replace(effect=Effect.REPEATABLE)

    # Going out: the oldest stays to the last, so that it can delete `ready`.

    def _end(self) -> Program[None]:
        place = self.claim
        while True:
            found: RangeResult = yield operations.range(
                line_prefix(self._inside),
                prefix=True,
                sort_target=SortTarget.CREATE,
                sort_order=SortOrder.ASCEND,
                max_create_revision=self._round,
            )
            keys = [kv.key for kv in found]
            revision = found.header.revision + 1
            if not keys:
                return
            if keys == [place.key]:
                yield from self._close(place)
                return
            if keys[0] == place.key:
                yield WaitDeleted(keys[-1], revision)
            elif place.key in keys:
                yield from resign(place)
            else:
                yield WaitDeleted(keys[0], revision)

    def _close(self, place: Claim) -> Program[None]:
        remove = Txn().when(CreateRevision(self._ready) == self._round).then(Delete(self._ready))
        txn = Txn().when(CreateRevision(place.key) == place.token).then(Delete(place.key), remove)
        yield txn.build()._replace(effect=Effect.REPEATABLE)

    def abandon(self, lease_id: int) -> Program[None]:
        call = operations.delete(queue_key(self._inside, lease_id))
        yield call._replace(effect=Effect.REPEATABLE)
