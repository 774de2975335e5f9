"""gRPC's response headers and trailers as ready-made header blocks."""

from __future__ import annotations

import re
import struct
from functools import lru_cache

from kvstore.api.http2 import frames, limits
from kvstore.api.http2.headers import Field, encode
from kvstore.errors import Code

__all__ = ("OK_TRAILERS", "OPENING", "PREFIX", "refusal", "trailers", "unary_head", "unary_tail")

_HALF_ESCAPE = re.compile(rb"%.?$")
_CONTENT_TYPE: Field = (b"content-type", b"application/grpc")
_STATUS_OK: Field = (b":status", b"200")

OPENING = encode([_STATUS_OK, _CONTENT_TYPE])
"""In front of the first message."""

OK_TRAILERS = encode([(b"grpc-status", b"0")])
"""After the last one."""

PREFIX = struct.Struct(">BL")
"""In front of a message: whether it is compressed, and its length."""

_UNARY_HEAD = struct.Struct(f">5sL{len(OPENING)}sBHHLBL")
_OPENING_HEAD = frames.headers(0, OPENING, end_stream=False)[:5]
_TAIL_HEAD = frames.headers(0, OK_TRAILERS, end_stream=True)[:5]


def unary_head(
    stream_id: int, length: int, _pack: struct.Struct = _UNARY_HEAD, _head: bytes = _OPENING_HEAD
) -> bytes:
    """All that stands in front of a response message of `length` bytes that fits into one frame."""
    framed = length + PREFIX.size
    return _pack.pack(_head, stream_id, OPENING, 0, framed, 0, stream_id, 0, length)


def unary_tail(stream_id: int, _head: bytes = _TAIL_HEAD) -> bytes:
    """All that follows it."""
    return _head + stream_id.to_bytes(4, "big") + OK_TRAILERS


def _percent_encode(text: str) -> bytes:
    """As gRPC wants `grpc-message`: printable ASCII but `%` as it is, other bytes as %XX."""
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in text.encode("utf-8", "replace")
    )


def _status(code: Code, text: str) -> list[Field]:
    fields: list[Field] = [(b"grpc-status", b"%d" % code)]
    if text:
        message = _percent_encode(text)
        if len(message) > limits.MESSAGE_TEXT_BYTES:
            message = _HALF_ESCAPE.sub(b"", message[: limits.MESSAGE_TEXT_BYTES])
        fields.append((b"grpc-message", message))
    return fields


@lru_cache(256)
def trailers(code: Code, text: str) -> bytes:
    """The end of a stream that has sent messages."""
    return encode(_status(code, text))


@lru_cache(256)
def refusal(code: Code, text: str, http_status: int = 200, extra: tuple[Field, ...] = ()) -> bytes:
    """A response that is nothing but its status."""
    return encode([(b":status", b"%d" % http_status), _CONTENT_TYPE, *_status(code, text), *extra])
