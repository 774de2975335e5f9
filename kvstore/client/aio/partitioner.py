"""A partitioner for asyncio: the recipe, and a tree cache that shows it the members."""

# ruff: noqa: ASYNC109 - a timeout argument is the shape that both clients share

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvstore.client.aio.face import Holder, awaited
from kvstore.client.aio.tree import AsyncTreeCache
from kvstore.client.keys import Key
from kvstore.client.recipes.line import line_prefix
from kvstore.client.recipes.partitioner import PartitionerRecipe, PartitionState
from kvstore.client.txn import Compare

if TYPE_CHECKING:
    from kvstore.client.aio.client import AsyncClient

__all__ = ("AsyncPartitioner",)


class AsyncPartitioner(Holder[PartitionerRecipe]):
    """A share of a set of items; as a context manager it joins and leaves.

    See `Client.partitioner`.
    """

    acquire = awaited(PartitionerRecipe.acquire)
    release = awaited(PartitionerRecipe.release)
    wait_change = awaited(PartitionerRecipe.wait_change)
    members = awaited(PartitionerRecipe.members)

    def __init__(self, client: AsyncClient, recipe: PartitionerRecipe) -> None:
        super().__init__(client, recipe)
        self._members: AsyncTreeCache | None = None

    async def join(self, timeout: float | None = None) -> None:
        """Become a member; `acquire` then gets a share."""
        await self._forget_members()
        await self._client._run(self._recipe.join(timeout))
        members = AsyncTreeCache(self._client, line_prefix(self._recipe.members_name))
        members.listen(lambda _event: self._see(members))
        try:
            self._members = await members.start()
        except BaseException:
            await self._client._run(self._recipe.part())
            raise

    async def leave(self) -> None:
        """Give everything up and be a member no longer."""
        await self._forget_members()
        await self._client._run(self._recipe.part())

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

    def _see(self, members: AsyncTreeCache) -> None:
        self._recipe.see([kv.key for kv in members.items()], members.revision)

    async def _forget_members(self) -> None:
        members, self._members = self._members, None
        if members is not None:
            await members.close()

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.leave()
