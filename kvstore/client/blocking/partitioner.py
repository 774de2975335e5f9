"""A partitioner for threads: the recipe, and a tree cache that shows it the members."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvstore.client.blocking.face import Holder, blocking
from kvstore.client.blocking.tree import TreeCache
from kvstore.client.keys import Key
from kvstore.client.recipes.line import line_prefix
from kvstore.client.recipes.partitioner import PartitionerRecipe, PartitionState
from kvstore.client.txn import Compare

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = ("Partitioner",)


class Partitioner(Holder[PartitionerRecipe]):
    """A share of a set of items; as a context manager it joins and leaves.

    See `Client.partitioner`.
    """

    acquire = blocking(PartitionerRecipe.acquire)
    release = blocking(PartitionerRecipe.release)
    wait_change = blocking(PartitionerRecipe.wait_change)
    members = blocking(PartitionerRecipe.members)

    def __init__(self, client: Client, recipe: PartitionerRecipe) -> None:
        super().__init__(client, recipe)
        self._members: TreeCache | None = None

    def join(self, timeout: float | None = None) -> None:
        """Become a member; `acquire` then gets a share."""
        self._forget_members()
        self._client._run(self._recipe.join(timeout))
        members = TreeCache(self._client, line_prefix(self._recipe.members_name))
        members.listen(lambda _event: self._see(members))
        try:
            self._members = members.start()
        except BaseException:
            self._client._run(self._recipe.part())
            raise

    def leave(self) -> None:
        """Give everything up and be a member no longer."""
        self._forget_members()
        self._client._run(self._recipe.part())

    @property
    def state(self) -> PartitionState:
        """What to do next."""
        return self._recipe.state

    @property
    def owned(self) -> frozenset[bytes]:
        """The items that are ours; none once the lease is lost."""
        return self._recipe.owned

    @property
    def leaving(self) -> frozenset[bytes]:
        """Those of them that another member is waiting for."""
        return self._recipe.leaving

    def item_token(self, item: Key) -> int:
        """The fencing token of an item that is ours: larger for every later owner."""
        return self._recipe.item_token(item)

    def item_guard(self, item: Key) -> list[Compare]:
        """Conditions for `Txn.when`: the item is still ours."""
        return self._recipe.item_guard(item)

    def _see(self, members: TreeCache) -> None:
        self._recipe.see([kv.key for kv in members.items()], members.revision)

    def _forget_members(self) -> None:
        members, self._members = self._members, None
        if members is not None:
            members.close()

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
