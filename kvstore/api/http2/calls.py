"""Unary and server-streaming calls on streams: methods of the table, run as the bytes arrive.

A unary handler that answers at once costs neither task nor future nor timer: the response is in
the connection's output when `data` returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar

from kvstore.api.call import (
    Call,
    Method,
    MethodTable,
    StreamMethod,
    UnaryAnswer,
    UnaryMethod,
    crashed,
)
from kvstore.api.http2 import limits
from kvstore.api.http2.connection import Connection
from kvstore.api.http2.deadlines import Bucket, Deadlines
from kvstore.api.http2.errors import ErrorCode
from kvstore.api.http2.flow import MAX_WINDOW
from kvstore.api.http2.inbox import Inbox
from kvstore.api.http2.requests import Request
from kvstore.api.http2.responses import OK_TRAILERS, PREFIX, refusal, trailers
from kvstore.api.http2.sender import Sender, Verdict
from kvstore.errors import STOPPED, Code, EtcdError

__all__ = ("DEADLINE_EXCEEDED", "Context", "StreamCall", "UnaryCall")

log = logging.getLogger(__name__)

T = TypeVar("T")

_PREFIX_BYTES = PREFIX.size
_OK = refusal(Code.OK, "")
DEADLINE_EXCEEDED = EtcdError(Code.DEADLINE_EXCEEDED, "context deadline exceeded")
_NO_MESSAGE = EtcdError(Code.INTERNAL, "grpc: the request ended without a whole message")
_UNREAD = EtcdError(
    Code.RESOURCE_EXHAUSTED,
    "grpc: too many unread responses on this connection; the call was carried out",
)
_TWO_MESSAGES = EtcdError(Code.INTERNAL, "grpc: more than one message in a unary request")


class Context:
    """What all calls of a server share."""

    __slots__ = ("deadlines", "max_message_bytes", "table")

    def __init__(self, table: MethodTable, max_message_bytes: int, deadlines: Deadlines) -> None:
        self.table = table
        self.max_message_bytes = max_message_bytes
        self.deadlines = deadlines


class _SingleRequest(Call, ABC):
    """A call with one request message; it runs once the client has half-closed."""

    __slots__ = (
        "_bucket",
        "_connection",
        "_context",
        "_inbox",
        "_request",
        "_stream_id",
        "_task",
        "method",
        "open",
    )

    def __init__(
        self,
        context: Context,
        connection: Connection,
        stream_id: int,
        request: Request,
        timeout_s: float | None,
    ) -> None:
        super().__init__(b"", request.metadata, connection.peer, timeout_s)
        self._context = context
        self._connection = connection
        self._stream_id = stream_id
        self._request = request
        self.method: Method = request.method  # type: ignore[assignment]
        self.open = True
        self._inbox: Inbox | None = None
        self._bucket: Bucket | None = None
        self._task: asyncio.Task[Any] | None = None
        self.method.started += 1

    @property
    @abstractmethod
    def delta(self) -> int: ...

    @abstractmethod
    def widen(self, increment: int) -> bool: ...

    @abstractmethod
    def drain(self) -> Verdict: ...

    @abstractmethod
    def expire(self) -> None: ...

    @abstractmethod
    def _run(self) -> None:
        """The request is complete: calls the handler."""

    def data(self, payload: bytes, size: int, end: bool) -> None:
        length = len(payload) - _PREFIX_BYTES
        if (
            end
            and self._inbox is None
            and length >= 0
            and payload[0] == 0
            and int.from_bytes(payload[1:5], "big") == length
            and length <= self._context.max_message_bytes
            and self._request.content_length in (-1, length + _PREFIX_BYTES)
        ):
            self.payload = payload[_PREFIX_BYTES:]
            self._arrived()
        elif not self.finished:
            self._gather(payload, size, end)

    def _gather(self, payload: bytes, size: int, end: bool) -> None:
        """The request comes in pieces, or something is wrong with it."""
        inbox = self._inbox
        if inbox is None:
            inbox = self._inbox = Inbox(
                self._connection, self._stream_id, self._context.max_message_bytes
            )
            self._watch_deadline()
        try:
            if not inbox.feed(payload, size):
                self._connection.reset(self._stream_id, ErrorCode.FLOW_CONTROL_ERROR)
                return
            inbox.check()
            message = inbox.next() if end else None
        except EtcdError as error:
            self.fail(error)
            return
        if not end:
            inbox.give_back()
        elif self._request.content_length not in (-1, inbox.total):
            self._connection.reset(self._stream_id, ErrorCode.PROTOCOL_ERROR)
        elif message is None:
            self.fail(_NO_MESSAGE)
        elif len(inbox):
            self.fail(_TWO_MESSAGES)
        else:
            self.payload = message
            self._arrived()

    def ended(self) -> None:
        if not self.finished:
            self._gather(b"", 0, True)

    def lost(self) -> None:
        self._leave(Code.CANCELLED)

    def stop(self) -> None:
        self.fail(STOPPED)

    def _leave(self, code: Code) -> None:
        """Nobody waits for the answer any more."""
        if self.finished:
            return
        self.method.handled[code] += 1
        try:
            self.cancel()
        except Exception:
            log.exception("%s failed when its client left", self.method.path)
        self._release()

    def _watch_deadline(self) -> None:
        if self._bucket is None and self.deadline is not None:
            self._bucket = self._context.deadlines.add(self, self.deadline)

    def _release(self) -> None:
        if self._bucket is not None:
            self._context.deadlines.remove(self, self._bucket)
            self._bucket = None
        if self._inbox is not None:
            self._inbox.close()
        task = self._task
        if task is not None and not task.done() and task is not asyncio.current_task():
            task.cancel()

    def _arrived(self) -> None:
        """The request is complete."""
        self.method.received += 1
        self._context.table.received_bytes += len(self.payload)
        self._run()

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._task = asyncio.get_running_loop().create_task(work)
        self._watch_deadline()
        return task


class UnaryCall(_SingleRequest):
    """One request, one response."""

    __slots__ = ("_delta",)

    def __init__(
        self,
        context: Context,
        connection: Connection,
        stream_id: int,
        request: Request,
        timeout_s: float | None,
    ) -> None:
        super().__init__(context, connection, stream_id, request, timeout_s)
        self._delta = 0

    @property
    def delta(self) -> int:
        return self._delta

    @property
    def congested(self) -> bool:
        return self._connection.congested

    def _run(self) -> None:
        method: UnaryMethod = self.method  # type: ignore[assignment]
        answer: UnaryAnswer
        try:
            answer = method.handler(self)
        except EtcdError as error:
            self.fail(error)
        except Exception as error:
            log.exception("%s failed", method.path)
            self.fail(crashed(method, error))
        else:
            if answer is None:
                if not self.finished:
                    self._watch_deadline()
            elif isinstance(answer, bytes):
                self.reply(answer)
            else:
                self._begin(answer).add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[bytes]) -> None:
        if self.finished:
            # The client has left, and the handler was told so; what became of it is all the same.
            if not task.cancelled():
                task.exception()
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self.reply(task.result())
        elif isinstance(error, EtcdError):
            self.fail(error)
        else:
            log.error("%s failed", self.method.path, exc_info=error)
            self.fail(crashed(self.method, error))

    def _send(self, body: bytes, error: EtcdError | None) -> None:
        connection, method = self._connection, self.method
        if self._bucket is not None or self._inbox is not None or self._task is not None:
            self._release()
        if error is None and len(body) > limits.KEPT_ANSWER_BYTES and connection.congested:
            error = _UNREAD
        if error is None:
            method.handled[0] += 1
            method.sent += 1
            self._context.table.sent_bytes += len(body)
            if not connection.reply(self._stream_id, self._delta, body):
                _Tail(connection, self._stream_id, self.open, self._delta, body)
        else:
            method.handled[error.code] += 1
            block = refusal(error.code, error.message)
            connection.write_headers(self._stream_id, block, end_stream=True)
            connection.end(self._stream_id)

    def widen(self, increment: int) -> bool:
        self._delta += increment
        return self._delta + self._connection.initial_window <= MAX_WINDOW

    def drain(self) -> Verdict:
        return Verdict.IDLE

    def expire(self) -> None:
        if not self.finished:
            self._leave(Code.DEADLINE_EXCEEDED)
            block = refusal(DEADLINE_EXCEEDED.code, DEADLINE_EXCEEDED.message)
            self._connection.write_headers(self._stream_id, block, end_stream=True)
            self._connection.end(self._stream_id)


class _Tail:
    """The rest of a unary call whose response is too large for one frame or the windows."""

    __slots__ = ("_connection", "_sender", "_stream_id", "open")

    def __init__(
        self, connection: Connection, stream_id: int, still_open: bool, delta: int, body: bytes
    ) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self.open = still_open
        self._sender = Sender(connection, stream_id, delta)
        connection.streams[stream_id] = self
        self._sender.send((body,))
        self._sender.finish(OK_TRAILERS, _OK)
        if not self._sender.done:
            connection.want(stream_id, self)

    @property
    def delta(self) -> int:
        return self._sender.delta

    def data(self, payload: bytes, size: int, end: bool) -> None:
        pass

    def ended(self) -> None:
        pass

    def widen(self, increment: int) -> bool:
        return self._sender.widen(increment)

    def drain(self) -> Verdict:
        return self._sender.drain()

    def lost(self) -> None:
        self._sender.discard()

    def stop(self) -> None:
        self._connection.reset(self._stream_id, ErrorCode.CANCEL)

    def expire(self) -> None:
        pass


class StreamCall(_SingleRequest):
    """One request, many responses; a task draws them from the handler at the client's pace."""

    __slots__ = ("_drained", "_sender")

    def __init__(
        self,
        context: Context,
        connection: Connection,
        stream_id: int,
        request: Request,
        timeout_s: float | None,
    ) -> None:
        super().__init__(context, connection, stream_id, request, timeout_s)
        self._sender = Sender(connection, stream_id)
        self._drained: asyncio.Future[None] | None = None

    @property
    def delta(self) -> int:
        return self._sender.delta

    def widen(self, increment: int) -> bool:
        return self._sender.widen(increment)

    def drain(self) -> Verdict:
        verdict = self._sender.drain()
        if not self._sender.queued:
            self._let_on()
        return verdict

    def lost(self) -> None:
        self._sender.discard()
        super().lost()

    def expire(self) -> None:
        if not self.finished:
            self._leave(Code.DEADLINE_EXCEEDED)
            self._abort(DEADLINE_EXCEEDED)

    def stop(self) -> None:
        if self.finished:  # the end waits for the client's window
            self._connection.reset(self._stream_id, ErrorCode.CANCEL)
        else:
            self._leave(STOPPED.code)
            self._abort(STOPPED)

    def _abort(self, error: EtcdError) -> None:
        self._sender.abort(trailers(error.code, error.message), refusal(error.code, error.message))

    def _run(self) -> None:
        self._begin(self._serve())

    async def _serve(self) -> None:
        method = self.method
        assert isinstance(method, StreamMethod)
        try:
            messages = method.handler(self)
            async with contextlib.AsyncExitStack() as stack:
                if hasattr(messages, "aclose"):
                    stack.push_async_callback(messages.aclose)
                async for message in messages:
                    await self._pass_on(message)
        except EtcdError as error:
            self.fail(error)
        except Exception as error:
            log.exception("%s failed", method.path)
            self.fail(crashed(method, error))
        else:
            if not self.finished:
                self.finished = True
                self._send(b"", None)

    async def _pass_on(self, message: bytes) -> None:
        """Sends a message; returns when the next one is due."""
        self.method.sent += 1
        self._context.table.sent_bytes += len(message)
        sender = self._sender
        sender.send((message,))
        if sender.queued:
            self._drained = asyncio.get_running_loop().create_future()
            self._connection.want(self._stream_id, self)
            await self._drained

    def _let_on(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _send(self, body: bytes, error: EtcdError | None) -> None:
        """The end of the stream; what was sent before goes first."""
        self._release()
        if error is None:
            self.method.handled[0] += 1
            self._sender.finish(OK_TRAILERS, _OK)
        else:
            self.method.handled[error.code] += 1
            code, text = error.code, error.message
            self._sender.finish(trailers(code, text), refusal(code, text))
