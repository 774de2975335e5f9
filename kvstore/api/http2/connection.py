"""One HTTP/2 connection without its socket: bytes in, calls on streams; bytes out.

`feed` works through all frames of what was read in one pass. What is to be written gathers in
`out` until the owner of the socket takes it, once per loop turn; `on_output` tells that owner when
output appears at another time.

Whatever a client sends ends in one of three ways: it is served, its stream is reset, or the
connection ends with GOAWAY. `feed` never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvstore.api.http2 import frames, limits, responses
from kvstore.api.http2.errors import ErrorCode, Http2Error
from kvstore.api.http2.flow import DEFAULT_WINDOW, MAX_WINDOW, ReceiveWindow
from kvstore.api.http2.frames import Setting
from kvstore.api.http2.headers import EMPTY_THE_TABLE, HeaderDecoder
from kvstore.api.http2.nuisance import Nuisances
from kvstore.api.http2.requests import MALFORMED, Opening, Request, trailers_are_sound
from kvstore.api.http2.responses import unary_head, unary_tail
from kvstore.api.http2.sender import Verdict
from kvstore.errors import Code

__all__ = ("Connection", "Host", "Stream")

_SETTINGS = (
    (Setting.INITIAL_WINDOW_SIZE, limits.STREAM_WINDOW_BYTES),
    (Setting.MAX_HEADER_LIST_SIZE, limits.HEADER_LIST_BYTES),
)


_OVERLOADED = Request(
    None,
    refusal=responses.refusal(
        Code.RESOURCE_EXHAUSTED, "grpc: too many unread responses on this connection"
    ),
)


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


class Host(Protocol):
    """What serves the streams of connections."""

    def read_request(self, fields: tuple[tuple[bytes, bytes], ...] | None) -> Opening:
        """Interprets a header list."""

    def open(
        self, connection: Connection, stream_id: int, request: Request, timeout_s: float | None
    ) -> Stream:
        """Begins a call; `request.method` is not None."""


class Connection:
    """The state of one connection. `peer` is the client's address as gRPC writes it."""

    def __init__(
        self,
        host: Host,
        peer: str,
        *,
        clock: Callable[[], float],
        on_output: Callable[[], None],
        max_streams: int = limits.STREAMS_PER_CONNECTION,
    ) -> None:
        self._host = host
        self.peer = peer
        self._on_output = on_output
        self._max_streams = min(max_streams, limits.STREAMS_PER_CONNECTION)
        self.streams: dict[int, Stream] = {}
        """Streams on which we have something to send or may get something."""
        self.out: list[bytes | memoryview] = []
        """What is to be written; the owner of the socket empties it by `taken`."""
        self.send_window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        """Send windows: the connection's, and that of a stream that has just begun."""
        self.queued_bytes = 0
        """Response bytes of all streams that wait for windows."""
        self.held_bytes = 0
        """Request bytes of all streams that wait for more of their message or for a reader."""
        self.paused = False
        """The socket takes no more; set by its owner."""
        self.established = False
        """Preface and first SETTINGS have arrived."""
        self.finished = False
        """GOAWAY was sent because of a fault: `out` is the last that is written."""
        self.leaving = False
        """GOAWAY was sent because the server goes down: no new streams."""
        self._splitter = frames.FrameSplitter()
        self._preface = frames.PREFACE
        self._decoder = HeaderDecoder(host.read_request)
        self._window = ReceiveWindow(limits.CONNECTION_WINDOW_BYTES)
        self._nuisances = Nuisances(clock)
        self._last_id = 0
        self._dropped: dict[int, None] = {}
        self._block: bytearray | None = None
        self._block_of = (0, 0)
        self._block_frames = 0
        self._encoder_table = limits.HEADER_TABLE_BYTES
        self._table_notice = False
        self._busy = False
        self._ready: dict[int, Stream] = {}
        self._starved: dict[int, Stream] = {}
        self._turn_left = limits.TURN_BYTES
        self._frames_sent = 0
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            frames.DATA: self._data,
            frames.HEADERS: self._headers,
            frames.PRIORITY: self._priority,
            frames.RST_STREAM: self._rst_stream,
            frames.SETTINGS: self._settings,
            frames.PUSH_PROMISE: self._push_promise,
            frames.PING: self._ping,
            frames.GOAWAY: self._goaway,
            frames.WINDOW_UPDATE: self._window_update,
            frames.CONTINUATION: self._continuation,
        }

    # What the socket's owner calls

    def feed(self, data: bytes) -> None:
        """Bytes from the client, from the preface on."""
        if self.finished:
            return
        self._busy = True
        try:
            if self._preface:
                data = self._read_preface(data)
            handlers = self._handlers
            received = self._splitter.feed(data)
            if received and not self.established:
                self._establish(received[0])
            for kind, flags, stream_id, payload in received:
                if self._block is not None and kind != frames.CONTINUATION:
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, "header block interrupted")
                handler = handlers.get(kind)
                if handler is not None:
                    handler(flags, stream_id, payload)
                else:
                    self._nuisances.frame(self._progress)
            if self._splitter.oversized:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "frame larger than the setting")
        except Http2Error as fault:
            self._give_up(fault)
        finally:
            self._busy = False

    def _read_preface(self, data: bytes) -> bytes:
        expected = self._preface
        count = min(len(expected), len(data))
        if data[:count] != expected[:count]:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "not the preface of HTTP/2")
        self._preface = expected[count:]
        if not self._preface:
            pairs = (*_SETTINGS, (Setting.MAX_CONCURRENT_STREAMS, self._max_streams))
            self.out.append(frames.settings(pairs))
            widening = limits.CONNECTION_WINDOW_BYTES - DEFAULT_WINDOW
            self.out.append(frames.window_update(0, widening))
        return data[count:]

    def _establish(self, first: frames.Frame) -> None:
        kind, flags, _, _ = first
        if kind != frames.SETTINGS or flags & frames.ACK:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        self.established = True

    def _give_up(self, fault: Http2Error) -> None:
        self.finished = True
        self.lost()
        self.out.append(frames.goaway(self._last_id, fault.code, fault.reason))

    def lost(self) -> None:
        """The client is gone: every call learns it."""
        self._ready.clear()
        self._starved.clear()
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.lost()

    def leave(self) -> None:
        """The server goes down: takes no new streams; those begun go on."""
        if not self.leaving and not self.finished:
            self.leaving = True
            self.out.append(frames.goaway(self._last_id, ErrorCode.NO_ERROR, "server stops"))
            self._touch()

    def stop(self) -> None:
        """Fails the calls that are still open."""
        for stream in list(self.streams.values()):
            stream.stop()

    def ping(self) -> None:
        """Asks the client for a sign of life."""
        self.out.append(frames.ping(b"kvstore?", ack=False))
        self._touch()

    def pump(self) -> None:
        """Lets streams put out what they have, a share each in turn."""
        batch, self._ready = self._ready, {}
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
        self._turn_left = limits.TURN_BYTES
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

    # What streams call.

    def room(self) -> int:
        """Bytes of DATA that all streams together may send now; not above zero: none."""
        return 0 if self.paused else min(self.send_window, self._turn_left)

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
        self._turn_left -= length
        self._frames_sent += 1

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

    # Frames

    @property
    def _progress(self) -> int:
        return self._last_id // 2 + self._frames_sent

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        if flags & frames.PADDED:
            payload = frames.strip(flags, payload)
        if not self._window.take(size):
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window allows")
        increment = self._window.give_back(size)
        if increment:
            self.out.append(frames.window_update(0, increment))
        stream = self.streams.get(stream_id)
        if stream is None:
            self._data_on_closed(flags, stream_id)
        elif not stream.open:
            self.reset(stream_id, ErrorCode.STREAM_CLOSED)
        elif flags & frames.END_STREAM:
            stream.open = False
            stream.data(payload, size, True)
        else:
            if not payload:
                self._nuisances.frame(self._progress)
            stream.data(payload, size, False)

    def _data_on_closed(self, flags: int, stream_id: int) -> None:
        self._check_begun(stream_id)
        if stream_id not in self._dropped:
            self._nuisances.frame(self._progress)
            self.reset(stream_id, ErrorCode.STREAM_CLOSED)
        if flags & frames.END_STREAM:
            self._dropped.pop(stream_id, None)

    def _check_begun(self, stream_id: int) -> None:
        if stream_id > self._last_id or not stream_id & 1:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"no such stream: {stream_id}")

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"not a client's stream: {stream_id}")
        if flags & (frames.PADDED | frames.PRIORITY_FLAG):
            payload = frames.strip(flags, payload, priority=True)
        if flags & frames.END_HEADERS:
            self._header_block(flags, stream_id, payload)
        else:
            self._block = bytearray(payload)
            self._block_of = flags, stream_id
            self._block_frames = 0

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None or stream_id != self._block_of[1]:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "CONTINUATION out of place")
        block += payload
        self._block_frames += 1
        if (
            len(block) > limits.HEADER_BLOCK_BYTES
            or self._block_frames > limits.CONTINUATION_FRAMES
        ):
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "header block too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._header_block(*self._block_of, bytes(block))

    def _header_block(self, flags: int, stream_id: int, block: bytes) -> None:
        if stream_id <= self._last_id:
            self._trailers(flags, stream_id, block)
            return
        self._last_id = stream_id
        request, timeout_s = self._decoder.read(block)
        if request.method is None or len(self.streams) >= self._max_streams or self.leaving:
            self._refuse(flags, stream_id, request)
            return
        if self.queued_bytes > limits.QUEUED_BYTES:
            self._refuse(flags, stream_id, _OVERLOADED)
            return
        stream = self._host.open(self, stream_id, request, timeout_s)
        self.streams[stream_id] = stream
        if flags & frames.END_STREAM:
            stream.open = False
            stream.ended()

    def _refuse(self, flags: int, stream_id: int, request: Request) -> None:
        ended = flags & frames.END_STREAM
        if request is MALFORMED:
            code = ErrorCode.PROTOCOL_ERROR
        elif request.method is not None:
            code = ErrorCode.REFUSED_STREAM
        else:
            self.write_headers(stream_id, request.refusal, end_stream=True)
            if not ended:
                self._drop(stream_id, ErrorCode.NO_ERROR)
            return
        if ended:
            self.out.append(frames.rst_stream(stream_id, code))
        else:
            self._drop(stream_id, code)

    def _trailers(self, flags: int, stream_id: int, block: bytes) -> None:
        fields = self._decoder.decode(block)
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id not in self._dropped:
                raise Http2Error(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {stream_id}")
            self._nuisances.frame(self._progress)
        elif not stream.open:
            self.reset(stream_id, ErrorCode.STREAM_CLOSED)
        elif not flags & frames.END_STREAM or fields is None or not trailers_are_sound(fields):
            self.reset(stream_id, ErrorCode.PROTOCOL_ERROR)
        else:
            stream.open = False
            stream.ended()

    def _rst_stream(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a wrong length")
        self._check_begun(stream_id)
        self._nuisances.reset(self._last_id // 2)
        self._dropped.pop(stream_id, None)
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            stream.lost()

    def _window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length")
        increment = int.from_bytes(payload, "big") & MAX_WINDOW
        if stream_id == 0:
            self.send_window += increment
            if not increment or self.send_window > MAX_WINDOW:
                code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
                raise Http2Error(code, f"WINDOW_UPDATE of {increment}")
            self._feed_the_starved()
            return
        self._check_begun(stream_id)
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        if not increment:
            self.reset(stream_id, ErrorCode.PROTOCOL_ERROR)
        elif not stream.widen(increment):
            self.reset(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        else:
            self._ready[stream_id] = stream

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong length")
        self._nuisances.frame(self._progress)
        if flags & frames.ACK:
            return
        for name, value in frames.parse_settings(payload):
            if name == Setting.INITIAL_WINDOW_SIZE:
                self._set_initial_window(value)
            elif name == Setting.HEADER_TABLE_SIZE and value < self._encoder_table:
                # Our blocks use no table; once it is empty, no further limit concerns us.
                self._encoder_table = 0
                self._table_notice = True
            elif (name == Setting.ENABLE_PUSH and value > 1) or (
                name == Setting.MAX_FRAME_SIZE and not frames.MAX_FRAME <= value < 2**24
            ):
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"setting {name} is {value}")
        self.out.append(frames.SETTINGS_ACK)

    def _set_initial_window(self, size: int) -> None:
        if size > MAX_WINDOW or any(
            size + stream.delta > MAX_WINDOW for stream in self.streams.values()
        ):
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "initial window too large")
        if size > self.initial_window:
            self._ready |= self.streams
        self.initial_window = size

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong length")
        self._nuisances.frame(self._progress)
        if not flags & frames.ACK:
            self.out.append(frames.ping(payload, ack=True))

    def _priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Priorities are obsolete (RFC 9113) and ignored."""
        if not stream_id:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PRIORITY without a stream")
        self._nuisances.frame(self._progress)
        if len(payload) != 5 and stream_id in self.streams:
            self.reset(stream_id, ErrorCode.FRAME_SIZE_ERROR)

    def _goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """The client will open no more streams; it closes the connection when it is done."""
        if stream_id:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of a wrong length")
        self._nuisances.frame(self._progress)

    def _push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "clients must not push")
