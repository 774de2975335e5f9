"""A barrier: while it stands, everyone waits; when it is removed, everyone goes on."""

from __future__ import annotations

from kvstore.client import operations
from kvstore.client.call import Effect
from kvstore.client.errors import LockTimeoutError
from kvstore.client.keys import Key, to_bytes
from kvstore.client.recipes.holder import Clock
from kvstore.client.recipes.steps import Limits, Program, WaitDeleted, deadline_of, within
from kvstore.client.txn import CreateRevision, Put, Txn
from kvstore.client.values import DeleteResult, RangeResult, TxnResult

__all__ = ("BarrierRecipe",)


class BarrierRecipe:
    """Key: NAME. It hangs on no lease: it stands until it is removed."""

    def __init__(self, name: Key, clock: Clock) -> None:
        self.name = to_bytes(name)
        self._clock = clock

    def create(self) -> Program[bool]:
        """Put the barrier up; False if it stands already."""
        txn = Txn().when(CreateRevision(self.name) == 0).then(Put(self.name))
        answer: TxnResult = yield txn.build()._replace(effect=Effect.REPEATABLE)
        return answer.succeeded

    def remove(self) -> Program[bool]:
        """Let everyone go on; False if it does not stand."""
        call = operations.delete(self.name)._replace(effect=Effect.REPEATABLE)
        answer: DeleteResult = yield call
        return answer.deleted > 0

    def wait(self, timeout: float | None = None) -> Program[bool]:
        """Wait until it is removed; False when `timeout` seconds passed before."""
        limits = Limits(deadline_of(self._clock(), timeout))
        try:
            yield from within(self._wait(), limits)
        except LockTimeoutError:
            return False
        return True

    def _wait(self) -> Program[None]:
        while True:
            found: RangeResult = yield operations.range(self.name)
            if found.first is None:
                return
            yield WaitDeleted(self.name, found.header.revision + 1)
