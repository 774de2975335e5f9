"""Keys, prefixes and spans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.client.keys import NUL, prefix_end, span, to_bytes


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        (b"a", b"b"),
        (b"a\xff", b"b"),
        (b"a\x00", b"a\x01"),
        (b"\xff\xff", NUL),
        (b"", NUL),
        (b"a/", b"a0"),
    ],
)
def test_prefix_end(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


@given(st.binary(max_size=4), st.binary(min_size=1, max_size=6))
def test_a_span_holds_exactly_the_keys_with_the_prefix(prefix: bytes, key: bytes) -> None:
    start, end = span(prefix, prefix=True)
    inside = start <= key and (end == NUL or key < end)
    assert inside == key.startswith(prefix)


def test_spans() -> None:
    assert span("k") == (b"k", b"")
    assert span("k", range_end="m") == (b"k", b"m")
    assert span("k", from_key=True) == (b"k", NUL)
    assert span("", from_key=True) == (NUL, NUL)
    assert span("", prefix=True) == (NUL, NUL)
    with pytest.raises(ValueError, match="only one"):
        span("k", prefix=True, range_end="m")


def test_text_is_utf8() -> None:
    assert to_bytes("ä") == b"\xc3\xa4"
    assert to_bytes(b"\xff") == b"\xff"
