"""A watch for threads: one reader thread per watch, a bounded buffer, an iterator in front."""

from __future__ import annotations

import queue
import sys
import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from kvstore.client.call import Effect
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import (
    ClientClosedError,
    DeadlineError,
    KvError,
    UnavailableError,
    WatchCanceled,
)
from kvstore.client.limits import WATCH_BACKOFF_MAX_S, WATCH_BUFFER
from kvstore.client.retry import backoff_s
from kvstore.client.streams import Stream
from kvstore.client.values import Event, WatchResponse
from kvstore.client.watching import WatchCursor
from kvstore.errors import Code
from kvstore.pb import rpc_pb2 as pb

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = ("Watch",)


class Watch:
    """Iterates over WatchResponses; goes on by itself after a lost connection or member.

    The reader thread runs until `cancel` (or the client's `close`), so use it in a `with`, or
    cancel it.
    """

    def __init__(
        self, client: Client, create: pb.WatchCreateRequest, *, require_leader: bool
    ) -> None:
        self._client = client
        self._require_leader = require_leader
        self._cursor = WatchCursor(create, require_leader=require_leader)
        self._ready: deque[WatchResponse] = deque()
        self._changed = threading.Condition()
        self._call: Stream | None = None
        self._requests: queue.SimpleQueue[pb.WatchRequest | None] | None = None
        self._established = False
        self._canceled = False
        self._end: KvError | None = None
        self._trouble: KvError | None = None
        self._failures = 0
        if sys.is_finalizing():
            raise ClientClosedError("the interpreter is ending, no thread can watch")
        self._thread = threading.Thread(target=self._run, name="kvstore-watch", daemon=True)
        self._thread.start()

    # For the reader of the watch.

    def __iter__(self) -> Iterator[WatchResponse]:
        return self

    def __next__(self) -> WatchResponse:
        response = self._take(None)
        if response is None:
            raise StopIteration
        return response

    def get(self, timeout: float | None = None) -> WatchResponse | None:
        """The next response; None when `timeout` seconds passed, or the watch was canceled."""
        return self._take(timeout)

    def events(self) -> Iterator[Event]:
        """The events one by one."""
        for response in self:
            yield from response.events

    def cancel(self) -> None:
        """End the watch; iteration stops. May be called from any thread, more than once."""
        if sys.is_finalizing():
            return  # the reader thread is dead, perhaps with a lock in its hands
        with self._changed:
            self._canceled = True
            self._ready.clear()
            call, requests = self._call, self._requests
            self._changed.notify_all()
        if requests is not None:
            requests.put(None)
        if call is not None:
            call.cancel()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._client._forget_watch(self)

    def request_progress(self) -> None:
        """Ask the server how far it has got; the answer is a response without events.

        No answer comes while the watch is still catching up, or while it reconnects.
        """
        with self._changed:
            if self._requests is not None and self._cursor.created:
                progress = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
                self._requests.put(progress)

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    def _wait_established(self, timeout: float | None) -> None:
        """Return once the server has accepted the watch; raises why it did not in time."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._established or self._end or self._canceled, timeout
            )
            if self._established or self._canceled:
                return
            raise self._end or self._trouble or DeadlineError("the watch was not created in time")

    def _take(self, timeout: float | None) -> WatchResponse | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._end or self._canceled, timeout)
            if self._ready:
                response = self._ready.popleft()
                self._changed.notify_all()
                return response
            if self._end is not None and not self._canceled:
                raise self._end
            return None

    # The reader thread.

    def _run(self) -> None:
        try:
            self._read_streams()
        except Exception as error:
            # Whatever went wrong, the reader of the watch must not wait for ever.
            self._end = KvError(f"watch: {error!r}", code=Code.INTERNAL)
        with self._changed:
            self._changed.notify_all()

    def _read_streams(self) -> None:
        rotation = self._client._rotation
        while not self._canceled:
            endpoint = rotation.current
            error = self._read_stream(endpoint)
            if self._canceled or not self._may_resume(error, len(rotation.all)):
                return
            rotation.failed(endpoint)
            self._pause(len(rotation.all))

    def _may_resume(self, error: KvError, endpoints: int) -> bool:
        self._trouble = error
        final = self._cursor.stream_failed(error, endpoints)
        if final is not None and self._client._wants_token(error):
            final = self._renew_token()
        if final is None and self._client.closed:
            final = WatchCanceled("the client was closed")
        if final is None:
            return True
        with self._changed:
            self._end = final
        return False

    def _renew_token(self) -> KvError | None:
        try:
            self._client._authenticate()
        except KvError as error:
            return self._cursor.stream_failed(error, 1)
        return None

    def _pause(self, endpoints: int) -> None:
        self._failures += 1
        if self._failures % endpoints == 0:
            rounds = self._failures // endpoints
            pause = backoff_s(rounds, self._client._random, WATCH_BACKOFF_MAX_S)
            with self._changed:
                self._changed.wait_for(lambda: self._canceled, pause)

    def _read_stream(self, endpoint: Endpoint) -> KvError:
        """Read one stream to its end; returns what ended it."""
        requests: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        requests.put(self._cursor.open_request())
        call: Stream | None = None
        try:
            metadata = self._client._stream_metadata(self._require_leader)
            open_stream = self._client._watch_stream(endpoint)
            call = Stream(open_stream(iter(requests.get, None), metadata=metadata))
            with self._changed:
                self._call, self._requests = call, requests
                if self._canceled:
                    call.cancel()
            for message in call:
                self._accept(self._cursor.feed(message))
        except grpc.RpcError as failure:
            return self._client._failure(failure, endpoint, Effect.READ)
        except KvError as error:
            return error
        except ValueError as closed:  # what grpcio raises on a channel closed meanwhile
            return UnavailableError(str(closed))
        finally:
            with self._changed:
                self._call = self._requests = None
            requests.put(None)
            if call is not None:
                call.cancel()
        return UnavailableError("the server closed the watch stream", endpoint=endpoint.text)

    def _accept(self, response: WatchResponse | None) -> None:
        with self._changed:
            if self._cursor.created:
                self._failures = 0
                if not self._established:
                    self._established = True
                    self._changed.notify_all()
            if response is None:
                return
            self._changed.wait_for(lambda: len(self._ready) < WATCH_BUFFER or self._canceled)
            if not self._canceled:
                self._ready.append(response)
                self._changed.notify_all()
