"""The connection that this member keeps to one peer: dialled for ever, bounded in memory.

What leaves here is Raft messages (those of one turn together), questions, and pings. While
there is no connection, or the queue is full, messages are dropped: Raft repeats what matters.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from kvstore import faults
from kvstore.errors import TOO_MANY_REQUESTS, Code, EtcdError
from kvstore.metrics import Metrics
from kvstore.node.peer_connection import Address, Framed
from kvstore.node.peer_limits import (
    CALLS_PENDING_MAX,
    DIAL_TIMEOUT_S,
    FRAME_BYTES_MAX,
    FRAME_BYTES_TARGET,
    MESSAGES_QUEUED_BYTES_MAX,
    MESSAGES_QUEUED_MAX,
    PING_S,
    PING_TIMEOUT_S,
    RECONNECT_MAX_S,
    RECONNECT_MIN_S,
    REFUSALS_REMEMBERED_MAX,
)
from kvstore.node.wire import (
    VERSION,
    FrameError,
    Hello,
    Kind,
    Purpose,
    check_types,
    frame,
    hello_frame,
)
from raft.messages import Append, ForwardProposal, Message, to_wire

__all__ = ("Dialer", "Link", "Outgoing", "RefusedError")

_LOG = logging.getLogger(__name__)

_MESSAGE_BYTES = 64
"""What a message or an entry weighs beside its payload, roughly."""


class RefusedError(ConnectionError):
    """The other side answered, and wants nothing to do with us."""


@dataclass(frozen=True, slots=True)
class Dialer:
    """Who dials: what every outgoing connection of a member has in common."""

    cluster_id: int
    member_id: int
    peer_urls: tuple[str, ...]
    tls: ssl.SSLContext | None

    async def dial(self, url: str, target: int, purpose: Purpose, connection: Outgoing) -> None:
        """Connects and shakes hands; raises OSError (also RefusedError) or TimeoutError."""
        address = Address.of(url)
        context = address.context(url, self.tls)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                await loop.create_connection(
                    lambda: connection, address.host, address.port, ssl=context
                )
                connection.write(
                    hello_frame(
                        Hello(
                            VERSION,
                            purpose,
                            self.cluster_id,
                            self.member_id,
                            target,
                            self.peer_urls,
                        )
                    )
                )
                welcome = await connection.welcome
        except BaseException as error:
            connection.welcome.cancel()
            connection.abort("the handshake was given up")
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"no answer from {url} in time") from error
            raise
        if welcome != (self.cluster_id, target):
            connection.abort("another member answered")
            raise RefusedError(
                f"member {welcome[1]:x} of cluster {welcome[0]:x} answers at {url}, where member "
                f"{target:x} of cluster {self.cluster_id:x} should be"
            )


class Outgoing(Framed):
    """A connection that this member dialled: first the answer to HELLO, then the rest."""

    def __init__(self) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.welcome: asyncio.Future[tuple[int, int]] = loop.create_future()
        self.over: asyncio.Future[str] = loop.create_future()
        """Why it ended, once it has."""

    def answered(self, kind: int, fields: Sequence[Any]) -> None:
        """A frame after the handshake."""
        raise FrameError(f"frame kind {kind} is not expected")

    def received(self, kind: int, fields: Sequence[Any]) -> None:
        if self.welcome.done():
            self.answered(kind, fields)
        elif kind == Kind.WELCOME:
            check_types(fields, int, int)
            self.trust(FRAME_BYTES_MAX)
            self.welcome.set_result((fields[0], fields[1]))
        elif kind == Kind.REFUSED:
            check_types(fields, str)
            self.welcome.set_exception(RefusedError(fields[0]))
            self.close("refused")
        else:
            raise FrameError(f"frame kind {kind} in place of a welcome")

    def ended(self, reason: str) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(ConnectionError(reason))
        if not self.over.done():
            self.over.set_result(reason)


class _PeerConnection(Outgoing):
    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def answered(self, kind: int, fields: Sequence[Any]) -> None:
        if kind == Kind.PONG:
            check_types(fields, int)
            self._link.pong(fields[0])
        elif kind == Kind.ANSWER:
            check_types(fields, int, bytes)
            self._link.answered(fields[0], fields[1], None)
        elif kind == Kind.FAILURE:
            check_types(fields, int, int, str)
            code = Code(fields[1]) if fields[1] in tuple(Code) else Code.UNKNOWN
            self._link.answered(fields[0], b"", EtcdError(code, fields[2]))
        else:
            super().answered(kind, fields)

    def drained(self) -> None:
        self._link.flush()


class Link:
    """One peer, as this member reaches it."""

    def __init__(
        self,
        peer_id: int,
        urls: Sequence[str],
        *,
        dialer: Dialer,
        metrics: Metrics,
        random: Callable[[], float],
        on_unreachable: Callable[[int], None],
    ) -> None:
        """`random()` gives a number from 0 to below 1."""
        self.peer_id = peer_id
        self.urls = tuple(urls)
        self.connected_at: float | None = None
        """Loop time of the handshake; None while there is no connection."""
        self.dropped = 0
        """Messages that never left."""
        self._url = self.urls[0]
        self._dialer = dialer
        self._random = random
        self._on_unreachable = on_unreachable
        self._loop = asyncio.get_running_loop()
        self._connection: _PeerConnection | None = None
        self._queue: deque[tuple[Message, int]] = deque()
        self._queued_bytes = 0
        self._overflowing = False
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = count(1)
        self._ping: tuple[int, float] | None = None
        self._ping_timer: asyncio.TimerHandle | None = None
        self._nudge = asyncio.Event()
        self._troubles: set[str] = set()
        """Failures to connect that were logged; not again before a connection succeeded."""
        name = f"{peer_id:x}"
        self._sent_bytes = metrics.peer_sent_bytes.labels(name)
        self._failures = metrics.peer_sent_failures.labels(name)
        self._round_trip = metrics.peer_round_trip_seconds.labels(name)
        self._task = self._loop.create_task(self._keep_connected())

    @property
    def current_url(self) -> str:
        """Where the peer answered last, or is tried now."""
        return self._url if self._url in self.urls else self.urls[0]

    # ---- sending ---------------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> None:
        """Sends messages as far as the socket takes them, queues the rest, or drops them.

        At once, not at the end of the loop's turn: the caller goes on to apply entries, and the
        peer's disk could have been at work meanwhile.
        """
        if self._connection is None:
            self._drop(len(messages))
            return
        for position, message in enumerate(messages):
            size_bytes = _weight(message)
            if (
                len(self._queue) >= MESSAGES_QUEUED_MAX
                or self._queued_bytes + size_bytes > MESSAGES_QUEUED_BYTES_MAX
            ):
                self._overflow(len(messages) - position)
                break
            self._queue.append((message, size_bytes))
            self._queued_bytes += size_bytes
        self.flush()

    def flush(self) -> None:
        """Writes what is queued, as long as the socket takes it."""
        connection = self._connection
        while self._queue and connection is not None and connection.writable:
            messages = []
            size_bytes = 0
            while self._queue and size_bytes < FRAME_BYTES_TARGET:
                message, weight = self._queue.popleft()
                messages.append(to_wire(message))
                size_bytes += weight
            self._queued_bytes -= size_bytes
            try:
                faults.point("peer.before_send")
                self._write(frame(Kind.MESSAGES, messages))
                faults.point("peer.after_send")
            except FrameError as error:
                _LOG.error("messages to %x were dropped: %s", self.peer_id, error)
                self._drop(len(messages))
            except OSError as error:
                connection.abort(str(error))
                return
        if not self._queue:
            self._overflowing = False

    def _write(self, data: bytes) -> None:
        assert self._connection is not None, "not connected"
        self._connection.write(data)
        self._sent_bytes.inc(len(data))

    def _overflow(self, messages: int) -> None:
        if not self._overflowing:
            self._overflowing = True
            _LOG.warning(
                "peer %x does not keep up: messages to it are dropped beyond %d bytes",
                self.peer_id,
                self._queued_bytes,
            )
        self._drop(messages)

    def _drop(self, messages: int) -> None:
        if messages:
            self.dropped += messages
            self._failures.inc(messages)
            # Not from within: the caller is in the middle of something.
            self._loop.call_soon(self._on_unreachable, self.peer_id)

    # ---- questions -------------------------------------------------------------------------

    async def call(self, method: str, payload: bytes, timeout_s: float) -> bytes:
        """Asks the peer. Raises OSError or TimeoutError without an answer; else its EtcdError."""
        if self._connection is None:
            raise ConnectionError(f"not connected to member {self.peer_id:x}")
        if len(self._calls) >= CALLS_PENDING_MAX:
            raise TOO_MANY_REQUESTS
        number = next(self._numbers)
        try:
            question = frame(Kind.CALL, number, method, payload)
        except FrameError as error:
            raise EtcdError(Code.INVALID_ARGUMENT, f"{method}: {error}") from error
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._calls[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                self._write(question)
                return await answer
        finally:
            del self._calls[number]

    def answered(self, number: int, payload: bytes, error: EtcdError | None) -> None:
        """An answer has come; one that nobody waits for any more is dropped."""
        waiting = self._calls.get(number)
        if waiting is None or waiting.done():
            return
        if error is not None:
            waiting.set_exception(error)
        else:
            waiting.set_result(payload)

    # ---- connecting ------------------------------------------------------------------------

    def nudge(self) -> None:
        """The peer gave a sign of life: dialling it again is worth while now."""
        self._nudge.set()

    async def close(self) -> None:
        """Ends the link for good."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_connected(self) -> None:
        pause_s = RECONNECT_MIN_S
        attempt = 0
        while True:
            url = self._url = self.urls[attempt % len(self.urls)]
            attempt += 1
            connection = _PeerConnection(self)
            try:
                await self._dialer.dial(url, self.peer_id, Purpose.PEER, connection)
            except (OSError, TimeoutError) as error:
                self._report(url, error)
            else:
                stayed_s = await self._use(connection, url)
                if stayed_s >= RECONNECT_MAX_S:
                    pause_s = RECONNECT_MIN_S
            self._nudge.clear()
            try:
                async with asyncio.timeout(pause_s * (1 - self._random() / 2)):
                    await self._nudge.wait()
                await asyncio.sleep(RECONNECT_MIN_S * (1 - self._random() / 2))
            except TimeoutError:
                pass
            pause_s = min(2 * pause_s, RECONNECT_MAX_S)

    async def _use(self, connection: _PeerConnection, url: str) -> float:
        """Lives with a connection until it ends; returns how long that was, in seconds."""
        self._troubles.clear()
        self._connection = connection
        self.connected_at = started = self._loop.time()
        _LOG.info("connected to member %x at %s", self.peer_id, url)
        self._ping = None
        self._send_ping()
        reason = "this member is stopping"
        try:
            reason = await connection.over
        finally:
            self._disconnected(reason)
        _LOG.warning("lost the connection to member %x: %s", self.peer_id, reason)
        self._on_unreachable(self.peer_id)
        return self._loop.time() - started

    def _disconnected(self, reason: str) -> None:
        assert self._connection is not None
        self._connection.abort(reason)
        self._connection = None
        self.connected_at = None
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        lost, self._queued_bytes = len(self._queue), 0
        self._queue.clear()
        self.dropped += lost
        self._failures.inc(lost)
        for waiting in self._calls.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError(f"lost the connection: {reason}"))

    def _report(self, url: str, error: Exception) -> None:
        trouble = f"{url}: {error}"
        if trouble not in self._troubles and len(self._troubles) < REFUSALS_REMEMBERED_MAX:
            self._troubles.add(trouble)
            _LOG.warning("cannot connect to member %x at %s", self.peer_id, trouble)

    # ---- round trips -----------------------------------------------------------------------

    def pong(self, number: int) -> None:
        """The peer has answered a ping."""
        if self._ping is not None and self._ping[0] == number:
            self._round_trip.observe(time.perf_counter() - self._ping[1])
            self._ping = None

    def _send_ping(self) -> None:
        assert self._connection is not None
        # Not the loop's clock: uvloop's goes in steps of 1 ms, longer than a round trip on a LAN.
        now = time.perf_counter()
        if self._ping is None:
            self._ping = (next(self._numbers), now)
            self._write(frame(Kind.PING, self._ping[0]))
        elif now - self._ping[1] >= PING_TIMEOUT_S:
            self._connection.abort(f"no answer for {PING_TIMEOUT_S:g} s")
            return
        self._ping_timer = self._loop.call_later(PING_S, self._send_ping)


def _weight(message: Message) -> int:
    """About how many bytes a message takes on the wire."""
    if type(message) is Append:
        entries = message.entries
        return _MESSAGE_BYTES * (1 + len(entries)) + sum(len(entry.data) for entry in entries)
    if type(message) is ForwardProposal:
        return _MESSAGE_BYTES + sum(len(data) + 8 for data in message.datas)
    return _MESSAGE_BYTES
