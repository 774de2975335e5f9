"""A watch for asyncio: one reader task per watch, a bounded buffer, an async iterator in front."""

# ruff: noqa: ASYNC109 - a timeout argument is the shape that both clients share

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from kvstore.client.aio.signal import Signal
from kvstore.client.call import Effect
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import DeadlineError, KvError, UnavailableError, WatchCanceled
from kvstore.client.limits import WATCH_BACKOFF_MAX_S, WATCH_BUFFER
from kvstore.client.retry import backoff_s
from kvstore.client.values import Event, WatchResponse
from kvstore.client.watching import WatchCursor
from kvstore.errors import Code
from kvstore.pb import rpc_pb2 as pb

if TYPE_CHECKING:
    from kvstore.client.aio.client import AsyncClient

__all__ = ("AsyncWatch",)


class AsyncWatch:
    """Iterates over WatchResponses; goes on by itself after a lost connection or member.

    Begins when it is awaited, entered with `async with`, or first read:

        async with client.watch("k") as watch:
            async for response in watch: ...

    Awaiting and entering return once the server has accepted the watch. The reader task runs
    until `cancel` (or the client's `close`). A read may be canceled without losing anything.
    """

    def __init__(
        self,
        client: AsyncClient,
        create: pb.WatchCreateRequest,
        *,
        require_leader: bool,
        timeout: float | None,
    ) -> None:
        self._client = client
        self._require_leader = require_leader
        self._timeout_s = timeout
        self._cursor = WatchCursor(create, require_leader=require_leader)
        self._ready: deque[WatchResponse] = deque()
        self._changed = Signal()
        self._call: Any = None
        self._established = False
        self._canceled = False
        self._end: KvError | None = None
        self._trouble: KvError | None = None
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    # For the reader of the watch.

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

    def __aiter__(self) -> AsyncIterator[WatchResponse]:
        return self

    async def __anext__(self) -> WatchResponse:
        response = await self.get()
        if response is None:
            raise StopAsyncIteration
        return response

    async def get(self, timeout: float | None = None) -> WatchResponse | None:
        """The next response; None when `timeout` seconds passed, or the watch was canceled."""
        self._begin()
        if not self._ready:
            await self._changed.wait_for(
                lambda: self._ready or self._end or self._canceled, timeout
            )
        if self._ready:
            response = self._ready.popleft()
            if len(self._ready) == WATCH_BUFFER - 1:
                self._changed.fire()
            return response
        if self._end is not None and not self._canceled:
            raise self._end
        return None

    async def events(self) -> AsyncIterator[Event]:
        """The events one by one."""
        async for response in self:
            for event in response.events:
                yield event

    async def cancel(self) -> None:
        """End the watch; iteration stops. May be called more than once."""
        self._stop()
        if self._task is not None:
            await asyncio.wait((self._task,))

    def _stop(self) -> None:
        """`cancel` without waiting until the reader task has ended."""
        self._canceled = True
        self._ready.clear()
        if self._task is not None:
            self._task.cancel()
        self._changed.fire()
        self._client._watches.discard(self)

    async def request_progress(self) -> None:
        """Ask the server how far it has got; the answer is a response without events.

        No answer comes while the watch is still catching up, or while it reconnects.
        """
        call = self._call
        if call is not None and self._cursor.created:
            progress = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
            try:
                await call.write(progress)
            except (grpc.RpcError, asyncio.InvalidStateError):
                return  # the stream has just ended; the reader task sees to that

    @property
    def canceled(self) -> bool:
        return self._canceled

    @property
    def trouble(self) -> KvError | None:
        """Why the watch is not being served just now; None = it is."""
        return self._trouble if self._failures else None

    @property
    def next_revision(self) -> int:
        """First revision not read from the server yet; 0 before a watch from now on began."""
        return self._cursor.next_revision

    def _begin(self) -> None:
        if self._task is None and not self._canceled:
            self._client._check_usable()
            self._client._watches.add(self)
            self._task = self._client._spawn(self._run(), "kvstore-watch")

    async def _start(self) -> Self:
        self._begin()
        try:
            await self._changed.wait_for(
                lambda: self._established or self._end or self._canceled, self._timeout_s
            )
        except asyncio.CancelledError:
            self._stop()
            raise
        if not self._established and not self._canceled:
            self._stop()
            raise self._end or self._trouble or DeadlineError("the watch was not created in time")
        return self

    # The reader task.

    async def _run(self) -> None:
        try:
            await self._read_streams()
        except Exception as error:
            # Whatever went wrong, the reader of the watch must not wait for ever.
            self._end = KvError(f"watch: {error!r}", code=Code.INTERNAL)
        self._changed.fire()

    async def _read_streams(self) -> None:
        rotation = self._client._rotation
        while not self._canceled:
            endpoint = rotation.current
            error = await self._read_stream(endpoint)
            if not await self._may_resume(error, len(rotation.all)):
                return
            rotation.failed(endpoint)
            await self._pause(len(rotation.all))

    async def _may_resume(self, error: KvError, endpoints: int) -> bool:
        self._trouble = error
        final = self._cursor.stream_failed(error, endpoints)
        if final is not None and self._client._wants_token(error):
            final = await self._renew_token()
        if final is None and self._client.closed:
            final = WatchCanceled("the client was closed")
        self._end = final
        return final is None

    async def _renew_token(self) -> KvError | None:
        try:
            await self._client._authenticate()
        except KvError as error:
            return self._cursor.stream_failed(error, 1)
        return None

    async def _pause(self, endpoints: int) -> None:
        self._failures += 1
        if self._failures % endpoints == 0:
            rounds = self._failures // endpoints
            await asyncio.sleep(backoff_s(rounds, self._client._random, WATCH_BACKOFF_MAX_S))

    async def _read_stream(self, endpoint: Endpoint) -> KvError:
        """Read one stream to its end; returns what ended it."""
        call: Any = None
        try:
            metadata = self._client._stream_metadata(self._require_leader)
            call = self._client._watch_stream(endpoint)(metadata=metadata)
            await call.write(self._cursor.open_request())
            self._call = call
            async for message in call:
                await self._accept(self._cursor.feed(message))
        except grpc.RpcError as failure:
            return self._client._failure(failure, endpoint, Effect.READ)
        except KvError as error:
            return error
        except (asyncio.InvalidStateError, grpc.aio.UsageError) as closed:
            # What grpc.aio raises on a call that ended before the write, or a closed channel.
            return UnavailableError(str(closed))
        finally:
            self._call = None
            if call is not None:
                call.cancel()
        return UnavailableError("the server closed the watch stream", endpoint=endpoint.text)

    async def _accept(self, response: WatchResponse | None) -> None:
        if self._cursor.created:
            self._failures = 0
            if not self._established:
                self._established = True
                self._changed.fire()
        if response is None:
            return
        if len(self._ready) >= WATCH_BUFFER:
            await self._changed.wait_for(lambda: len(self._ready) < WATCH_BUFFER)
        self._ready.append(response)
        self._changed.fire()
