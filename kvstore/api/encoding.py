"""The few pieces of protobuf's wire format that are put together by hand."""

from __future__ import annotations

from google.protobuf.message import Message

__all__ = ("encoded", "length_delimited")


def encoded(message: Message, header: bytes = b"") -> bytes:
    """A response as it goes on the wire; `header` is the encoded header field, set in front."""
    body: bytes = message.SerializeToString()
    return header + body


def length_delimited(field: int, content: bytes) -> bytes:
    """A field of type bytes, string or message: tag, length, content. `field` is at most 15."""
    length = len(content)
    head = bytearray((field << 3 | 2,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + content
