"""HPACK: our decoder against the `hpack` package's, and the memory of whole blocks."""

from __future__ import annotations

from typing import Any

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hpack.hpack import encode_integer
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.api.http2.errors import ErrorCode, Http2Error
from kvstore.api.http2.headers import EMPTY_THE_TABLE, Field, HeaderDecoder, encode

Fields = tuple[Field, ...]

REQUEST: Fields = (
    (b":method", b"POST"),
    (b":path", b"/etcdserverpb.KV/Put"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)


class Counting:
    """Interprets a list as itself, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, fields: Fields | None) -> Any:
        self.count += 1
        return fields


def decoder(max_list_bytes: int = 16_384) -> tuple[HeaderDecoder[Any], Counting]:
    counting = Counting()
    return HeaderDecoder(counting, max_list_bytes), counting


names_ = st.sampled_from([b"a", b"b", b"token", b":path", b"content-type", b"x" * 300])
values = st.sampled_from([b"", b"1", b"2", b"trailers", b"\xff\x00", b"v" * 900, b"w" * 5000])
lists = st.lists(st.tuples(names_, values, st.booleans()), max_size=6)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(lists, st.booleans(), st.sampled_from([None, None, 0, 64, 1000, 4096]))),
    st.data(),
)
def test_it_decodes_what_hpack_encodes(
    blocks: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]], data: st.DataObject
) -> None:
    encoder, (ours, _) = Encoder(), decoder(10**6)
    sent: list[bytes] = []
    for fields, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(fields, huffman=huffman)
        assert ours.read(block) == tuple((name, value) for name, value, _ in fields)
        sent.append(block)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_it_accepts_and_refuses_what_hpack_does(blocks: list[bytes]) -> None:
    theirs, (ours, _) = Decoder(max_header_list_size=10**9), decoder(10**9)
    for block in blocks:
        # hpack tolerates table size updates anywhere, and longer integers than we do.
        try:
            expected = tuple((bytes(n), bytes(v)) for n, v in theirs.decode(block, raw=True))
        except (HPACKError, IndexError):
            expected = None
        try:
            got = ours.read(block)
        except Http2Error:
            return
        assert got == expected
        if expected is None:
            return


def test_a_block_without_insertions_is_interpreted_once() -> None:
    ours, counting = decoder()
    encoder = Encoder()
    first = encoder.encode(REQUEST)
    again = encoder.encode(REQUEST)
    assert first != again  # the first one filled the table
    for block in (first, again, again, again):
        assert ours.read(block) == REQUEST
    assert counting.count == 2


def test_a_known_block_is_forgotten_when_the_table_moves() -> None:
    ours, _ = decoder()
    encoder = Encoder()
    ours.read(encoder.encode([(b"a", b"1")]))
    one = encoder.encode([(b"a", b"1")])
    assert ours.read(one) == ((b"a", b"1"),)
    assert ours.read(one) == ((b"a", b"1"),)
    ours.read(encoder.encode([(b"b", b"2")]))
    # The same byte now points at the newer entry.
    assert ours.read(one) == ((b"b", b"2"),)


def test_a_known_block_is_forgotten_when_the_table_shrinks() -> None:
    ours, _ = decoder()
    encoder = Encoder()
    ours.read(encoder.encode([(b"a", b"1")]))
    one = encoder.encode([(b"a", b"1")])
    assert ours.read(one) == ((b"a", b"1"),)
    ours.read(EMPTY_THE_TABLE)
    with pytest.raises(Http2Error):
        ours.read(one)


def test_a_block_that_fails_after_an_insertion_is_not_looked_up_later() -> None:
    ours, _ = decoder()
    encoder = Encoder()
    ours.read(encoder.encode([(b"a", b"1")]))
    one = encoder.encode([(b"a", b"1")])
    ours.read(one)
    with pytest.raises(Http2Error):
        ours.read(encoder.encode([(b"b", b"2")]) + b"\xff")
    assert ours.read(one) == ((b"b", b"2"),)


def test_entries_leave_the_table_oldest_first() -> None:
    ours, _ = decoder()
    encoder = Encoder()
    for number in range(200):  # 4096 bytes hold about 100 of them
        block = encoder.encode([(b"key", b"%07d" % number)])
        assert ours.read(block) == ((b"key", b"%07d" % number),)
    oldest = 62 + 4096 // 42 - 1
    index = bytes(encode_integer(oldest, 7))
    assert ours.read(bytes([index[0] | 0x80]) + index[1:]) == (
        (b"key", b"%07d" % (200 - 4096 // 42)),
    )
    beyond = bytes(encode_integer(oldest + 1, 7))
    with pytest.raises(Http2Error):
        ours.read(bytes([beyond[0] | 0x80]) + beyond[1:])


def test_an_entry_larger_than_the_table_empties_it() -> None:
    ours, _ = decoder()
    encoder = Encoder()
    ours.read(encoder.encode([(b"a", b"1")]))
    assert ours.read(encoder.encode([(b"big", b"x" * 5000)])) == ((b"big", b"x" * 5000),)
    with pytest.raises(Http2Error):
        ours.read(b"\xbe")  # index 62


def test_a_list_that_is_too_large_still_moves_the_table() -> None:
    ours, _ = decoder(max_list_bytes=200)
    encoder = Encoder()
    assert ours.read(encoder.encode([(b"a", b"1"), (b"long", b"x" * 300)])) is None
    assert ours.read(encoder.encode([(b"a", b"1")])) == ((b"a", b"1"),)


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xff\x80\x80\x80\x80\x80\x01",  # an integer without end
        b"\xff",
        b"\xbe",  # the empty dynamic table
        b"\x40\x05ab",  # a name that ends too soon
        b"\x40\x01a\x7f",
        b"\x40",
        b"\x82\x20",  # a size update after a field
        b"\x3f\xe2\x1f",  # 4097 bytes of table
        b"\x40\x01a\x81\x00",  # Huffman code that ends within a symbol
        b"\x40\x01a\x85\xff\xff\xff\xff\xff",  # Huffman's end-of-string symbol
    ],
)
def test_bad_blocks_are_compression_errors(block: bytes) -> None:
    ours, _ = decoder()
    with pytest.raises(Http2Error) as raised:
        ours.read(block)
    assert raised.value.code == ErrorCode.COMPRESSION_ERROR


@given(st.lists(st.tuples(names_, values)))
def test_what_we_encode_is_decoded_and_leaves_no_trace(fields: list[Field]) -> None:
    theirs = Decoder()
    theirs.max_header_list_size = 10**6
    block = encode(fields)
    assert [tuple(field) for field in theirs.decode(block, raw=True)] == fields
    assert not theirs.header_table.dynamic_entries


def test_static_fields_take_one_byte() -> None:
    assert encode([(b":status", b"200"), (b":method", b"POST")]) == b"\x88\x83"
