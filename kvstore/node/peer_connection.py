"""One TCP connection between members: frames in, frames out, and a single way to end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from kvstore.node.peer_limits import HANDSHAKE_BYTES_MAX, SOCKET_BUFFER_BYTES
from kvstore.node.wire import FrameError, FrameReader, unpack
from raft.errors import WireError

__all__ = ("Address", "AddressError", "Framed")

_DEFAULT_PORT = 2380


class AddressError(OSError):
    """A peer URL that cannot be used as it stands."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a peer URL points to."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: str) -> Address:
        """Reads `http://host:port` or `https://host:port`; raises AddressError."""
        try:
            parts = urlsplit(url)
            port = parts.port or _DEFAULT_PORT
        except ValueError as error:
            raise AddressError(f"{url!r} is not a peer URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AddressError(f"{url!r} is not a peer URL: http(s)://host:port is wanted")
        return cls(parts.hostname, port, parts.scheme == "https")

    def context(self, url: str, context: ssl.SSLContext | None) -> ssl.SSLContext | None:
        """The TLS context for this address; raises AddressError if one is needed and missing."""
        if self.tls and context is None:
            raise AddressError(f"{url} asks for TLS, but no peer certificate is configured")
        return context if self.tls else None


class Framed(asyncio.Protocol, ABC):
    """A connection as frames. Subclasses say what they do with one, and with the end."""

    def __init__(self) -> None:
        self._reader = FrameReader(HANDSHAKE_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self._reason = ""
        self.writable = True
        """False while the socket is behind; what is written anyway waits in memory."""

    # What subclasses give.

    def opened(self) -> None:
        """The connection is there."""

    @abstractmethod
    def received(self, kind: int, fields: Sequence[Any]) -> None:
        """A frame has come. May raise FrameError or WireError: the connection ends."""

    def drained(self) -> None:
        """The socket takes data again."""

    @abstractmethod
    def ended(self, reason: str) -> None:
        """The connection is gone, for `reason`; called exactly once."""

    # What they use.

    def trust(self, limit_bytes: int) -> None:
        """Takes frames of up to this size from now on."""
        self._reader.limit_bytes = limit_bytes

    def write(self, data: bytes) -> None:
        """Sends a frame, unless the connection is ending."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def unsent_bytes(self) -> int:
        """What was written and is still in memory."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def pause_receiving(self, paused: bool) -> None:
        """Leaves what the other side sends unread, or reads on."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if paused and transport.is_reading():
            transport.pause_reading()
        elif not paused and not transport.is_reading():
            transport.resume_reading()

    def close(self, reason: str) -> None:
        """Ends the connection once everything written is sent."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Ends the connection at once."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    @property
    def closing(self) -> bool:
        """Nothing more is sent."""
        return self._transport is None or self._transport.is_closing()

    @property
    def remote(self) -> str:
        """Address of the other side, for the log."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unknown address"

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transport in everything but their class.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=SOCKET_BUFFER_BYTES)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened()

    def data_received(self, data: bytes) -> None:
        try:
            for packed in self._reader.feed(data):
                if self.closing:
                    return
                self.received(*unpack(packed))
        except (FrameError, WireError) as error:
            self.abort(f"malformed data: {error}")

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.drained()

    def connection_lost(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        if not self._reason:
            self._reason = str(error) if error is not None else "closed by the other side"
        self.ended(self._reason)
