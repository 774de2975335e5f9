"""Questions that come over TCP: each with its length in front, as many as one likes."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import cast

from kvstore.gateways.dns.budget import Budget
from kvstore.gateways.dns.counts import Counts
from kvstore.gateways.dns.limits import TCP_CONNECTIONS_MAX, TCP_IDLE_S, TURN_S
from kvstore.gateways.dns.responder import Responder

__all__ = ("TcpConnection", "TcpEndpoint")

_LOG = logging.getLogger(__name__)
BACKLOG = 128
LEAST_QUESTION_BYTES = 12
"""The head of a message: less is none, and what follows it cannot be trusted."""
SWEEP_S = 1.0
LATER_MAX = 16
"""Questions of one connection that wait for a service to be read."""


class TcpEndpoint:
    """The listening sockets, which it owns, and all connections."""

    def __init__(
        self,
        responder: Responder,
        budget: Budget,
        counts: Counts,
        *,
        idle_s: float = TCP_IDLE_S,
        connections_max: int = TCP_CONNECTIONS_MAX,
    ) -> None:
        self.responder = responder
        self.budget = budget
        self.counts = counts
        self.connections: dict[TcpConnection, None] = {}
        """The one that has been silent for longest first."""
        self._idle_s = idle_s
        self._connections_max = connections_max
        self._servers: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts connections."""
        loop = asyncio.get_running_loop()
        for each in sockets:
            self._servers.append(await loop.create_server(self.connect, sock=each, backlog=BACKLOG))
        self._sweep = loop.call_later(min(SWEEP_S, self._idle_s), self._close_idle)

    def connect(self) -> TcpConnection:
        """What serves one connection."""
        return TcpConnection(self)

    async def stop(self) -> None:
        """Closes everything at once: whoever waits for an answer asks another member."""
        if self._sweep is not None:
            self._sweep.cancel()
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.abort()
        for server in self._servers:
            await server.wait_closed()

    def has_room(self) -> bool:
        """Whether one more connection may be had."""
        return len(self.connections) < self._connections_max

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time() - self._idle_s
        for connection in list(self.connections):
            if connection.active_at > before:
                break
            connection.abort()
        self._sweep = loop.call_later(min(SWEEP_S, self._idle_s), self._close_idle)


class TcpConnection(asyncio.Protocol):
    """One connection. While answers are not taken, or the budget is used up, nothing is read."""

    def __init__(self, endpoint: TcpEndpoint) -> None:
        self._endpoint = endpoint
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._full = False
        self._reading = True
        self._turn: asyncio.Handle | None = None
        self._later = 0
        self._ended = False
        self.active_at = 0.0
        """The loop's time of the last whole question."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        if not self._endpoint.has_room():
            self._endpoint.counts.drops["connections"] += 1
            self._transport.abort()
            return
        self._touch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._endpoint.connections.pop(self, None)
        self._transport = None
        self._buffer.clear()
        if self._turn is not None:
            self._turn.cancel()

    def abort(self) -> None:
        """Ends the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _touch(self) -> None:
        self.active_at = asyncio.get_running_loop().time()
        self._endpoint.connections.pop(self, None)
        self._endpoint.connections[self] = None

    # ---- what comes ------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._turn is None:
            self._work()

    def eof_received(self) -> bool:
        # Who says no more still gets his answers.
        self._ended = True
        if self._turn is None:
            self._work()
        return True

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._schedule(0.0)

    def _work(self) -> None:
        """Answers what is there, for one turn of the loop."""
        self._turn = None
        transport = self._transport
        if transport is None:
            return
        endpoint = self._endpoint
        began = now = perf_counter()
        wait_s = endpoint.budget.wait_s()
        answered = 0
        while not wait_s and not self._full and now - began < TURN_S:
            if transport.is_closing() or self._later >= LATER_MAX or not self._one():
                break
            answered += 1
            then, now = now, perf_counter()
            endpoint.counts.took(now - then)
        if answered:
            endpoint.budget.spend(now - began)
            self._touch()
        self._go_on(wait_s)

    def _go_on(self, wait_s: float) -> None:
        """Reads on if all is answered; otherwise comes back for the rest."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        rest = self._whole()
        if rest == self._reading and not self._ended:
            self._reading = not rest
            (transport.pause_reading if rest else transport.resume_reading)()
        if rest and not self._full and self._later < LATER_MAX:
            self._schedule(wait_s)
        elif self._ended and not rest and not self._later:
            transport.close()

    def _whole(self) -> bool:
        """Whether a whole question waits."""
        buffer = self._buffer
        return len(buffer) >= 2 and len(buffer) >= 2 + (buffer[0] << 8 | buffer[1])

    def _schedule(self, wait_s: float) -> None:
        if self._turn is None and self._transport is not None:
            loop = asyncio.get_running_loop()
            self._turn = (
                loop.call_later(wait_s, self._work) if wait_s else loop.call_soon(self._work)
            )

    def _one(self) -> bool:
        """Answers one question; False if no whole one is there."""
        if not self._whole():
            return False
        buffer = self._buffer
        end = 2 + (buffer[0] << 8 | buffer[1])
        message = bytes(buffer[2:end])
        del buffer[:end]
        if len(message) < LEAST_QUESTION_BYTES:
            self._endpoint.counts.drops["no question"] += 1
            self.abort()
            return False
        try:
            self._answer(message)
        except Exception:
            self._endpoint.counts.drops["error"] += 1
            _LOG.exception("a question could not be answered; please report it")
            self.abort()
        return True

    def _answer(self, message: bytes) -> None:
        answer = self._endpoint.responder.respond(message, udp=False)
        if isinstance(answer, bytes):
            self._write(answer)
        elif answer is not None and self._endpoint.responder.when_read(
            answer, self._again(message)
        ):
            self._later += 1

    def _again(self, message: bytes) -> Callable[[], None]:
        def again() -> None:
            self._later -= 1
            if self._transport is not None:
                self._answer(message)
                self._schedule(0.0)

        return again

    def _write(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(len(answer).to_bytes(2, "big") + answer)
