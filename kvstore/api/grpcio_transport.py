"""Serves a method table with grpc.aio: always available, TLS too, and the streams of other fronts.

Handlers are generic and work on raw bytes; no generated stubs take part. One task per call is
grpc.aio's own way; the calls of the seam run inside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from grpc import aio

from kvstore.api import limits
from kvstore.api.address import ListenError, resolve
from kvstore.api.call import (
    BidiMethod,
    Call,
    Method,
    MethodTable,
    Session,
    StreamMethod,
    UnaryMethod,
    crashed,
    detach,
)
from kvstore.errors import Code, EtcdError

__all__ = ("GrpcioTransport",)

log = logging.getLogger(__name__)

_STATUS = {status.value[0]: status for status in grpc.StatusCode}
_FOREVER_S = 10.0 * 365 * 86400
"""grpc.aio reports a huge number for calls without a deadline."""


class GrpcioTransport:
    """A grpc.aio server over one table. `listen` once per address, then `start`, then `stop`."""

    def __init__(
        self,
        table: MethodTable,
        *,
        max_request_bytes: int,
        credentials: grpc.ServerCredentials | None = None,
        max_concurrent_streams: int = limits.MAX_CONCURRENT_STREAMS,
        min_client_ping_ms: int = limits.MIN_CLIENT_PING_MS,
        keepalive_time_ms: int = 7_200_000,
        keepalive_timeout_ms: int = 20_000,
    ) -> None:
        self._table = table
        self._credentials = credentials
        self._server: aio.Server | None = None
        self._options = (
            ("grpc.max_receive_message_length", max_request_bytes + limits.REQUEST_OVERHEAD_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", min(max_concurrent_streams, 2**31 - 1)),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", min_client_ping_ms),
            ("grpc.http2.min_ping_interval_without_data_ms", min_client_ping_ms),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", keepalive_time_ms),
            ("grpc.keepalive_timeout_ms", keepalive_timeout_ms),
        )

    def _ready(self) -> aio.Server:
        if self._server is None:
            self._server = aio.server(options=self._options)
            self._server.add_generic_rpc_handlers((_Handlers(self._table),))
        return self._server

    async def listen(self, target: str) -> list[str]:
        """Binds `host:port` (every address of the name) or `unix:/path`; returns what was bound.

        Before `start` only. Raises ListenError.
        """
        addresses = [target] if target.startswith("unix:") else await resolve(target)
        server = self._ready()
        for address in addresses:
            try:
                if self._credentials is None:
                    server.add_insecure_port(address)
                else:
                    server.add_secure_port(address, self._credentials)
            except RuntimeError as error:
                raise ListenError(f"cannot listen on {address}: {error}") from error
        return addresses

    async def start(self) -> None:
        """Begins to serve."""
        await self._ready().start()

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, gives open ones `grace_s` seconds, then cancels them."""
        if self._server is not None:
            await self._server.stop(grace_s)


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds the handler of a path; built once per method."""

    def __init__(self, table: MethodTable) -> None:
        self._handlers = {method.path: _handler(table, method) for method in table}
        self._services = {method.service for method in table}

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        path = handler_call_details.method
        return self._handlers.get(path) or self._unknown(path)

    def _unknown(self, path: str) -> grpc.RpcMethodHandler:
        """Answers as grpc-go does, which names what is missing."""
        service, _, name = path.removeprefix("/").rpartition("/")
        text = f"unknown service {service}"
        if service in self._services:
            text = f"unknown method {name} for service {service}"

        async def refuse(_requests: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)

        return grpc.stream_stream_rpc_method_handler(refuse)


def _handler(table: MethodTable, method: Method) -> grpc.RpcMethodHandler:
    if isinstance(method, UnaryMethod):
        return grpc.unary_unary_rpc_method_handler(_unary(table, method))
    if isinstance(method, StreamMethod):
        return grpc.unary_stream_rpc_method_handler(_stream(table, method))
    assert isinstance(method, BidiMethod)
    return grpc.stream_stream_rpc_method_handler(_bidi(table, method))


class _GrpcioCall(Call):
    __slots__ = ("_body", "_error", "_waiter")

    def __init__(self, payload: bytes, context: Any) -> None:
        remaining = context.time_remaining()
        super().__init__(
            payload,
            tuple(context.invocation_metadata() or ()),
            context.peer(),
            remaining if remaining is not None and remaining < _FOREVER_S else None,
        )
        self._body = b""
        self._error: EtcdError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def _send(self, body: bytes, error: EtcdError | None) -> None:
        self._body, self._error = body, error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def outcome(self) -> bytes:
        """Waits for reply or fail."""
        if not self.finished:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._error is not None:
            raise self._error
        return self._body


class _ClientGoneError(Exception):
    """The connection is gone: a stream ends that nobody reads any more."""


async def _write(context: Any, message: bytes) -> None:
    """Sends one message at the client's pace."""
    try:
        await context.write(message)
    except aio.InternalError as error:
        raise _ClientGoneError from error


async def _abort(method: Method, context: Any, error: EtcdError) -> None:
    method.handled[error.code] += 1
    detach(error)
    await context.abort(_STATUS[int(error.code)], error.message)


def _unary(table: MethodTable, method: UnaryMethod) -> Callable[[bytes, Any], Awaitable[bytes]]:
    handler = method.handler

    async def serve(payload: bytes, context: Any) -> bytes:
        method.started += 1
        method.received += 1
        table.received_bytes += len(payload)
        call = _GrpcioCall(payload, context)
        try:
            answer = handler(call)
            if answer is None:
                body = await call.outcome()
            elif isinstance(answer, bytes):
                body = answer
            else:
                body = await answer
        except EtcdError as error:
            await _abort(method, context, error)
            raise
        except asyncio.CancelledError:
            method.handled[Code.CANCELLED] += 1
            call.cancel()
            raise
        except Exception as error:
            log.exception("%s failed", method.path)
            await _abort(method, context, crashed(method, error))
            raise
        call.finished = True
        method.handled[Code.OK] += 1
        method.sent += 1
        table.sent_bytes += len(body)
        return body

    return serve


def _stream(table: MethodTable, method: StreamMethod) -> Callable[[bytes, Any], Awaitable[None]]:
    async def serve(payload: bytes, context: Any) -> None:
        method.started += 1
        method.received += 1
        table.received_bytes += len(payload)
        call = _GrpcioCall(payload, context)
        try:
            messages = method.handler(call)
            async with contextlib.AsyncExitStack() as stack:
                if hasattr(messages, "aclose"):
                    stack.push_async_callback(messages.aclose)
                async for message in messages:
                    await _write(context, message)
                    method.sent += 1
                    table.sent_bytes += len(message)
        except EtcdError as error:
            await _abort(method, context, error)
        except asyncio.CancelledError:
            method.handled[Code.CANCELLED] += 1
            call.cancel()
            raise
        except _ClientGoneError:
            method.handled[Code.CANCELLED] += 1
            call.cancel()
        except Exception as error:
            log.exception("%s failed", method.path)
            await _abort(method, context, crashed(method, error))
        else:
            method.handled[Code.OK] += 1

    return serve


class _Outlet:
    """One bidirectional stream: a reader task feeds the session, the call's own task writes."""

    def __init__(self, table: MethodTable, method: BidiMethod, context: Any) -> None:
        self._table = table
        self._method = method
        self._context = context
        self._woken = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False
        self._error: EtcdError | None = None
        self.metadata: Mapping[str, str | bytes] = dict(context.invocation_metadata() or ())
        self.peer: str = context.peer()

    def wake(self) -> None:
        self._woken.set()

    def finish(self, error: EtcdError | None) -> None:
        if not self._ended:
            self._ended, self._error = True, error
            self._woken.set()

    async def run(self) -> EtcdError | None:
        """Serves the stream to its end; returns the error to end it with, None for OK."""
        session = self._method.handler(self)
        reader = asyncio.create_task(self._read(session))
        try:
            await self._write(session)
        finally:
            reader.cancel()
            session.closed()
        return self._error

    async def _read(self, session: Session) -> None:
        method, table = self._method, self._table
        try:
            while not self._ended:
                while not session.accepting:
                    self._room.clear()
                    await self._room.wait()
                payload = await self._context.read()
                if payload is aio.EOF:
                    session.half_closed()
                    return
                method.received += 1
                table.received_bytes += len(payload)
                session.received(payload)
        except EtcdError as error:
            self.finish(error)
        except (grpc.RpcError, aio.UsageError):
            # The connection is gone; grpc.aio cancels the call's own task by itself.
            return
        except Exception as error:
            log.exception("%s failed", method.path)
            self.finish(crashed(method, error))

    async def _write(self, session: Session) -> None:
        method, table = self._method, self._table
        while True:
            self._woken.clear()
            messages = session.take(limits.TAKE_MESSAGES, limits.TAKE_BYTES)
            if session.accepting:
                self._room.set()
            for message in messages:
                await _write(self._context, message)
                method.sent += 1
                table.sent_bytes += len(message)
            if messages:
                continue
            if self._ended:
                return
            await self._woken.wait()


def _bidi(table: MethodTable, method: BidiMethod) -> Callable[[Any, Any], Awaitable[None]]:
    async def serve(_requests: Any, context: Any) -> None:
        method.started += 1
        failure: EtcdError | None
        try:
            failure = await _Outlet(table, method, context).run()
        except EtcdError as error:
            failure = error
        except asyncio.CancelledError:
            method.handled[Code.CANCELLED] += 1
            raise
        except _ClientGoneError:
            method.handled[Code.CANCELLED] += 1
            return
        except Exception as error:
            log.exception("%s failed", method.path)
            failure = crashed(method, error)
        if failure is None:
            method.handled[Code.OK] += 1
        else:
            await _abort(method, context, failure)

    return serve
