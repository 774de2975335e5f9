"""What a connection sends: output that gathers over a loop turn, and who may add to it when.

Streams put DATA out as far as the client's windows, the socket and fairness allow. A stream that
has something to say is *ready* and gets its turn in `pump`; one that is kept from it by what all
share (the connection's window, a full socket, a long turn) is *starved* and becomes ready again
when that changes; one whose own window is used up is neither until the client widens it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Protocol

from kvstore.api.http2 import frames, limits, responses
from kvstore.api.http2.errors import ErrorCode
from kvstore.api.http2.flow import DEFAULT_WINDOW
from kvstore.api.http2.headers import EMPTY_THE_TABLE
from kvstore.api.http2.load import Load
from kvstore.api.http2.responses import unary_head, unary_tail
from kvstore.api.http2.sender import Verdict

__all__ = ("Output", "Stream")


class Stream(Protocol):
    """An open stream, as its connection sees it."""

    open: bool
    """The client may still send; cleared by the connection's caller when END_STREAM arrives."""

    @property
    def delta(self) -> int:
        """The send window relative to the client's initial window."""

    def data(self, payload: bytes, size: int, end: bool) -> None:
        """DATA: its payload, what it counts in windows, and whether it is the last."""

    def ended(self) -> None:
        """The client's half is closed by a frame without DATA."""

    def widen(self, increment: int) -> bool:
        """More send window; False: too much."""

    def drain(self) -> Verdict:
        """Its turn to send."""

    def lost(self) -> None:
        """The client has reset it, or the connection is gone: nothing can be sent any more."""

    def stop(self) -> None:
        """The server goes down: fail it."""

    def expire(self) -> None:
        """Its deadline has passed."""


class Output:
    """The sending half of a connection. `on_output` is called when output appears at a time when
    its taker would not look for it anyway."""

    def __init__(self, on_output: Callable[[], None], load: Load | None = None) -> None:
        self._on_output = on_output
        self.load = load or Load()
        self.streams: dict[int, Stream] = {}
        """Streams on which we have something to send or may get something."""
        self.out: list[bytes | memoryview] = []
        """What is to be written; the owner of the socket empties it by `taken`."""
        self.send_window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        """Send windows: the connection's, and that of a stream that has just begun."""
        self.queued_bytes = 0
        """Response bytes of all streams that wait for windows."""
        self.paused = False
        """The socket takes no more; set by its owner."""
        self._ready: dict[int, Stream] = {}
        self._starved: dict[int, Stream] = {}
        self.turn_left = limits.TURN_BYTES
        """Bytes of DATA that may still leave in this loop turn."""
        self._frames_sent = 0
        self._busy = False
        """The taker is about to look: output needs no announcement."""
        self._dropped: dict[int, None] = {}
        """Streams that ended with a reset of ours while the client might still be sending."""
        self._encoder_table = limits.HEADER_TABLE_BYTES
        self._table_notice = False

    # What the socket's owner calls

    def pump(self) -> None:
        """Lets streams put out what they have, a share each in turn; announces what is left."""
        batch, self._ready = self._ready, {}
        if len(batch) > limits.TURN_STREAMS:
            items = iter(batch.items())
            batch = dict(islice(items, limits.TURN_STREAMS))
            self._ready = dict(items)
        self._busy = True
        while batch:
            again: dict[int, Stream] = {}
            for stream_id, stream in batch.items():
                verdict = stream.drain()
                if verdict is Verdict.MORE:
                    again[stream_id] = stream
                elif verdict is Verdict.STARVED:
                    self._starved[stream_id] = stream
            batch = again
        self._busy = False
        if self._ready:
            self._on_output()

    def taken(self) -> None:
        """`out` was written: a new turn begins."""
        self.out.clear()
        self.turn_left = limits.TURN_BYTES
        self._feed_the_starved()

    def resume(self) -> None:
        """The socket takes more again."""
        self.paused = False
        self._feed_the_starved()

    def _feed_the_starved(self) -> None:
        if self._starved and self.room() > 0:
            self._ready |= self._starved
            self._starved.clear()
            self._touch()

    # What streams call

    @property
    def congested(self) -> bool:
        """So many response bytes wait for this client that its calls are to be refused."""
        return self.load.queues_too_much(self.queued_bytes)

    def queue(self, count: int) -> None:
        """So many response bytes more wait, or fewer when it is negative."""
        self.queued_bytes += count
        self.load.queued_bytes += count

    def room(self) -> int:
        """Bytes of DATA that all streams together may send now; not above zero: none."""
        return 0 if self.paused else min(self.send_window, self.turn_left)

    def want(self, stream_id: int, stream: Stream) -> None:
        """The stream may have something to send."""
        self._ready[stream_id] = stream
        self._touch()

    def reply(self, stream_id: int, delta: int, body: bytes) -> bool:
        """A whole unary response at once, if it fits into the windows and one frame."""
        length = len(body)
        framed = length + responses.PREFIX.size
        if (
            framed > frames.MAX_FRAME
            or framed > self.send_window
            or framed > self.initial_window + delta
            or self._table_notice
        ):
            return False
        self.send_window -= framed
        self.out += unary_head(stream_id, length), body, unary_tail(stream_id)
        self.end(stream_id)
        return True

    def write_headers(self, stream_id: int, block: bytes, *, end_stream: bool) -> None:
        """Response headers or trailers."""
        if self._table_notice:
            self._table_notice = False
            block = EMPTY_THE_TABLE + block
        self.out.append(frames.headers(stream_id, block, end_stream=end_stream))
        self._touch()

    def sent_data(self, length: int) -> None:
        """A stream puts a frame of DATA into `out`."""
        self.send_window -= length
        self.turn_left -= length
        self._frames_sent += 1
        self._touch()

    def end(self, stream_id: int) -> None:
        """END_STREAM is out. A client that is still sending is told to stop."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None and stream.open:
            self._drop(stream_id, ErrorCode.NO_ERROR)
        if not self._busy:
            self._on_output()

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Ends a stream on which the client broke a rule."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            stream.lost()
        if stream is None or stream.open:
            self._drop(stream_id, code)
        else:
            self.out.append(frames.rst_stream(stream_id, code))
            self._touch()

    def widen(self, stream_id: int, increment: int) -> None:
        """The client may send this much more on a stream."""
        self.out.append(frames.window_update(stream_id, increment))
        self._touch()

    def _touch(self) -> None:
        if not self._busy:
            self._on_output()

    def _drop(self, stream_id: int, code: ErrorCode) -> None:
        """Resets a stream on which more may arrive, which is then no fault."""
        self.out.append(frames.rst_stream(stream_id, code))
        dropped = self._dropped
        dropped[stream_id] = None
        if len(dropped) > limits.DROPPED_STREAMS:
            del dropped[next(iter(dropped))]
        self._touch()
