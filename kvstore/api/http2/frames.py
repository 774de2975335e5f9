"""HTTP/2 frames to and from bytes; no state beyond the bytes of an unfinished frame.

Frame types and flags are plain integers: every call compares some of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from kvstore.api.http2.errors import ErrorCode, Http2Error

__all__ = (
    "ACK",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "GOAWAY",
    "HEADERS",
    "MAX_FRAME",
    "PADDED",
    "PING",
    "PREFACE",
    "PRIORITY",
    "PRIORITY_FLAG",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "SETTINGS_ACK",
    "WINDOW_UPDATE",
    "Frame",
    "FrameSplitter",
    "Setting",
    "data_head",
    "goaway",
    "headers",
    "parse_settings",
    "ping",
    "rst_stream",
    "settings",
    "strip",
    "window_update",
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16_384
"""Payload bytes of a frame, both ways: the protocol's least, which every client accepts."""

DATA = 0
HEADERS = 1
PRIORITY = 2
RST_STREAM = 3
SETTINGS = 4
PUSH_PROMISE = 5
PING = 6
GOAWAY = 7
WINDOW_UPDATE = 8
CONTINUATION = 9

ACK = 0x1
END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

Frame = tuple[int, int, int, bytes]
"""(type, flags, stream id, payload)"""

_HEAD = struct.Struct(">BHBBL")
_HEAD_BYTES = _HEAD.size
_STREAM_MASK = 0x7FFF_FFFF


class Setting:
    """Identifiers in SETTINGS frames."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class FrameSplitter:
    """Cuts a byte stream into frames, however it arrives."""

    __slots__ = ("_rest", "oversized")

    def __init__(self) -> None:
        self._rest = b""
        self.oversized = False
        """The frame after those returned is longer than allowed; the stream is lost."""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now; at most one frame's bytes are kept for later."""
        if self._rest:
            data = self._rest + data
        unpack = _HEAD.unpack_from
        frames: list[Frame] = []
        position, end = 0, len(data)
        while end - position >= _HEAD_BYTES:
            high, low, kind, flags, stream_id = unpack(data, position)
            length = high << 16 | low
            if length > MAX_FRAME:
                self.oversized = True
                self._rest = b""
                return frames
            start = position + _HEAD_BYTES
            if start + length > end:
                break
            position = start + length
            frames.append((kind, flags, stream_id & _STREAM_MASK, data[start:position]))
        self._rest = data[position:] if position else data
        return frames


def strip(flags: int, payload: bytes, *, priority: bool = False) -> bytes:
    """The payload of DATA or HEADERS without padding and priority; raises Http2Error."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "padded frame without a pad length")
        start, end = 1, end - payload[0]
    if priority and flags & PRIORITY_FLAG:
        if len(payload) < start + 5:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for a priority")
        start += 5
    if end < start:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[start:end]


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """(identifier, value) pairs; the length must be a multiple of six."""
    return [
        (
            int.from_bytes(payload[at : at + 2], "big"),
            int.from_bytes(payload[at + 2 : at + 6], "big"),
        )
        for at in range(0, len(payload), 6)
    ]


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    length = len(payload)
    return _HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id) + payload


def data_head(length: int, stream_id: int, flags: int = 0) -> bytes:
    """What stands in front of `length` bytes of DATA."""
    return _HEAD.pack(0, length, DATA, flags, stream_id)


def headers(stream_id: int, block: bytes, *, end_stream: bool) -> bytes:
    """HEADERS with a whole block, continued in as many frames as it needs."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= MAX_FRAME:
        return _frame(HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]
    return b"".join(
        (
            _frame(HEADERS, flags, stream_id, parts[0]),
            *(_frame(CONTINUATION, 0, stream_id, part) for part in parts[1:-1]),
            _frame(CONTINUATION, END_HEADERS, stream_id, parts[-1]),
        )
    )


def settings(pairs: Iterable[tuple[int, int]]) -> bytes:
    """SETTINGS of these (identifier, value) pairs."""
    payload = b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in pairs)
    return _frame(SETTINGS, 0, 0, payload)


SETTINGS_ACK = _frame(SETTINGS, ACK, 0, b"")


def ping(opaque: bytes, *, ack: bool) -> bytes:
    """PING with its eight bytes."""
    return _frame(PING, ACK if ack else 0, 0, opaque)


def goaway(last_stream_id: int, code: ErrorCode, reason: str = "") -> bytes:
    """GOAWAY; the reason is for people."""
    numbers = last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big")
    return _frame(GOAWAY, 0, 0, numbers + reason.encode())


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """RST_STREAM."""
    return _frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the connection."""
    return _frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))
