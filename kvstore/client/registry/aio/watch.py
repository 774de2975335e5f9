"""A watch of the registry for asyncio: an async iterator of updates over a bounded buffer."""

# ruff: noqa: ASYNC109 - a timeout argument is the shape that both clients share

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kvstore.client.aio.signal import Signal
from kvstore.client.errors import DeadlineError, KvError
from kvstore.client.registry.aio.reader import AsyncReader
from kvstore.client.registry.answers import Update
from kvstore.client.registry.limits import WATCH_BUFFER
from kvstore.client.registry.stream import Cursor

if TYPE_CHECKING:
    from kvstore.client.aio.client import AsyncClient

__all__ = ("AsyncRegistryWatch",)


class AsyncRegistryWatch:
    """Iterates over `Update`s; goes on by itself after a lost connection or member.

    The first one, and one after a gap, is a snapshot that replaces whatever was known. Raises what
    the server refused it with. Begins when it is awaited, entered with `async with`, or first
    read; runs until `cancel` (or the client's `close`).
    """

    def __init__(self, client: AsyncClient, cursor: Cursor, timeout: float | None) -> None:
        self._client = client
        self._timeout_s = timeout
        self._ready: deque[Update] = deque()
        self._changed = Signal()
        self._canceled = False
        self._established = False
        self._end: KvError | None = None
        self._trouble: KvError | None = None
        self._reader = AsyncReader(client, cursor, self)

    def __await__(self) -> Generator[Any, None, Self]:
        return self._start().__await__()

    async def __aenter__(self) -> Self:
        return await self._start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.cancel()

    def __aiter__(self) -> AsyncIterator[Update]:
        return self

    async def __anext__(self) -> Update:
        update = await self.get()
        if update is None:
            raise StopAsyncIteration
        return update

    async def get(self, timeout: float | None = None) -> Update | None:
        """The next update; None when `timeout` seconds passed, or the watch was canceled."""
        self._begin()
        await self._changed.wait_for(lambda: self._ready or self._end or self._canceled, timeout)
        if self._ready:
            update = self._ready.popleft()
            self._changed.fire()
            return update
        if self._end is not None and not self._canceled:
            raise self._end
        return None

    async def cancel(self) -> None:
        """End the watch; iteration stops. May be called more than once."""
        self._stop()
        await self._reader.join()

    def _stop(self) -> None:
        self._canceled = True
        self._ready.clear()
        self._reader.stop()
        self._changed.fire()
        self._client.registry._forget(self)

    def _begin(self) -> None:
        if not self._reader.started and not self._canceled:
            self._client._check_usable()
            self._client.registry._add(self)
            self._reader.start()

    async def _start(self) -> Self:
        self._begin()
        try:
            await self._changed.wait_for(
                lambda: self._established or self._end or self._canceled, self._timeout_s
            )
        except BaseException:
            self._stop()
            raise
        if not self._established and not self._canceled:
            self._stop()
            raise self._end or self._trouble or DeadlineError("no answer to the watch in time")
        return self

    # What the reader calls.

    async def apply(self, update: Update) -> None:
        await self._changed.wait_for(lambda: len(self._ready) < WATCH_BUFFER)
        self._established = True
        self._ready.append(update)
        self._changed.fire()

    def lost(self, error: KvError, refused: bool) -> bool:
        self._trouble = error
        if refused or self._client.closed:
            self._end = error
            self._changed.fire()
        return not refused
