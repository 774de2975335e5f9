"""Protobuf wire format by hand: just what is needed to put responses together from stored bytes.

A response is a concatenation of fields, and a stored pair is already an encoded field body, so an
answer of a thousand pairs costs a thousand short joins instead of a thousand message objects.
"""

from __future__ import annotations

__all__ = (
    "bytes_field",
    "int_field",
    "pair",
    "tombstone",
    "tombstone_event",
    "varint",
)

_UNSIGNED_64 = (1 << 64) - 1
_PAIR_BITS = 14
_PAIR = (1 << _PAIR_BITS) - 1
# Two bytes of a varint at a time, with more to come; and its end, which may be a single byte.
_MIDDLE = tuple(bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(_PAIR + 1))
_LAST = tuple(
    bytes((n & 0x7F | 0x80, n >> 7)) if n > 0x7F else bytes((n,)) for n in range(_PAIR + 1)
)


def varint(number: int) -> bytes:
    """The varint of an int64 (a negative one takes ten bytes, as protobuf has it)."""
    if 0 <= number <= _PAIR:
        return _LAST[number]
    number &= _UNSIGNED_64
    return _MIDDLE[number & _PAIR] + varint(number >> _PAIR_BITS)


def int_field(field: int, number: int) -> bytes:
    """An integer, enum or bool field; nothing for zero, as proto3 has it."""
    return varint(field << 3) + varint(number) if number else b""


def bytes_field(field: int, body: bytes) -> bytes:
    """A bytes, string or message field, written even when it is empty (a present message)."""
    return varint(field << 3 | 2) + varint(len(body)) + body


def pair(key: bytes, value: bytes, *, create: int, mod: int, version: int, lease: int) -> bytes:
    """An encoded mvccpb.KeyValue, byte for byte what etcd stores.

    The key is not empty and the three numbers are not 0; protobuf would leave those out.
    """
    return b"".join(
        (
            b"\x0a",
            varint(len(key)),
            key,
            b"\x10",
            varint(create),
            b"\x18",
            varint(mod),
            b"\x20",
            varint(version),
            b"\x2a" + varint(len(value)) + value if value else b"",
            b"\x30" + varint(lease) if lease else b"",
        )
    )


def tombstone(key: bytes) -> bytes:
    """What is stored for a deletion: a KeyValue with nothing but the key."""
    return b"\x0a" + varint(len(key)) + key


def tombstone_event(key: bytes, mod: int) -> bytes:
    """What a watcher is told of a deletion: key and mod_revision only."""
    return b"\x0a" + varint(len(key)) + key + b"\x18" + varint(mod)
