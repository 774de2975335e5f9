"""Frames: the same however the bytes arrive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.http2 import frames
from kvstore.api.http2.errors import ErrorCode, Http2Error
from kvstore.api.http2.frames import FrameSplitter
from tests.unit.api.http2.raw import frame, head

SOME = [
    (frames.SETTINGS, 0, 0, b""),
    (frames.HEADERS, frames.END_HEADERS, 1, b"block"),
    (frames.DATA, frames.END_STREAM, 1, bytes(300)),
    (99, 0xFF, 2**31 - 1, b"unknown"),
    (frames.DATA, 0, 3, bytes(frames.MAX_FRAME)),
]
STREAM = b"".join(frame(*each) for each in SOME)


@pytest.mark.parametrize("step", [1, 2, 8, 9, 10, 100, 16_384, len(STREAM)])
def test_frames_survive_any_cut(step: int) -> None:
    splitter = FrameSplitter()
    got = []
    for at in range(0, len(STREAM), step):
        got += splitter.feed(STREAM[at : at + step])
    assert got == SOME
    assert not splitter.oversized


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_survive_random_cuts(cuts: list[int]) -> None:
    splitter = FrameSplitter()
    edges = [0, *sorted(cuts), len(STREAM)]
    got = [each for start, end in pairwise(edges) for each in splitter.feed(STREAM[start:end])]
    assert got == SOME


def test_the_reserved_bit_of_a_stream_id_is_ignored() -> None:
    assert FrameSplitter().feed(head(0, 0, 0, 0x8000_0005)) == [(0, 0, 5, b"")]


def test_an_oversized_frame_is_seen_by_its_head_after_those_before_it() -> None:
    splitter = FrameSplitter()
    got = splitter.feed(frame(frames.PING, 0, 0, bytes(8)) + head(frames.MAX_FRAME + 1, 0, 0, 1))
    assert [kind for kind, *_ in got] == [frames.PING]
    assert splitter.oversized


def test_strip() -> None:
    padded = bytes([3]) + b"text" + bytes(3)
    assert frames.strip(frames.PADDED, padded) == b"text"
    assert frames.strip(0, b"text") == b"text"
    assert frames.strip(frames.PRIORITY_FLAG, bytes(5) + b"b", priority=True) == b"b"
    both = frames.PADDED | frames.PRIORITY_FLAG
    assert frames.strip(both, bytes([2]) + bytes(5) + b"b" + bytes(2), priority=True) == b"b"
    assert frames.strip(frames.PADDED, bytes([4]) + bytes(4)) == b""


@pytest.mark.parametrize(
    ("flags", "payload", "code"),
    [
        (frames.PADDED, b"", ErrorCode.FRAME_SIZE_ERROR),
        (frames.PADDED, bytes([1]), ErrorCode.PROTOCOL_ERROR),
        (frames.PRIORITY_FLAG, bytes(4), ErrorCode.FRAME_SIZE_ERROR),
        (frames.PADDED | frames.PRIORITY_FLAG, bytes(5), ErrorCode.FRAME_SIZE_ERROR),
        (frames.PADDED | frames.PRIORITY_FLAG, bytes([1]) + bytes(5), ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_strip_refuses(flags: int, payload: bytes, code: ErrorCode) -> None:
    with pytest.raises(Http2Error) as raised:
        frames.strip(flags, payload, priority=True)
    assert raised.value.code == code


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 40_000])
def test_a_header_block_is_continued_as_often_as_needed(size: int) -> None:
    block = bytes(index % 251 for index in range(size))
    got = FrameSplitter().feed(frames.headers(7, block, end_stream=True))
    assert b"".join(payload for *_, payload in got) == block
    assert [kind for kind, *_ in got] == [frames.HEADERS] + [frames.CONTINUATION] * (len(got) - 1)
    assert got[0][1] & frames.END_STREAM
    assert [bool(flags & frames.END_HEADERS) for _, flags, _, _ in got] == [False] * (
        len(got) - 1
    ) + [True]


def test_encoders_and_parsers_agree() -> None:
    pairs = [(1, 0), (4, 2**31 - 1), (0xFFFF, 2**32 - 1)]
    sent = b"".join(
        (
            frames.settings(pairs),
            frames.ping(b"12345678", ack=True),
            frames.goaway(5, ErrorCode.ENHANCE_YOUR_CALM, "why"),
            frames.rst_stream(9, ErrorCode.CANCEL),
            frames.window_update(0, 1000),
            frames.data_head(0, 3, frames.END_STREAM),
        )
    )
    got = FrameSplitter().feed(sent)
    assert frames.parse_settings(got[0][3]) == pairs
    assert got[1:] == [
        (frames.PING, frames.ACK, 0, b"12345678"),
        (frames.GOAWAY, 0, 0, b"\0\0\0\x05\0\0\0\x0bwhy"),
        (frames.RST_STREAM, 0, 9, b"\0\0\0\x08"),
        (frames.WINDOW_UPDATE, 0, 0, b"\0\0\x03\xe8"),
        (frames.DATA, frames.END_STREAM, 3, b""),
    ]
