"""A recipe as an object for threads: its programs as methods that block."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, Self, TypeVar, cast

from kvstore.client.blocking.lease import Lease
from kvstore.client.methods import adopt
from kvstore.client.recipes.holder import HolderRecipe
from kvstore.client.recipes.lock import ExclusiveRecipe
from kvstore.client.recipes.steps import Program
from kvstore.client.txn import Compare

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = ("Exclusive", "Face", "Holder", "blocking")

P = ParamSpec("P")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)
H_co = TypeVar("H_co", bound=HolderRecipe, covariant=True)
E_co = TypeVar("E_co", bound=ExclusiveRecipe, covariant=True)


class Face(Generic[R_co]):
    """A recipe and the client that carries its programs out."""

    def __init__(self, client: Client, recipe: R_co) -> None:
        self._client = client
        self._recipe = recipe


def blocking(
    build: Callable[Concatenate[R_co, P], Program[T]],
) -> Callable[Concatenate[Face[R_co], P], T]:
    """The program `build` of a recipe, or a subclass's of that name, as a method of its face."""
    name = build.__name__

    def method(self: Face[R_co], /, *args: P.args, **kwargs: P.kwargs) -> T:
        program: Program[T] = getattr(self._recipe, name)(*args, **kwargs)
        return self._client._run(program)

    adopt(method, build)
    return method


class Holder(Face[H_co]):
    """What is held on a lease: token, guard, loss."""

    contenders = blocking(HolderRecipe.contenders)

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
    def lease(self) -> Lease:
        """The lease that holds the place."""
        return cast("Lease", self._recipe.lease)

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
        """End a wait that is under way in another thread: it raises LockCanceledError."""
        self._recipe.cancel()


class Exclusive(Holder[E_co]):
    """What is acquired and released; as a context manager it does both.

    `with lock.acquire(timeout=5)` does not acquire twice: entering in the thread that has just
    acquired only sees to the release.
    """

    _acquirer: int | None = None

    release = blocking(ExclusiveRecipe.release)

    def acquire(self, timeout: float | None = None) -> Self:
        """Wait until it is ours; raises LockTimeoutError after `timeout` seconds."""
        self._client._run(self._recipe.acquire(timeout))
        self._acquirer = threading.get_ident()
        return self

    def try_acquire(self) -> bool:
        """Take it if that needs no waiting; says whether it is ours."""
        acquired = self._client._run(self._recipe.try_acquire())
        if acquired:
            self._acquirer = threading.get_ident()
        return acquired

    def __enter__(self) -> Self:
        if not self.held or self._acquirer != threading.get_ident():
            self.acquire()
        self._acquirer = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
