"""Runs the API in a thread with its own loop, so that tests talk to it like any client."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc

from kvstore.api.call import MethodTable
from kvstore.api.grpcio_transport import GrpcioTransport
from kvstore.api.http2.transport import Http2Transport
from kvstore.api.native_transport import NativeTransport

T = TypeVar("T")

TRANSPORTS = ("grpcio", "native", "http2")
MAX_REQUEST_BYTES = 1_572_864
UNLIMITED = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for every channel
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def transport(kind: str, table: MethodTable, max_request_bytes: int = MAX_REQUEST_BYTES) -> Any:
    """A transport by name, not started."""
    if kind == "http2":
        return Http2Transport(table, max_request_bytes=max_request_bytes)
    grpcio = GrpcioTransport(table, max_request_bytes=max_request_bytes)
    if kind == "grpcio":
        return grpcio
    return NativeTransport(table, grpcio, max_request_bytes=max_request_bytes)


def has_uvloop() -> bool:
    return importlib.util.find_spec("uvloop") is not None


class LoopThread:
    """An event loop in a thread."""

    def __init__(self, *, uvloop: bool = False) -> None:
        self.loop = asyncio.new_event_loop()
        if uvloop:
            self.loop = importlib.import_module("uvloop").new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function on the loop."""

        async def work() -> T:
            return function(*arguments)

        return self.run(work())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Served:
    """A running server: its address, and its loop."""

    def __init__(self, kind: str, build: Callable[[], MethodTable], **options: Any) -> None:
        self.thread = LoopThread()
        self.table = self.thread.call(build)
        self.transport: Any = None

        async def start() -> list[str]:
            self.transport = transport(kind, self.table, **options)
            bound: list[str] = await self.transport.listen("127.0.0.1:0")
            await self.transport.start()
            return bound

        self.target = self.thread.run(start())[0]
        self.channel = grpc.insecure_channel(self.target, options=UNLIMITED)

    def close(self) -> None:
        self.channel.close()
        self.thread.run(self.transport.stop(0.1))
        self.thread.close()

    def unary(self, path: str, payload: bytes = b"", **options: Any) -> bytes:
        """One call with raw bytes."""
        answer: bytes = self.channel.unary_unary(path)(payload, timeout=10, **options)
        return answer


@contextmanager
def served(kind: str, build: Callable[[], MethodTable], **options: Any) -> Iterator[Served]:
    server = Served(kind, build, **options)
    try:
        yield server
    finally:
        server.close()
