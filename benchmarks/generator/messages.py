"""gRPC messages out of DATA frames, and the few protobuf fields that loops must read."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ("Messages", "fields", "varint")

_PREFIX = 5


class Messages:
    """Puts the messages of many streams together, however they are cut into frames."""

    def __init__(self) -> None:
        self._rests: dict[int, bytes] = {}

    def feed(self, stream: int, payload: bytes) -> list[bytes]:
        """The messages that are complete now."""
        rest = self._rests.pop(stream, None)
        if rest is not None:
            payload = rest + payload
        size = len(payload)
        if size >= _PREFIX and _PREFIX + int.from_bytes(payload[1:5], "big") == size:
            return [payload[_PREFIX:]]
        found, at = [], 0
        while size - at >= _PREFIX:
            end = at + _PREFIX + int.from_bytes(payload[at + 1 : at + 5], "big")
            if end > size:
                break
            found.append(payload[at + _PREFIX : end])
            at = end
        if at < size:
            self._rests[stream] = payload[at:]
        return found


def varint(value: int) -> bytes:
    """A protobuf varint of a number that is not negative."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def fields(message: bytes) -> Iterator[tuple[int, int]]:
    """(tag byte, value) of the top-level fields 1 to 15; the value of bytes is their length."""
    at, end = 0, len(message)
    while at < end:
        tag = message[at]
        value = shift = 0
        while True:
            at += 1
            byte = message[at]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        at += 1
        if tag & 7 == 2:
            at += value
        yield tag, value
