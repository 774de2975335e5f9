"""A recipe as an object for asyncio: its programs as methods that are awaited."""

# ruff: noqa: ASYNC109 - a timeout argument is the shape that both clients share

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast

from kvstore.client.aio.lease import AsyncLease
from kvstore.client.methods import adopt
from kvstore.client.recipes.holder import HolderRecipe
from kvstore.client.recipes.lock import ExclusiveRecipe
from kvstore.client.recipes.steps import Program
from kvstore.client.txn import Compare

if TYPE_CHECKING:
    from kvstore.client.aio.client import AsyncClient

__all__ = ("Exclusive", "Face", "Holder", "awaited")

P = ParamSpec("P")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)
H_co = TypeVar("H_co", bound=HolderRecipe, covariant=True)
E_co = TypeVar("E_co", bound=ExclusiveRecipe, covariant=True)


class Face(Generic[R_co]):
    """A recipe and the client that carries its programs out."""

    def __init__(self, client: AsyncClient, recipe: R_co) -> None:
        self._client = client
        self._recipe = recipe


def awaited(
    build: Callable[Concatenate[R_co, P], Program[T]],
) -> Callable[Concatenate[Face[R_co], P], Coroutine[Any, Any, T]]:
    """The program `build` of a recipe, or a subclass's of that name, as a method of its face."""
    name = build.__name__

    async def method(self: Face[R_co], /, *args: P.args, **kwargs: P.kwargs) -> T:
        program: Program[T] = getattr(self._recipe, name)(*args, **kwargs)
        return await self._client._run(program)

    adopt(method, build)
    return method


class Holder(Face[H_co]):
    """What is held on a lease: token, guard, loss."""

    contenders = awaited(HolderRecipe.contenders)

    @property
    def name(self) -> bytes:
        return self._recipe.name

    @property
    def key(self) -> bytes:
        """The key that stands for our place."""
        return self._recipe.claim.key

    @property
    def fencing_token(self) -> int:
        """The create revision of our key: larger for every later owner."""
        return self._recipe.claim.token

    @property
    def token(self) -> int:
        """Short for `fencing_token`."""
        return self._recipe.claim.token

    @property
    def lease(self) -> AsyncLease:
        """The lease that holds the place."""
        return cast("AsyncLease", self._recipe.lease)

    @property
    def lost(self) -> bool:
        """The lease behind the place ended; somebody else may own it now."""
        return self._recipe.lost

    @property
    def held(self) -> bool:
        return self._recipe.held

    def guard(self) -> list[Compare]:
        """Conditions for `Txn.when`: we still hold the place."""
        return self._recipe.guard()

    def check(self) -> None:
        """Raises LeaseLostError if the lease has ended, KvError if nothing was held.

        Asks nobody; only `guard()` in a transaction decides beyond doubt.
        """
        self._recipe.check()

    def cancel(self) -> None:
        """End a wait that is under way in another task: it raises LockCanceledError."""
        self._recipe.cancel()


class Exclusive(Holder[E_co]):
    """What is acquired and released; as a context manager it does both.

    `async with await lock.acquire(timeout=5)` does not acquire twice: entering in the task that
    has just acquired only sees to the release.
    """

    _acquirer: asyncio.Task[Any] | None = None

    release = awaited(ExclusiveRecipe.release)

    async def acquire(self, timeout: float | None = None) -> Self:
        """Wait until it is ours; raises LockTimeoutError after `timeout` seconds."""
        await self._client._run(self._recipe.acquire(timeout))
        self._acquirer = asyncio.current_task()
        return self

    async def try_acquire(self) -> bool:
        """Take it if that needs no waiting; says whether it is ours."""
        acquired = await self._client._run(self._recipe.try_acquire())
        if acquired:
            self._acquirer = asyncio.current_task()
        return acquired

    async def __aenter__(self) -> Self:
        if not self.held or self._acquirer != asyncio.current_task():
            await self.acquire()
        self._acquirer = None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.release()
