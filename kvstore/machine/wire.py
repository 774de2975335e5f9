"""Protobuf wire format by hand: just what is needed to put responses together from stored bytes.

A response is a concatenation of fields, and a stored pair is already an encoded field body, so an
answer of a thousand pairs costs a thousand short joins instead of a thousand message objects.
"""

from __future__ import annotations

from kvstore.pb.kv_pb2 import KeyValue

__all__ = (
    "bytes_field",
    "int_field",
    "pair",
    "tombstone",
    "tombstone_event",
    "varint",
)

_VARINT_CACHE = 1 << 14
_UNSIGNED_64 = (1 << 64) - 1


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALL = tuple(_varint(number) for number in range(_VARINT_CACHE))


def varint(number: int) -> bytes:
    """The varint of an int64 (a negative one takes ten bytes, as protobuf has it)."""
    if 0 <= number < _VARINT_CACHE:
        return _SMALL[number]
    return _varint(number & _UNSIGNED_64)


def int_field(field: int, number: int) -> bytes:
    """An integer, enum or bool field; nothing for zero, as proto3 has it."""
    return varint(field << 3) + varint(number) if number else b""


def bytes_field(field: int, body: bytes) -> bytes:
    """A bytes, string or message field, written even when it is empty (a present message)."""
    return varint(field << 3 | 2) + varint(len(body)) + body


def pair(key: bytes, value: bytes, *, create: int, mod: int, version: int, lease: int) -> bytes:
    """An encoded mvccpb.KeyValue, byte for byte what etcd stores."""
    encoded: bytes = KeyValue(
        key=key,
        create_revision=create,
        mod_revision=mod,
        version=version,
        value=value,
        lease=lease,
    ).SerializeToString()
    return encoded


def tombstone(key: bytes) -> bytes:
    """What is stored for a deletion: a KeyValue with nothing but the key."""
    return b"\x0a" + varint(len(key)) + key


def tombstone_event(key: bytes, mod: int) -> bytes:
    """What a watcher is told of a deletion: key and mod_revision only."""
    return b"\x0a" + varint(len(key)) + key + b"\x18" + varint(mod)
