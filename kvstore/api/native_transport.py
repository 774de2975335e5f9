"""Serves unary and server-streaming methods with `pygrpc_native` (HTTP/2 in Rust, plain TCP).

Each front (one per listen address) has a receiver thread that takes calls in batches and hands
a batch to the loop with one wake-up; there a hot handler runs and answers without any task.
Bidirectional streams and unknown paths go over a Unix socket to another transport, the fallback.

The front takes messages of any size into memory before it shows them; the limit is enforced
when they arrive here. It has no TLS: secure listeners use the grpcio transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

from pygrpc_native import EVENT_CANCEL, STREAM_CLOSED, STREAM_SENT, NativeGrpcFront

from kvstore.api import limits
from kvstore.api.address import ListenError, resolve
from kvstore.api.call import (
    Call,
    Method,
    MethodTable,
    StreamMethod,
    UnaryAnswer,
    UnaryMethod,
    crashed,
)
from kvstore.errors import STOPPED, Code, EtcdError

__all__ = ("Fallback", "NativeTransport")

log = logging.getLogger(__name__)

_POLL_S = 0.001
_POLL_MAX_S = 0.02
"""How often a stream whose client is behind is tried again: from the first, doubling, to this."""


class Fallback(Protocol):
    """A transport that serves every method of the same table, on a Unix socket."""

    async def listen(self, target: str) -> list[str]: ...
    async def start(self) -> None: ...
    async def stop(self, grace_s: float) -> None: ...


class NativeTransport:
    """Native fronts over one table. `listen` once per address, then `start`, then `stop`."""

    def __init__(
        self,
        table: MethodTable,
        fallback: Fallback,
        *,
        max_request_bytes: int,
        max_concurrent_streams: int = limits.MAX_CONCURRENT_STREAMS,
        keepalive_time_ms: int = 7_200_000,
        keepalive_timeout_ms: int = 20_000,
        io_threads: int = 2,
    ) -> None:
        self._table = table
        self._fallback = fallback
        self._max_message_bytes = max_request_bytes + limits.REQUEST_OVERHEAD_BYTES
        self._arguments: dict[str, Any] = {
            "io_threads": io_threads,
            "call_details": True,
            "delay_stream_headers": True,
            "keepalive_time_ms": keepalive_time_ms,
            "keepalive_timeout_ms": keepalive_timeout_ms,
            "max_concurrent_streams": min(max_concurrent_streams, 2**31 - 1),
            "reuse_port": False,
        }
        self._fronts: list[_Front] = []
        self._directory: str | None = None

    async def listen(self, target: str) -> list[str]:
        """Binds every address of `host:port`; returns them. Raises ListenError."""
        bound = []
        for address in await resolve(target):
            try:
                native = NativeGrpcFront(address, [], **self._arguments)
            except OSError as error:
                raise ListenError(f"cannot listen on {address}: {error}") from error
            self._fronts.append(_Front(native, self._table, self._max_message_bytes))
            bound.append(address)
        return bound

    async def start(self) -> None:
        """Begins to serve, the fallback first."""
        self._directory = tempfile.mkdtemp(prefix="kvstore-")  # readable by this user only
        path = str(Path(self._directory) / "streams.sock")
        await self._fallback.listen(f"unix:{path}")
        await self._fallback.start()
        for front in self._fronts:
            front.start(path)

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, gives open ones `grace_s` seconds, then fails them."""
        await asyncio.gather(
            self._fallback.stop(grace_s), *(front.drain(grace_s) for front in self._fronts)
        )
        await asyncio.gather(*(front.close() for front in self._fronts))
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


class _NativeCall(Call):
    __slots__ = ("call_id", "front", "method", "task")

    def __init__(
        self, front: _Front, call_id: int, method: Method, payload: bytes, details: Any
    ) -> None:
        super().__init__(payload, *details)
        self.front = front
        self.call_id = call_id
        self.method = method
        self.task: asyncio.Task[None] | None = None

    def _send(self, body: bytes, error: EtcdError | None) -> None:
        front, method = self.front, self.method
        front.calls.pop(self.call_id, None)
        if error is None:
            method.handled[0] += 1
            method.sent += 1
            front.table.sent_bytes += len(body)
            front.native.respond(self.call_id, body)
        else:
            method.handled[error.code] += 1
            front.native.fail(self.call_id, int(error.code), error.message)


class _Front:
    """One listen address: its native server, receiver thread and open calls."""

    def __init__(self, native: Any, table: MethodTable, max_message_bytes: int) -> None:
        self.native = native
        self.table = table
        self.calls: dict[int, _NativeCall] = {}
        """Calls without an answer yet, by the front's call id."""
        self._max_message_bytes = max_message_bytes
        self._methods: Sequence[Method] = [
            method for method in table if isinstance(method, UnaryMethod | StreamMethod)
        ]
        self._room = threading.Semaphore(limits.LOOP_BATCHES)
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self, fallback_path: str) -> None:
        self.native.add_methods(
            [(method.path, isinstance(method, StreamMethod)) for method in self._methods]
        )
        self.native.set_fallback(fallback_path)
        self.native.start()
        self._thread = threading.Thread(
            target=self._receive,
            args=(asyncio.get_running_loop(),),
            name="grpc-receiver",
            daemon=True,
        )
        self._thread.start()

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        """The receiver thread: blocks in the front, touches nothing that the loop owns."""
        native, room = self.native, self._room
        while True:
            room.acquire()
            events = native.recv_batch_details(limits.EVENT_BATCH)
            if events is None:
                return
            try:
                loop.call_soon_threadsafe(self._on_events, events)
            except RuntimeError:  # the loop was closed without `stop`
                native.close()
                return

    def _on_events(self, events: list[Any]) -> None:
        methods = self._methods
        for kind, call_id, method_id, payload, _, details in events:
            if kind == EVENT_CANCEL:
                self._cancelled(call_id)
                continue
            method = methods[method_id]
            method.started += 1
            method.received += 1
            self.table.received_bytes += len(payload)
            call = _NativeCall(self, call_id, method, payload, details)
            if self._stopping:
                call.fail(STOPPED)
            elif len(payload) > self._max_message_bytes:
                call.fail(self._too_large(len(payload)))
            elif isinstance(method, UnaryMethod):
                self._unary(call, method)
            elif isinstance(method, StreamMethod):
                self._begin(call, self._stream(call, method))
        self._room.release()

    def _unary(self, call: _NativeCall, method: UnaryMethod) -> None:
        answer: UnaryAnswer
        try:
            answer = method.handler(call)
        except EtcdError as error:
            call.fail(error)
        except Exception as error:
            log.exception("%s failed", method.path)
            call.fail(crashed(method, error))
        else:
            if answer is None:
                if not call.finished:
                    self.calls[call.call_id] = call
            elif isinstance(answer, bytes):
                call.reply(answer)
            else:
                self._begin(call, self._await(call, answer))

    def _begin(self, call: _NativeCall, work: Coroutine[Any, Any, None]) -> None:
        self.calls[call.call_id] = call
        call.task = asyncio.get_running_loop().create_task(work)

    async def _await(self, call: _NativeCall, answer: Coroutine[Any, Any, bytes]) -> None:
        try:
            call.reply(await answer)
        except EtcdError as error:
            call.fail(error)
        except Exception as error:
            log.exception("%s failed", call.method.path)
            call.fail(crashed(call.method, error))

    async def _stream(self, call: _NativeCall, method: StreamMethod) -> None:
        try:
            messages = method.handler(call)
            async with contextlib.AsyncExitStack() as stack:
                if hasattr(messages, "aclose"):
                    stack.push_async_callback(messages.aclose)
                if not await self._pass_on(call, messages):
                    method.handled[Code.CANCELLED] += 1
                    return
        except EtcdError as error:
            call.fail(error)
        except Exception as error:
            log.exception("%s failed", method.path)
            call.fail(crashed(method, error))
        else:
            call.finished = True
            method.handled[Code.OK] += 1
            self.native.stream_end(call.call_id)
        finally:
            self.calls.pop(call.call_id, None)

    async def _pass_on(self, call: _NativeCall, messages: AsyncIterator[bytes]) -> bool:
        """Sends what a handler yields at the client's pace; False once the client is gone.

        The front offers a blocking send, which would hold a thread per slow client, and one
        that refuses when the client is behind, which is tried again here after a while.
        """
        send = self.native.stream_try_send
        async for message in messages:
            wait_s = 0.0
            while (outcome := send(call.call_id, message)) != STREAM_SENT:
                if outcome == STREAM_CLOSED:
                    return False
                await asyncio.sleep(wait_s)
                wait_s = min(max(wait_s * 2, _POLL_S), _POLL_MAX_S)
            call.method.sent += 1
            self.table.sent_bytes += len(message)
        return True

    def _cancelled(self, call_id: int) -> None:
        call = self.calls.pop(call_id, None)
        if call is None:
            return
        call.method.handled[Code.CANCELLED] += 1
        call.cancel()
        if call.task is not None:
            call.task.cancel()

    def _too_large(self, size: int) -> EtcdError:
        return EtcdError(
            Code.RESOURCE_EXHAUSTED,
            f"grpc: received message larger than max ({size} vs. {self._max_message_bytes})",
        )

    async def drain(self, grace_s: float) -> None:
        """Takes no new calls; after `grace_s` at most, fails those that are still open."""
        self._stopping = True
        tasks = [call.task for call in self.calls.values() if call.task is not None]
        deadline = asyncio.get_running_loop().time() + grace_s
        while self.calls and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_MAX_S)
        for call in list(self.calls.values()):
            call.fail(STOPPED)
            if call.task is not None:
                call.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Closes the listener and its connections and ends the receiver thread."""
        await asyncio.to_thread(self.native.close)
        self._room.release()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 5.0)
