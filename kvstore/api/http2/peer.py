"""One client's socket: what it speaks, when it is read and written, and how long it may be silent.

What arrives is looked at before anything is sent: HTTP/2's preface starts a gRPC connection, an
HTTP/1 request goes to the handler that the server was given, so that both share a port.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable
from typing import cast

from kvstore.api.http2 import frames, limits
from kvstore.api.http2.connection import Connection
from kvstore.api.http2.dispatch import Dispatcher
from kvstore.api.http2.load import Load

__all__ = ("MakeProtocol", "Peer", "Shared")

log = logging.getLogger(__name__)

MakeProtocol = Callable[[], asyncio.Protocol]
_HTTP1_START = re.compile(rb"[A-Z]{1,16}(?: [^\r\n]*)?")
_HTTP1_ANSWER = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\n"
    b"Content-Type: text/plain\r\n\r\nThis port serves gRPC, by HTTP/2 alone.\n"
)
_STEP_S = 0.02
"""How often a stopping server looks whether calls have ended."""


class Shared:
    """What the connections of one server share: settings, and the turn's end."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        max_streams: int,
        keepalive_s: float,
        keepalive_timeout_s: float,
        http1: MakeProtocol | None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.dispatcher = dispatcher
        self.max_streams = max_streams
        self.keepalive_s = keepalive_s
        self.keepalive_timeout_s = keepalive_timeout_s
        self.http1 = http1
        self.load = Load()
        self.peers: set[Peer] = set()
        self._dirty: list[Peer] = []

    def connect(self) -> Peer:
        """The protocol of a new connection."""
        return Peer(self)

    def mark(self, peer: Peer) -> None:
        """The peer's output is written after this loop turn, with all others'."""
        if not self._dirty:
            self.loop.call_soon(self._flush)
        self._dirty.append(peer)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        end = time.perf_counter() + limits.TURN_S
        for number, peer in enumerate(dirty, 1):
            peer.flush()
            if time.perf_counter() > end and number < len(dirty):
                # Those that are left come before those that were marked meanwhile.
                if not self._dirty:
                    self.loop.call_soon(self._flush)
                self._dirty[:0] = dirty[number:]
                return

    def _is_busy(self) -> bool:
        return any(peer.is_busy for peer in self.peers)

    async def stop(self, grace_s: float) -> None:
        """Says goodbye, waits for open calls, fails the rest, closes."""
        for peer in list(self.peers):
            peer.leave()
        end = self.loop.time() + grace_s
        while self._is_busy() and self.loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(_STEP_S)
        for peer in list(self.peers):
            peer.fail_calls()
        end = self.loop.time() + limits.CLOSE_LINGER_S
        while self.peers and self.loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(_STEP_S)
        for peer in list(self.peers):
            peer.abort()


class Peer(asyncio.Protocol):
    """One connection's socket and timers."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._transport: asyncio.Transport | None = None
        self._connection: Connection | None = None
        self._start = b""
        self._backlog = b""
        self._marked = False
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transport in everything but their class.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=limits.SOCKET_BUFFER_BYTES)
        self._shared.peers.add(self)
        self._timer = self._shared.loop.call_later(limits.PREFACE_S, self._preface_due)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        connection = self._connection
        if connection is None:
            connection = self._sniff(data)
            if connection is None:
                return
            data = self._start
            self._start = b""
        self._heard_at = self._shared.loop.time()
        if self._backlog:
            self._backlog += data
        else:
            self._take_in(connection, data)

    def _take_in(self, connection: Connection, data: bytes) -> None:
        """Works through what was read, or through as much as one turn may take."""
        if len(data) > limits.READ_SLICE_BYTES:
            self._backlog = data[limits.READ_SLICE_BYTES :]
            data = data[: limits.READ_SLICE_BYTES]
        try:
            connection.feed(data)
        except Exception:
            self._broken()
            return
        self.flush()
        if self._backlog:
            self._regulate()

    def _go_on(self) -> None:
        connection = self._connection
        if connection is None or self._transport is None or self._closing or connection.paused:
            return
        data, self._backlog = self._backlog, b""
        self._take_in(connection, data)
        if not self._backlog:
            self._regulate()

    def _regulate(self) -> None:
        """Reads on, or goes on with what was read. Nobody who does not read what we say is heard:
        its questions would pile up answers."""
        connection, transport = self._connection, self._transport
        if connection is None or transport is None:
            return
        if connection.paused or self._backlog:
            transport.pause_reading()
            if not connection.paused:
                self._shared.loop.call_soon(self._go_on)
        else:
            transport.resume_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        self._shared.peers.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        if self._connection is not None:
            self._connection.finished = True
            self._connection.lost()

    def pause_writing(self) -> None:
        if self._connection is not None and self._transport is not None:
            self._connection.paused = True
            self._regulate()

    def resume_writing(self) -> None:
        if self._connection is not None and self._transport is not None:
            self._connection.resume()
            self._regulate()

    # The beginning

    def _sniff(self, data: bytes) -> Connection | None:
        """Finds out what the client speaks; the connection once it is HTTP/2."""
        transport = self._transport
        if transport is None or self._closing:
            return None
        self._start += data
        start, preface = self._start, frames.PREFACE
        if start.startswith(preface[: len(start)]):
            if len(start) < len(preface):
                return None
        elif _HTTP1_START.match(start):
            if self._shared.http1 is not None:
                self._hand_over(transport, self._shared.http1)
            else:
                transport.write(_HTTP1_ANSWER)
                self._close()
            return None
        shared = self._shared
        self._connection = Connection(
            shared.dispatcher,
            _peer_name(transport),
            clock=shared.loop.time,
            on_output=self._mark,
            max_streams=shared.max_streams,
            load=shared.load,
        )
        return self._connection

    def _hand_over(self, transport: asyncio.Transport, make: MakeProtocol) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._shared.peers.discard(self)
        protocol = make()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        start, self._start = self._start, b""
        protocol.data_received(start)

    def _preface_due(self) -> None:
        self._timer = None
        if self._connection is None or not self._connection.established:
            self.abort()
        elif self._shared.keepalive_s > 0:
            self._arm_keepalive(self._shared.keepalive_s)

    # Keepalive

    def _arm_keepalive(self, delay_s: float) -> None:
        self._timer = self._shared.loop.call_later(delay_s, self._keepalive)

    def _keepalive(self) -> None:
        quiet_s = self._shared.loop.time() - self._heard_at
        if quiet_s < self._shared.keepalive_s:
            self._arm_keepalive(self._shared.keepalive_s - quiet_s)
        elif self._connection is not None:
            asked_at = self._shared.loop.time()
            self._connection.ping()
            self._timer = self._shared.loop.call_later(
                self._shared.keepalive_timeout_s, self._ping_due, asked_at
            )

    def _ping_due(self, asked_at: float) -> None:
        if self._heard_at < asked_at:
            self.abort()
        else:
            self._arm_keepalive(self._shared.keepalive_s)

    # Output

    def _mark(self) -> None:
        if not self._marked:
            self._marked = True
            self._shared.mark(self)

    def flush(self) -> None:
        """Writes what has gathered, in one piece."""
        self._marked = False
        connection, transport = self._connection, self._transport
        if connection is None or transport is None or self._closing:
            return
        try:
            connection.pump()
        except Exception:
            self._broken()
            return
        if connection.out:
            data = b"".join(connection.out)
            connection.taken()
            transport.write(data)
        if connection.finished or (connection.leaving and not connection.streams):
            self._close()

    def _close(self) -> None:
        """Lets the client read our last words; closing with its bytes unread would discard them."""
        transport = self._transport
        if transport is None or self._closing:
            return
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._shared.loop.call_later(limits.CLOSE_LINGER_S, self.abort)
        with contextlib.suppress(OSError, RuntimeError):
            transport.write_eof()

    def _broken(self) -> None:
        log.exception("a gRPC connection ends because of a mistake in the server; please report it")
        self.abort()

    # The end of the server

    @property
    def is_busy(self) -> bool:
        """Calls are under way."""
        return self._connection is not None and bool(self._connection.streams)

    def leave(self) -> None:
        """No new calls; a connection without any ends now."""
        if self._connection is None:
            self.abort()
        else:
            self._connection.leave()
            self.flush()

    def fail_calls(self) -> None:
        """Ends what is still open."""
        if self._connection is not None:
            self._connection.stop()
            self.flush()
            self._close()

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()


def _peer_name(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return "unix:"
    host, port = name[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
