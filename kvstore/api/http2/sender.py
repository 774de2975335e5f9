"""What one stream has to send: messages within the windows, then trailers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from kvstore.api.http2 import limits, responses
from kvstore.api.http2.flow import MAX_WINDOW
from kvstore.api.http2.frames import MAX_FRAME, data_head

if TYPE_CHECKING:
    from kvstore.api.http2.output import Output

__all__ = ("Sender", "Verdict")

_PREFIX_BYTES = responses.PREFIX.size


class Verdict(IntEnum):
    """How a stream's turn to send has ended."""

    IDLE = 0
    """Nothing to send, or the stream's own window is used up: something will wake it."""
    STARVED = 1
    """It waits for what all streams share: the connection's window, the socket, the turn."""
    MORE = 2
    """It has had its share and would go on."""


class Sender:
    """Sends at once what the windows admit and queues the rest. Queued messages are not copied,
    so one that many streams share is in memory once."""

    __slots__ = (
        "_closing",
        "_connection",
        "_offset",
        "_queue",
        "_stream_id",
        "delta",
        "done",
        "queued",
        "started",
    )

    def __init__(self, connection: Output, stream_id: int, delta: int = 0) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self.delta = delta
        """The stream's window relative to the initial window that the client has set: so a
        change of the latter reaches open streams by itself, as the protocol demands."""
        self.queued = 0
        """Bytes that wait for windows."""
        self.started = False
        """The response's headers are out."""
        self.done = False
        """The end of the stream is out, or nobody is there to read it."""
        self._queue: deque[bytes] = deque()
        self._offset = 0
        self._closing: bytes | None = None

    def widen(self, increment: int) -> bool:
        """A WINDOW_UPDATE of this stream; False: it exceeds what a window may be."""
        self.delta += increment
        return self.delta + self._connection.initial_window <= MAX_WINDOW

    def room(self) -> int:
        """Bytes of DATA that may leave now; not above zero: none."""
        connection = self._connection
        if connection.paused:
            return 0
        own = connection.initial_window + self.delta
        return min(own, connection.send_window, connection.turn_left)

    def send(self, messages: Sequence[bytes]) -> int:
        """Sends or queues messages, the headers in front of the first; returns their bytes."""
        size = sum(map(len, messages))
        if self.done or not messages:
            return size
        connection = self._connection
        if not self.started:
            self.started = True
            connection.write_headers(self._stream_id, responses.OPENING, end_stream=False)
        pack = responses.PREFIX.pack
        total = size + _PREFIX_BYTES * len(messages)
        if not self.queued and total <= MAX_FRAME and total <= self.room():
            self.delta -= total
            connection.sent_data(total)
            out = connection.out
            out.append(data_head(total, self._stream_id))
            for message in messages:
                out += pack(0, len(message)), message
            return size
        for message in messages:
            self._queue.append(pack(0, len(message)))
            if message:
                self._queue.append(message)
        self.queued += total
        connection.queue(total)
        if self.queued == total:
            self._write(min(self.room(), limits.TURN_BYTES))
        return size

    def finish(self, trailers: bytes, refusal: bytes) -> None:
        """Ends the stream after all that was sent: with trailers, or with the block `refusal`
        when no headers have left."""
        if self.done or self._closing is not None:
            return
        self._closing = trailers if self.started else refusal
        if not self.queued:
            self._close()

    def abort(self, trailers: bytes, refusal: bytes) -> None:
        """Ends the stream now, whatever was still to be sent."""
        if not self.done:
            self._closing = trailers if self.started else refusal
            self._forget()
            self._close()

    def drain(self) -> Verdict:
        """Sends a share of what is queued."""
        self._write(min(self.room(), limits.DRAIN_BYTES))
        if not self.queued:
            if self._closing is not None and not self.done:
                self._close()
            return Verdict.IDLE
        return self.verdict()

    def verdict(self) -> Verdict:
        """What keeps a stream that has more to send from sending it."""
        connection = self._connection
        if connection.initial_window + self.delta <= 0:
            return Verdict.IDLE
        return Verdict.STARVED if connection.room() <= 0 else Verdict.MORE

    def discard(self) -> None:
        """Nobody is there any more."""
        self.done = True
        self._forget()

    def _forget(self) -> None:
        self._connection.queue(-self.queued)
        self.queued = 0
        self._queue.clear()

    def _write(self, budget: int) -> None:
        """Puts out DATA of at most `budget` bytes."""
        budget = min(budget, self.queued)
        while budget > 0:
            length = min(budget, MAX_FRAME)
            self._write_frame(length)
            budget -= length

    def _write_frame(self, length: int) -> None:
        connection, queue = self._connection, self._queue
        self.delta -= length
        self.queued -= length
        connection.queue(-length)
        connection.sent_data(length)
        out = connection.out
        out.append(data_head(length, self._stream_id))
        offset = self._offset
        while length:
            piece = queue[0]
            left = len(piece) - offset
            if left <= length:
                out.append(memoryview(piece)[offset:] if offset else piece)
                queue.popleft()
                offset = 0
                length -= left
            else:
                out.append(memoryview(piece)[offset : offset + length])
                offset += length
                length = 0
        self._offset = offset

    def _close(self) -> None:
        assert self._closing is not None
        self.done = True
        self._connection.write_headers(self._stream_id, self._closing, end_stream=True)
        self._connection.end(self._stream_id)
