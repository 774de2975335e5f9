"""Serves a method table over TCP and Unix sockets with the HTTP/2 of this package."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from kvstore.api import limits as api_limits
from kvstore.api.address import ListenError, resolve
from kvstore.api.call import MethodTable
from kvstore.api.http2 import limits
from kvstore.api.http2.deadlines import Deadlines
from kvstore.api.http2.dispatch import Dispatcher
from kvstore.api.http2.peer import MakeProtocol, Shared

__all__ = ("Http2Transport",)


class Http2Transport:
    """An HTTP/2 server over one table. `listen` once per address, then `start`, then `stop`.

    `http1` makes the protocol that serves HTTP/1 connections; without it they are refused.
    """

    def __init__(
        self,
        table: MethodTable,
        *,
        max_request_bytes: int,
        max_concurrent_streams: int = limits.STREAMS_PER_CONNECTION,
        keepalive_time_ms: int = 7_200_000,
        keepalive_timeout_ms: int = 20_000,
        http1: MakeProtocol | None = None,
    ) -> None:
        self._table = table
        self._max_message_bytes = max_request_bytes + api_limits.REQUEST_OVERHEAD_BYTES
        self._max_streams = max_concurrent_streams
        self._keepalive_s = keepalive_time_ms / 1000
        self._keepalive_timeout_s = keepalive_timeout_ms / 1000
        self._http1 = http1
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._shared: Shared | None = None

    def _ready(self) -> Shared:
        if self._shared is None:
            loop = asyncio.get_running_loop()
            deadlines = Deadlines(loop.time, loop.call_later)
            self._shared = Shared(
                Dispatcher(self._table, self._max_message_bytes, deadlines),
                self._max_streams,
                self._keepalive_s,
                self._keepalive_timeout_s,
                self._http1,
            )
        return self._shared

    async def listen(self, target: str) -> list[str]:
        """Binds `host:port` (every address of the name) or `unix:/path`; returns what was bound.

        Raises ListenError.
        """
        shared = self._ready()
        loop = asyncio.get_running_loop()
        if target.startswith("unix:"):
            path = Path(target.removeprefix("unix:"))
            if _is_served(path):
                raise ListenError(
                    f"cannot listen on {target}: another process listens there already"
                )
            try:
                server = await loop.create_unix_server(
                    shared.connect, path, backlog=limits.LISTEN_BACKLOG, start_serving=False
                )
            except OSError as error:
                raise ListenError(f"cannot listen on {target}: {error.strerror}") from error
            self._servers.append(server)
            self._paths.append(path)
            return [target]
        bound = await resolve(target)
        for address in bound:
            try:
                listener = _bind(address)
            except OSError as error:
                raise ListenError(f"cannot listen on {address}: {error.strerror}") from error
            self._servers.append(
                await loop.create_server(
                    shared.connect,
                    sock=listener,
                    backlog=limits.LISTEN_BACKLOG,
                    start_serving=False,
                )
            )
        return bound

    async def start(self) -> None:
        """Begins to serve."""
        for server in self._servers:
            await server.start_serving()

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, gives open ones `grace_s` seconds, then fails them."""
        for server in self._servers:
            server.close()
        for path in self._paths:
            path.unlink(missing_ok=True)
        if self._shared is not None:
            await self._shared.stop(grace_s)


def _is_served(path: Path) -> bool:
    """Whether a socket has a listener: one that a dead server has left may be replaced."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" is every interface, IPv4 too; a single IPv6 address is only itself.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        listener.bind((host, int(port)))
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
