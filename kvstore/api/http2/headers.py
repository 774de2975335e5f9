"""HPACK: request headers from their blocks, and blocks for our responses.

Huffman codes and the static table are the `hpack` package's. The decoder itself is here because
of its speed: a busy client sends the same block for every call of a kind, and then the meaning is
looked up by the block's bytes. A block means the same as long as the dynamic table is the same,
so whatever changes the table empties that memory. Clients that write something new into every
block (Go's do, with a deadline) are decoded field by field.

Our own blocks use the static table alone: they are constants, valid whatever the client's table is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from kvstore.api.http2 import limits
from kvstore.api.http2.errors import ErrorCode, Http2Error

__all__ = ("EMPTY_THE_TABLE", "Field", "HeaderDecoder", "encode")

Field = tuple[bytes, bytes]
"""(name, value)"""

T = TypeVar("T")

_STATIC: tuple[Field, ...] = tuple(HeaderTable.STATIC_TABLE)
_STATIC_COUNT = len(_STATIC)
_ENTRY_OVERHEAD = 32
"""What a table entry counts beyond its two strings (RFC 7541, section 4.1)."""
_INTEGER_BYTES = 4
"""Continuation bytes of an integer: numbers up to 2^28, far beyond all our limits."""

EMPTY_THE_TABLE = b"\x20"
"""An instruction before a block: the encoder's dynamic table has size 0 from here on."""


def _fault(reason: str) -> Http2Error:
    return Http2Error(ErrorCode.COMPRESSION_ERROR, reason)


class HeaderDecoder(Generic[T]):
    """The header blocks of one connection's client, in the order of their arrival.

    `interpret` makes of a header list what the caller wants of it, or of None when the list was
    larger than `max_list_bytes`; its answer is returned for the same list again.
    """

    __slots__ = ("_entries", "_interpret", "_known", "_max_list", "_room", "_size")

    def __init__(
        self,
        interpret: Callable[[tuple[Field, ...] | None], T],
        max_list_bytes: int = limits.HEADER_LIST_BYTES,
    ) -> None:
        self._interpret = interpret
        self._max_list = max_list_bytes
        self._entries: deque[Field] = deque()
        self._size = 0
        self._room = limits.HEADER_TABLE_BYTES
        self._known: dict[bytes, T] = {}

    def read(self, block: bytes) -> T:
        """The meaning of a request's header block; raises Http2Error."""
        known = self._known.get(block)
        if known is not None:
            return known
        fields, changed = self._decode(block)
        meaning = self._interpret(fields)
        if not changed and len(block) <= limits.BLOCK_CACHE_ENTRY_BYTES:
            if len(self._known) >= limits.BLOCK_CACHE_ENTRIES:
                self._known.clear()
            self._known[block] = meaning
        return meaning

    def decode(self, block: bytes) -> tuple[Field, ...] | None:
        """The header list itself; None when it is too large. Raises Http2Error."""
        return self._decode(block)[0]

    def _decode(self, block: bytes) -> tuple[tuple[Field, ...] | None, bool]:
        """The list, and whether the dynamic table has changed."""
        fields: list[Field] = []
        size = 0
        changed = False
        position, end = 0, len(block)
        try:
            while position < end:
                first = block[position]
                if first & 0x80:
                    index = first & 0x7F
                    position += 1
                    if index == 0x7F:
                        index, position = _integer(block, position, 0x7F)
                    field = self._entry(index)
                elif first & 0x60 == 0x20:
                    # Only in front of the first field, says RFC 7541, section 4.2.
                    if fields or size:
                        raise _fault("table size update after a field")
                    room, position = _integer_at(block, position, 0x1F)
                    self._resize(room)
                    changed = True
                    continue
                else:
                    indexed = first & 0x40
                    index, position = _integer_at(block, position, 0x3F if indexed else 0x0F)
                    if index:
                        name = self._entry(index)[0]
                    else:
                        name, position = _string(block, position)
                    value, position = _string(block, position)
                    field = (name, value)
                    if indexed:
                        self._insert(field)
                        changed = True
                size += len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
                if size <= self._max_list:
                    fields.append(field)
        except IndexError:
            raise _fault("header block ends within a field") from None
        finally:
            if changed and self._known:
                self._known.clear()
        return (tuple(fields) if size <= self._max_list else None), changed

    def _entry(self, index: int) -> Field:
        if 0 < index <= _STATIC_COUNT:
            return _STATIC[index - 1]
        index -= _STATIC_COUNT + 1
        if 0 <= index < len(self._entries):
            return self._entries[index]
        raise _fault("header field index without an entry")

    def _insert(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
        self._evict(self._room - size)
        # An entry larger than the whole table empties it, which is no error.
        if size <= self._room:
            self._entries.appendleft(field)
            self._size += size

    def _resize(self, room: int) -> None:
        if room > limits.HEADER_TABLE_BYTES:
            raise _fault("table size update beyond the setting")
        self._room = room
        self._evict(room)

    def _evict(self, limit: int) -> None:
        entries = self._entries
        while self._size > limit and entries:
            name, value = entries.pop()
            self._size -= len(name) + len(value) + _ENTRY_OVERHEAD


def _integer_at(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """An integer that shares its first byte with something else; and what follows it."""
    value = block[position] & mask
    position += 1
    return (value, position) if value < mask else _integer(block, position, mask)


def _integer(block: bytes, position: int, value: int) -> tuple[int, int]:
    """The continuation of an integer whose first bits were all set."""
    for shift in range(0, 7 * _INTEGER_BYTES, 7):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _fault("header integer out of bounds")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    huffman = block[position] & 0x80
    length, position = _integer_at(block, position, 0x7F)
    end = position + length
    if end > len(block):
        raise _fault("header block ends within a string")
    text = block[position:end]
    if huffman:
        try:
            text = decode_huffman(text)
        except HPACKDecodingError:
            raise _fault("bad Huffman code") from None
    return text, end


def _encode_integer(value: int, mask: int, flags: int) -> bytes:
    if value < mask:
        return bytes((flags | value,))
    out = bytearray((flags | mask,))
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_STATIC_NAMES = {name: number for number, (name, _) in reversed(list(enumerate(_STATIC, 1)))}
_STATIC_FIELDS = {field: number for number, field in enumerate(_STATIC, 1)}


def encode(fields: Iterable[Field]) -> bytes:
    """A block that leaves the client's dynamic table alone."""
    parts: list[bytes] = []
    for name, value in fields:
        if (number := _STATIC_FIELDS.get((name, value))) is not None:
            parts.append(_encode_integer(number, 0x7F, 0x80))
            continue
        index = _STATIC_NAMES.get(name, 0)
        parts.append(_encode_integer(index, 0x0F, 0))
        if not index:
            parts += _encode_integer(len(name), 0x7F, 0), name
        parts += _encode_integer(len(value), 0x7F, 0), value
    return b"".join(parts)
