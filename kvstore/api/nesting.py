"""How deep transactions are nested, in bytes that the protobuf decoder has refused.

It gives up at 100 messages inside one another, and its error does not say in every version that
this was why.
"""

from __future__ import annotations

__all__ = ("levels",)

_SUCCESS, _FAILURE = 2 << 3 | 2, 3 << 3 | 2
"""Tags in a TxnRequest of its lists of operations."""
_REQUEST_TXN = 4 << 3 | 2
"""Tag in an operation of a nested transaction."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def levels(payload: bytes) -> int:
    """How many transactions stand inside one another, the outermost not counted.

    What cannot be read is left out, and so is what stands behind it.
    """
    deepest = 0
    # (from, to, depth): even depths are transactions, odd ones operations.
    pending = [(0, len(payload), 0)]
    while pending:
        at, end, depth = pending.pop()
        deepest = max(deepest, depth)
        while at < end:
            tag, at = _varint(payload, at, end)
            kind = tag & 7
            if kind == _VARINT:
                _, at = _varint(payload, at, end)
            elif kind == _FIXED64:
                at += 8
            elif kind == _FIXED32:
                at += 4
            elif kind == _BYTES:
                length, at = _varint(payload, at, end)
                if length > end - at:
                    break
                if tag in ((_REQUEST_TXN,) if depth % 2 else (_SUCCESS, _FAILURE)):
                    pending.append((at, at + length, depth + 1))
                at += length
            else:
                break
    return deepest // 2


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number and where it ends; `end` if it does not end before."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
    return value, end
