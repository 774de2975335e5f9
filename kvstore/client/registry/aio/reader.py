"""Reads one watch of the registry, stream after stream, in a task of its own."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from kvstore.client.call import Effect
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import ClientClosedError, KvError, UnavailableError
from kvstore.client.limits import WATCH_BACKOFF_MAX_S
from kvstore.client.registry import operations
from kvstore.client.registry.answers import Update
from kvstore.client.registry.limits import ACK_TIMEOUT_S
from kvstore.client.registry.stream import Cursor, watch_stream
from kvstore.client.retry import backoff_s
from kvstore.errors import Code

if TYPE_CHECKING:
    from kvstore.client.aio.client import AsyncClient

__all__ = ("AsyncReader", "AsyncSink")

logger = logging.getLogger("kvstore.client")


class AsyncSink(Protocol):
    """Who uses what a reader reads; called in the reader's task."""

    async def apply(self, update: Update) -> None:
        """Take this update in; once it returns, the update is acknowledged."""

    def lost(self, error: KvError, refused: bool) -> bool:
        """The stream has ended; the answer says whether to go on with another one.

        `refused`: the server did not want this request, the next one will fare no better.
        """


class AsyncReader:
    """One watch; runs from `start` to `stop`, or until its sink does not want to go on."""

    def __init__(self, client: AsyncClient, cursor: Cursor, sink: AsyncSink) -> None:
        self._client = client
        self._cursor = cursor
        self._sink = sink
        self._failures = 0
        self._stopped = False
        self._acks = _Acks(client, cursor)
        self._task: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        return self._task is not None

    def start(self) -> None:
        """Begin to read."""
        self._task = self._client._spawn(self._run(), "kvstore-registry-watch")

    def stop(self) -> None:
        """End; `join` waits until the task has."""
        self._stopped = True
        self._acks.stop()
        if self._task is not None:
            self._task.cancel()

    async def join(self) -> None:
        """Return when the task has ended."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        rotation = self._client._rotation
        while not self._stopped:
            endpoint = rotation.current
            error = await self._read_stream(endpoint)
            if self._stopped:
                return
            if self._client._wants_token(error):
                error = await self._renew_token() or error
            endpoints = len(rotation.all)
            refused = not self._cursor.failed(error, endpoints)
            logger.debug("registry watch of %s: %s", self._cursor.service, error)
            if not self._sink.lost(error, refused) or self._client.closed:
                return
            rotation.failed(endpoint)
            self._failures += 1
            if self._failures % endpoints == 0:
                rounds = self._failures // endpoints
                pause = backoff_s(rounds, self._client._random, WATCH_BACKOFF_MAX_S)
                await asyncio.sleep(pause)

    async def _renew_token(self) -> KvError | None:
        try:
            await self._client._authenticate()
        except KvError as error:
            return error
        return UnavailableError("the token was renewed")

    async def _read_stream(self, endpoint: Endpoint) -> KvError:
        """Read one stream to its end; returns what ended it."""
        call: Any = None
        try:
            stream = watch_stream(self._client._channel(endpoint))
            call = stream(self._cursor.request(), metadata=self._client._metadata)
            async for message in call:
                update = self._cursor.feed(message, endpoint.text)
                self._failures = 0
                await self._sink.apply(update)
                self._acks.applied(update)
        except grpc.RpcError as failure:
            return self._client._failure(failure, endpoint, Effect.READ)
        except KvError as error:
            return error
        except (asyncio.InvalidStateError, grpc.aio.UsageError):
            # What grpc.aio raises on a channel that was closed meanwhile.
            return ClientClosedError("the client was closed")
        except Exception as error:
            # A task must not end in silence: who waits for it would wait for ever.
            logger.exception("registry watch of %s failed", self._cursor.service)
            return KvError(f"registry watch: {error!r}", code=Code.INTERNAL)
        finally:
            if call is not None:
                call.cancel()
        return UnavailableError("the server closed the registry watch", endpoint=endpoint.text)


class _Acks:
    """Acknowledgements: one under way at a time, then the newest; none is waited for."""

    def __init__(self, client: AsyncClient, cursor: Cursor) -> None:
        self._client = client
        self._cursor = cursor
        self._task: asyncio.Task[None] | None = None
        self._next: Update | None = None

    def applied(self, update: Update) -> None:
        """Everything of `update` is applied."""
        if not self._cursor.subscriber:
            return
        self._next = update
        if self._task is None or self._task.done():
            self._task = self._client._spawn(self._send(), "kvstore-registry-ack")

    def stop(self) -> None:
        """Send nothing any more."""
        if self._task is not None:
            self._task.cancel()

    async def _send(self) -> None:
        cursor = self._cursor
        while (update := self._next) is not None:
            self._next = None
            call = operations.ack(
                cursor.subscriber,
                cursor.service,
                update.revision,
                namespace=cursor.namespace,
                timeout=ACK_TIMEOUT_S,
                # To the member that told it: each one knows only its own subscribers.
                endpoint=update.endpoint,
            )
            try:
                await self._client.call(call)
            except KvError as error:
                # The stream will end as well; the next one begins with what is not acknowledged.
                logger.debug("acknowledgement failed: %s", error)
