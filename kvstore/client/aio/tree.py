"""A local copy of a prefix for asyncio: one task reads, watches, and tells listeners."""

# ruff: noqa: ASYNC109 - a timeout argument is the shape that both clients share

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvstore.client.aio.signal import Signal
from kvstore.client.aio.watch import AsyncWatch
from kvstore.client.errors import ClientClosedError, CompactedError, KvError
from kvstore.client.keys import Key
from kvstore.client.limits import WATCH_BACKOFF_MAX_S
from kvstore.client.recipes.tree import Tree, TreeEvent, read_tree
from kvstore.client.retry import backoff_s
from kvstore.client.values import KeyValue

if TYPE_CHECKING:
    from kvstore.client.aio.client import AsyncClient

__all__ = ("AsyncTreeCache",)

logger = logging.getLogger("kvstore.client")


class AsyncTreeCache:
    """Everything under a prefix, kept up to date; see `Client.tree_cache`.

    Reading asks nobody and never fails; while the cluster is away it shows what was known last.
    """

    def __init__(self, client: AsyncClient, prefix: Key) -> None:
        self._client = client
        self._tree = Tree(prefix)
        self._listeners: list[Callable[[TreeEvent], None]] = []
        self._changed = Signal()
        self._watch: AsyncWatch | None = None
        self._problem: KvError | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Self:
        """Read everything, then follow it in a task; raises what the reading raises."""
        if self._task is None:
            await self._read()
            self._client._closing_bell.subscribe(self._stop)
            self._task = self._client._spawn(self._run(), "kvstore-tree")
        return self

    async def close(self) -> None:
        """Follow it no longer; what is known stays readable."""
        self._stop()
        self._client._closing_bell.unsubscribe(self._stop)
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait((self._task,))

    def listen(self, listener: Callable[[TreeEvent], None]) -> None:
        """Call `listener` with every change from now on, in the cache's task, so briefly.

        Given before `start`, it is told what is there already.
        """
        self._listeners.append(listener)

    async def wait_for(
        self, condition: Callable[[AsyncTreeCache], object], timeout: float | None = None
    ) -> bool:
        """Wait until `condition(cache)` is true; False when `timeout` seconds passed before."""
        return await self._changed.wait_for(lambda: condition(self), timeout)

    @property
    def prefix(self) -> bytes:
        return self._tree.prefix

    @property
    def revision(self) -> int:
        """The revision of the store that the copy shows at least."""
        return self._tree.revision

    @property
    def problem(self) -> KvError | None:
        """Why the copy may be behind; None = it is followed."""
        watch = self._watch
        return self._problem or (watch.trouble if watch is not None else None)

    def get(self, key: Key) -> KeyValue | None:
        """The key as the copy has it."""
        return self._tree.get(key)

    def items(self) -> tuple[KeyValue, ...]:
        """Everything, in the order of the keys."""
        return self._tree.items()

    def children(self, path: Key) -> tuple[bytes, ...]:
        """The names one level below `path`, as if keys were paths with slashes."""
        return self._tree.children(path)

    def __len__(self) -> int:
        return len(self._tree)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # Inside.

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _read(self) -> None:
        kvs, revision = await self._client._run(read_tree(self.prefix))
        self._tell(self._tree.load(kvs, revision))

    async def _run(self) -> None:
        failures, behind = 0, False
        while True:
            try:
                if behind:
                    await self._read()
                    behind = False
                await self._follow()
            except ClientClosedError as error:
                self._problem = error
                return
            except CompactedError:
                behind = True
            except KvError as error:
                self._problem = error
                failures += 1
                logger.warning("tree cache %r: %s; trying again", self.prefix, error)
                pause = backoff_s(failures, self._client._random, WATCH_BACKOFF_MAX_S)
                await asyncio.sleep(pause)

    async def _follow(self) -> None:
        """Apply what happens until canceled; raises when it must be read anew."""
        async with self._client.watch(
            self.prefix, prefix=True, start_revision=self.revision + 1
        ) as watch:
            self._watch, self._problem = watch, None
            try:
                async for response in watch:
                    self._tell(self._tree.apply(response.events, response.revision))
            finally:
                self._watch = None
        # Only the client's end cancels the watch without canceling us.
        raise ClientClosedError("the client was closed")

    def _tell(self, events: list[TreeEvent]) -> None:
        for event in events:
            for listener in list(self._listeners):
                try:
                    listener(event)
                except Exception:
                    logger.exception("a listener of the tree cache %r failed", self.prefix)
        self._changed.fire()
