"""Keys and spans of keys: text to bytes, prefixes to half-open ranges."""

from __future__ import annotations

from typing import TypeAlias

__all__ = ("Key", "NUL", "prefix_end", "span", "to_bytes")

Key: TypeAlias = str | bytes
"""A key or value as callers give it; text is UTF-8."""

NUL = b"\0"
"""As key: the smallest one. As range end: no end."""


def to_bytes(value: Key) -> bytes:
    """`value` as the bytes that go on the wire."""
    return value.encode() if isinstance(value, str) else value


def prefix_end(prefix: bytes) -> bytes:
    """The smallest key above all keys that start with `prefix` (`NUL` when there is none)."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else NUL


def span(
    key: Key, *, prefix: bool = False, from_key: bool = False, range_end: Key = b""
) -> tuple[bytes, bytes]:
    """(key, range_end) on the wire; at most one of the three options may be given.

    An empty key is allowed with `prefix` and `from_key` and then means the whole keyspace.
    """
    start, end = to_bytes(key), to_bytes(range_end)
    if prefix + from_key + bool(end) > 1:
        raise ValueError("give only one of prefix, from_key and range_end")
    if prefix:
        return start or NUL, prefix_end(start)
    if from_key:
        return start or NUL, NUL
    return start, end
