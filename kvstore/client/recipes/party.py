"""A party: who is here now. Members come with a lease and are gone with it."""

from __future__ import annotations

from kvstore.client import operations
from kvstore.client.call import Effect
from kvstore.client.recipes.holder import HolderRecipe
from kvstore.client.recipes.line import (
    Claim,
    Contender,
    contenders,
    line_prefix,
    queue_key,
    take_place,
)
from kvstore.client.recipes.steps import Program

__all__ = ("PartyRecipe",)


class PartyRecipe(HolderRecipe):
    """Keys: NAME/LEASE with the identifier as value."""

    kind = "membership of"

    def join(self, timeout: float | None = None) -> Program[None]:
        """Be a member from now on; no effect if we are. After a lost lease it joins anew."""
        if not self.held:
            yield from self.enter(self._take, timeout)

    def part(self) -> Program[None]:
        """Be a member no longer; no effect if we are none."""
        return self.leave()

    def members(self) -> Program[tuple[Contender, ...]]:
        """Everyone who is here, in order of arrival."""
        return contenders(line_prefix(self.name))

    def _take(self, lease_id: int) -> Program[Claim]:
        key = queue_key(self.name, lease_id)
        return (yield from take_place(key, key, lease_id, self.identifier))

    def abandon(self, lease_id: int) -> Program[None]:
        call = operations.delete(queue_key(self.name, lease_id))
        yield call._replace(effect=Effect.REPEATABLE)
