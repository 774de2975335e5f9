"""An HTTP/2 client that does what it is told, rules or no rules."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from types import TracebackType

from hpack import Decoder, Encoder

from kvstore.api.http2 import frames
from kvstore.api.http2.errors import ErrorCode
from kvstore.api.http2.frames import Frame, FrameSplitter

Headers = list[tuple[str, str]]

PATH = "/test.Service/"


def head(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    return struct.pack(">BHBBL", length >> 16, length & 0xFFFF, kind, flags, stream_id)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return head(len(payload), kind, flags, stream_id) + payload


def message(payload: bytes, compressed: int = 0) -> bytes:
    """A length-prefixed message."""
    return struct.pack(">BL", compressed, len(payload)) + payload


def request_headers(name: str = "Echo", *more: tuple[str, str], **changes: str | None) -> Headers:
    """A gRPC request's headers; `changes` by name, `_` for `-`, pseudo-headers without colon."""
    values: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": PATH + name,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    for key, value in changes.items():
        plain = key.replace("_", "-")
        values[f":{plain}" if f":{plain}" in values else plain] = value
    return [(key, value) for key, value in values.items() if value is not None] + list(more)


class ClosedError(Exception):
    """The server closed the connection."""


class Raw:
    """A connection. `settings=None`: nothing is sent at first."""

    def __init__(
        self, target: str, settings: Iterable[tuple[int, int]] | None = (), timeout: float = 5.0
    ) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.encoder = Encoder()
        self.decoder = Decoder()
        self._splitter = FrameSplitter()
        self._received: list[Frame] = []
        if settings is not None:
            self.send(frames.PREFACE + frames.settings(settings))

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    # Sending

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def headers(self, stream_id: int, fields: Headers, flags: int = frames.END_HEADERS) -> bytes:
        return frame(frames.HEADERS, flags, stream_id, self.encoder.encode(fields))

    def begin(self, stream_id: int, name: str = "Echo", **changes: str | None) -> None:
        self.send(self.headers(stream_id, request_headers(name, **changes)))

    def data(self, stream_id: int, payload: bytes, *, end: bool = False) -> None:
        self.send(frame(frames.DATA, frames.END_STREAM if end else 0, stream_id, payload))

    def call(self, stream_id: int, payload: bytes = b"", name: str = "Echo") -> None:
        """A whole unary request."""
        self.begin(stream_id, name)
        self.data(stream_id, message(payload), end=True)

    def widen(self, stream_id: int, increment: int) -> None:
        self.send(frames.window_update(stream_id, increment))

    # Receiving

    def read(self) -> Frame:
        """The next frame, whatever it is."""
        while not self._received:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                raise ClosedError from None
            if not data:
                raise ClosedError
            self._received += self._splitter.feed(data)
        return self._received.pop(0)

    def next(self, *skip: int) -> Frame:
        """The next frame but for SETTINGS, the connection's WINDOW_UPDATE and `skip`."""
        while True:
            got = self.read()
            if got[0] in (frames.SETTINGS, *skip):
                continue
            if got[0] == frames.WINDOW_UPDATE and got[2] == 0:
                continue
            return got

    def response(self, stream_id: int) -> tuple[dict[str, str], bytes, dict[str, str]]:
        """Headers, DATA and trailers of a stream; trailers are empty for a trailers-only one."""
        blocks: list[dict[str, str]] = []
        body = b""
        while True:
            kind, flags, of, payload = self.next(frames.WINDOW_UPDATE, frames.PING)
            if kind == frames.RST_STREAM and of != stream_id:
                continue
            assert of == stream_id, (kind, flags, of, payload)
            if kind == frames.HEADERS:
                blocks.append(dict(self.decoder.decode(payload)))
            else:
                assert kind == frames.DATA, (kind, payload)
                body += payload
            if flags & frames.END_STREAM:
                return blocks[0], body, blocks[1] if len(blocks) > 1 else {}

    def status(self, stream_id: int) -> tuple[str, str]:
        """(grpc-status, grpc-message) that a stream ends with."""
        first, _, last = self.response(stream_id)
        fields = last or first
        return fields["grpc-status"], fields.get("grpc-message", "")

    def reset(self, stream_id: int) -> ErrorCode:
        """The code of the RST_STREAM that comes next."""
        kind, _, of, payload = self.next()
        assert (kind, of) == (frames.RST_STREAM, stream_id), (kind, of, payload)
        return ErrorCode(int.from_bytes(payload, "big"))

    def goaway(self) -> ErrorCode:
        """The code of the GOAWAY that comes next, with the end of the connection behind it."""
        while True:
            kind, _, _, payload = self.next(frames.PING)
            if kind == frames.GOAWAY:
                break
            assert kind in (frames.HEADERS, frames.DATA, frames.RST_STREAM), (kind, payload)
        assert self.is_closed()
        return ErrorCode(int.from_bytes(payload[4:8], "big"))

    def is_closed(self) -> bool:
        try:
            while True:
                self.read()
        except ClosedError:
            return True

    def is_alive(self, token: bytes = b"are you?") -> bool:
        """Whether the server still answers pings on this connection."""
        self.send(frames.ping(token, ack=False))
        while True:
            kind, flags, _, payload = self.next()
            if kind == frames.PING and flags & frames.ACK and payload == token:
                return True


def names(received: Sequence[Frame]) -> list[tuple[int, int]]:
    """(type, stream) of each frame."""
    return [(kind, stream_id) for kind, _, stream_id, _ in received]
