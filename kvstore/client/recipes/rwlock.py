"""A lock for many readers or one writer, in the order of arrival: nobody starves.

A reader waits for the writers who came before, a writer for everyone who came before. So a reader
behind a waiting writer waits, although other readers are inside.
"""

from __future__ import annotations

from kvstore.client import operations
from kvstore.client.call import Effect
from kvstore.client.recipes.line import Claim, line_prefix, take_place, wait_turn
from kvstore.client.recipes.lock import ExclusiveRecipe
from kvstore.client.recipes.steps import Program

__all__ = ("ReadLockRecipe", "WriteLockRecipe")


class _SideRecipe(ExclusiveRecipe):
    """Keys: NAME/read/LEASE and NAME/write/LEASE with the identifier as value."""

    side = b""
    behind = b""
    """Below the name: whom this side waits for."""

    def _key(self, lease_id: int) -> bytes:
        return line_prefix(self.name) + b"%s/%x" % (self.side, lease_id)

    def _take(self, lease_id: int, *, wait: bool) -> Program[Claim | None]:
        behind = line_prefix(self.name) + self.behind
        place = yield from take_place(self._key(lease_id), behind, lease_id, self.identifier)
        if place.owned:
            return place
        return (yield from wait_turn(behind, place)) if wait else None

    def abandon(self, lease_id: int) -> Program[None]:
        yield operations.delete(self._key(lease_id))._replace(effect=Effect.REPEATABLE)


class ReadLockRecipe(_SideRecipe):
    """Shared with other readers."""

    kind = "read lock"
    side, behind = b"read", b"write/"


class WriteLockRecipe(_SideRecipe):
    """Shared with nobody."""

    kind = "write lock"
    side, behind = b"write", b""
