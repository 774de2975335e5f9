"""A lock: one holder at a time, first come first served; the same as `etcdctl lock`."""

from __future__ import annotations

from kvstore.client import operations
from kvstore.client.call import Effect
from kvstore.client.recipes.holder import HolderRecipe
from kvstore.client.recipes.line import Claim, claim, enqueue, queue_key
from kvstore.client.recipes.steps import Program

__all__ = ("ExclusiveRecipe", "LockRecipe")


class ExclusiveRecipe(HolderRecipe):
    """What is acquired and released: subclasses say which place that is."""

    def acquire(self, timeout: float | None = None) -> Program[None]:
        """Wait until it is ours; raises LockTimeoutError after `timeout` seconds."""
        yield from self.enter(lambda lease_id: self._take(lease_id, wait=True), timeout)

    def try_acquire(self) -> Program[bool]:
        """Take it if that needs no waiting."""
        return self.enter(lambda lease_id: self._take(lease_id, wait=False), None)

    def release(self) -> Program[None]:
        """Give it back; no effect if it is not held."""
        return self.leave()

    def _take(self, lease_id: int, *, wait: bool) -> Program[Claim | None]:
        """The place of this lease; None = it would have to wait."""
        raise AssertionError(f"{type(self).__name__} says how")
        yield


class LockRecipe(ExclusiveRecipe):
    """Keys: NAME/LEASE with the identifier as value."""

    kind = "lock"

    def _take(self, lease_id: int, *, wait: bool) -> Program[Claim | None]:
        if wait:
            return (yield from claim(self.name, lease_id, self.identifier))
        place = yield from enqueue(self.name, lease_id, self.identifier)
        return place if place.owned else None

    def abandon(self, lease_id: int) -> Program[None]:
        key = queue_key(self.name, lease_id)
        yield operations.delete(key)._replace(effect=Effect.REPEATABLE)
