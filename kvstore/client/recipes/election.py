"""An election: the first of a line of candidates leads; the same as `etcdctl elect`."""

from __future__ import annotations

from kvstore import errors as catalogue
from kvstore.client.errors import ElectionError
from kvstore.client.keys import Key
from kvstore.client.recipes.line import leader, proclaim
from kvstore.client.recipes.lock import LockRecipe
from kvstore.client.recipes.steps import Program
from kvstore.client.values import KeyValue, RangeResult

__all__ = ("LeadershipRecipe", "current_leader")


class LeadershipRecipe(LockRecipe):
    """A candidate, then the leader. Keys: NAME/LEASE with what the candidate proclaims."""

    kind = "leadership"

    def proclaim(self, value: Key) -> Program[int]:
        """Change the leader's value; its revision. Raises ElectionError when we lead no more."""
        self.check()
        return (yield from proclaim(self.claim, value))

    def resign(self) -> Program[None]:
        """Let the next candidate lead; no effect if we do not lead."""
        return self.leave()


def current_leader(name: Key) -> Program[KeyValue]:
    """The leader's key; `create_revision` is its token. Raises ElectionError if nobody is."""
    found: RangeResult = yield leader(name)
    if found.first is None:
        raise ElectionError(catalogue.ELECTION_NO_LEADER.message)
    return found.first
