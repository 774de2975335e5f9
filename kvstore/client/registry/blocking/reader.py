"""Reads one watch of the registry, stream after stream, in a thread of its own."""

from __future__ import annotations

import logging
import sys
import threading
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
from kvstore.client.streams import Stream
from kvstore.errors import Code

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = ("Reader", "Sink")

logger = logging.getLogger("kvstore.client")


class Sink(Protocol):
    """Who uses what a reader reads; called in the reader's thread."""

    def apply(self, update: Update) -> None:
        """Take this update in; once it returns, the update is acknowledged."""

    def lost(self, error: KvError, refused: bool) -> bool:
        """The stream has ended; the answer says whether to go on with another one.

        `refused`: the server did not want this request, the next one will fare no better.
        """


class Reader:
    """One watch; runs from `start` to `stop`, or until its sink does not want to go on."""

    def __init__(self, client: Client, cursor: Cursor, sink: Sink) -> None:
        self._client = client
        self._cursor = cursor
        self._sink = sink
        self._call: Stream | None = None
        self._failures = 0
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._acks = _Acks(client, cursor)
        self._thread = threading.Thread(
            target=self._run, name="kvstore-registry-watch", daemon=True
        )

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End, and return when the thread has; from any thread, more than once."""
        if sys.is_finalizing():
            return  # it is dead, perhaps with a lock in its hands
        with self._lock:
            self._stopped.set()
            call = self._call
        if call is not None:
            call.cancel()
        if threading.current_thread() is not self._thread and self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        rotation = self._client._rotation
        while not self._stopped.is_set():
            endpoint = rotation.current
            error = self._read_stream(endpoint)
            if self._stopped.is_set():
                return
            if self._client._wants_token(error):
                error = self._renew_token() or error
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
                self._stopped.wait(pause)

    def _renew_token(self) -> KvError | None:
        try:
            self._client._authenticate()
        except KvError as error:
            return error
        return UnavailableError("the token was renewed")

    def _read_stream(self, endpoint: Endpoint) -> KvError:
        """Read one stream to its end; returns what ended it."""
        call: Stream | None = None
        try:
            stream = watch_stream(self._client._channel(endpoint))
            call = Stream(stream(self._cursor.request(), metadata=self._client._metadata))
            with self._lock:
                self._call = call
            if self._stopped.is_set():
                call.cancel()
            for message in call:
                update = self._cursor.feed(message, endpoint.text)
                self._failures = 0
                self._sink.apply(update)
                self._acks.applied(update)
        except grpc.RpcError as failure:
            return self._client._failure(failure, endpoint, Effect.READ)
        except KvError as error:
            return error
        except ValueError:  # what grpcio raises on a channel that was closed meanwhile
            return ClientClosedError("the client was closed")
        except Exception as error:
            # A thread must not end in silence: who waits for it would wait for ever.
            logger.exception("registry watch of %s failed", self._cursor.service)
            return KvError(f"registry watch: {error!r}", code=Code.INTERNAL)
        finally:
            with self._lock:
                self._call = None
            if call is not None:
                call.cancel()
        return UnavailableError("the server closed the registry watch", endpoint=endpoint.text)


class _Acks:
    """Acknowledgements: one under way at a time, then the newest; none is waited for."""

    def __init__(self, client: Client, cursor: Cursor) -> None:
        self._client = client
        self._cursor = cursor
        self._lock = threading.Lock()
        self._under_way = False
        self._next: Update | None = None

    def applied(self, update: Update) -> None:
        """Everything of `update` is applied."""
        if not self._cursor.subscriber:
            return
        with self._lock:
            self._next = update
            if self._under_way:
                return
            self._under_way = True
        self._send()

    def _send(self) -> None:
        with self._lock:
            update, self._next = self._next, None
            if update is None:
                self._under_way = False
                return
        cursor = self._cursor
        call = operations.ack(
            cursor.subscriber, cursor.service, update.revision, namespace=cursor.namespace
        )
        try:
            # To the member that told it: each one knows only its own subscribers.
            endpoint = self._client._pin(update.endpoint)
            future = self._client._unary(endpoint, call.method).future(
                call.request, timeout=ACK_TIMEOUT_S, metadata=self._client._metadata
            )
        except (KvError, ValueError):  # closed meanwhile
            with self._lock:
                self._under_way = False
            return
        future.add_done_callback(self._answered)

    def _answered(self, future: Any) -> None:
        if not future.cancelled() and future.exception() is not None:
            # The stream will end as well, and the next one begins with what is not acknowledged.
            logger.debug("acknowledgement failed: %s", future.exception())
        self._send()
