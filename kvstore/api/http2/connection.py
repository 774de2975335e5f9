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
from kvstore.api.http2.headers import HeaderDecoder
from kvstore.api.http2.load import Load
from kvstore.api.http2.nuisance import Nuisances
from kvstore.api.http2.output import Output, Stream
from kvstore.api.http2.requests import MALFORMED, Opening, Request, trailers_are_sound
from kvstore.errors import TOO_MANY_REQUESTS

__all__ = ("Connection", "Host")

_SETTINGS = (
    (Setting.INITIAL_WINDOW_SIZE, limits.STREAM_WINDOW_BYTES),
    (Setting.MAX_HEADER_LIST_SIZE, limits.HEADER_LIST_BYTES),
)


_OVERLOADED = Request(
    None, refusal=responses.refusal(TOO_MANY_REQUESTS.code, TOO_MANY_REQUESTS.message)
)


class Host(Protocol):
    """What serves the streams of connections."""

    def read_request(self, fields: tuple[tuple[bytes, bytes], ...] | None) -> Opening:
        """Interprets a header list."""

    def open(
        self, connection: Connection, stream_id: int, request: Request, timeout_s: float | None
    ) -> Stream:
        """Begins a call; `request.method` is not None."""


class Connection(Output):
    """The state of one connection. `peer` is the client's address as gRPC writes it."""

    def __init__(
        self,
        host: Host,
        peer: str,
        *,
        clock: Callable[[], float],
        on_output: Callable[[], None],
        max_streams: int = limits.STREAMS_PER_CONNECTION,
        load: Load | None = None,
    ) -> None:
        super().__init__(on_output, load)
        self._host = host
        self.peer = peer
        self._max_streams = min(max_streams, limits.STREAMS_PER_CONNECTION)
        self.held_bytes = 0
        """Request bytes of all streams that wait for more of their message or for a reader."""
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
        self._block: bytearray | None = None
        self._block_of = (0, 0)
        self._block_frames = 0
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

    def hold(self, count: int) -> None:
        """So many request bytes more wait for the rest of their message or for a reader."""
        self.held_bytes += count
        self.load.held_bytes += count

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
        if self.queued_bytes and self.congested:
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
        # Each open stream is looked at, and one frame may hold 2,700 of these.
        weight = len(self.streams) // limits.STREAMS_PER_NUISANCE
        self._nuisances.frame(self._progress, weight)
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
