"""Makes protobuf of bytes that nearly are: a mutated request should get behind the decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from kvstore.machine.wire import varint

__all__ = ("WORDS", "mender", "unreadable")

_DEPTH_MAX: Final = 60
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_STRING, _MESSAGE = 9, 11
"""Field types as descriptors number them."""

WORDS: Final = (
    *(b"\x08", b"\x10\x01", b"\x12\0", b"\x1a\0", b"\x22\0", b"\x80\x01", b"\xff", b"\0"),
    b"\x08" + b"\xff" * 9 + b"\x01",  # -1
    b"\x10" + b"\xff" * 8 + b"\x7f",  # the largest int64
    b"\x18\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # the smallest
    b"\x12\x02\x22\0",  # a transaction in a transaction
    b"\x0b\x0c",  # a group, which proto3 has no more
    b"\x0b" * 200,
)


def mender(message: Any) -> Callable[[bytes], bytes]:
    """Rewrites bytes so that `message` (a class) can decode them, changing as little as it can."""
    return lambda data: b"".join(_fields(message.DESCRIPTOR, data, 0))


def unreadable(message: Any, data: bytes) -> bool:
    """Whether `message` cannot decode these bytes."""
    try:
        message.FromString(data)
    except Exception:
        return True
    return False


def _fields(descriptor: Any, data: bytes, depth: int) -> Iterator[bytes]:
    """The fields up to where there are none; lengths that lead too far are cut."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            return
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield varint(tag) + varint(value)
        elif kind == _BYTES:
            length, at = _varint(data, at)
            body = data[at : at + length]
            at += len(body)
            body = _body(descriptor, number, body, depth)
            yield varint(tag) + varint(len(body)) + body
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
            yield varint(tag) + data[at : at + size].ljust(size, b"\0")
            at += size
        else:
            return


def _body(descriptor: Any, number: int, body: bytes, depth: int) -> bytes:
    field = descriptor.fields_by_number.get(number) if descriptor is not None else None
    if field is None:
        return body
    if field.type == _STRING:
        return body.decode("utf-8", "ignore").encode()
    if field.type == _MESSAGE and depth < _DEPTH_MAX:
        return b"".join(_fields(field.message_type, body, depth + 1))
    return body


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to 64 bits and where it ends; what is not there is zero."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value & (1 << 64) - 1, at
