"""HTTP/2 from any bytes: no exception, bounded memory, every call ends exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvstore.api.http2 import frames
from kvstore.api.http2.errors import ErrorCode
from tests.support.http2_world import World, cut
from tests.unit.api.http2.raw import PATH, frame, message, request_headers


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as one:
        yield one


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=400), opening=st.integers(0, 2), cuts=st.lists(st.integers(0, 500)))
def test_any_bytes(runner: asyncio.Runner, data: bytes, opening: int, cuts: list[int]) -> None:
    start = (b"", frames.PREFACE, frames.PREFACE + frames.settings(()))[opening]

    async def run() -> None:
        world = World()
        for piece in cut(start + data, cuts):
            await world.feed(piece)
        await world.end()

    runner.run(run())


NAMES = ["Echo", "Large", "Keep", "Sleep", "Fail", "Count", "Reflect", "Nope"]
FIELDS = st.sampled_from(
    [
        *(request_headers(name) for name in NAMES),
        request_headers("Reflect"),
        request_headers("Count"),
        request_headers("Echo", content_length="8"),
        request_headers("Reflect", grpc_timeout="1n"),
        request_headers("Echo", ("big", "x" * 20_000)),
        request_headers("Echo", content_type="text/html"),
        [("odd", "field")],
        [(":path", PATH)],
    ]
)
BODIES = st.sampled_from(
    [
        b"",
        b"\0",
        message(b"12"),
        message(b"abc") * 3,
        message(b"fail"),
        message(b"crash"),
        message(b"30000"),
        message(b"3")[:6],
        message(bytes(1500)),
        b"\0\0\1\0\0" + bytes(100),
        bytes(16_384),
    ]
)
SMALL = st.sampled_from([0, 1, 10, 16_384, 65_535, 2**20, 2**31 - 1, 2**32 - 1])
WIDE = st.sampled_from([1, 10, 16_384, 65_535, 2**20])
ANY_STREAM = st.sampled_from([0, 1, 1, 3, 5, 2, 11, 2**31 - 1])
FLAGS = st.sampled_from([0, 1, 4, 5, 8, 9, 12, 13, 0x20, 0x2D, 0xFF])
RECENT = st.integers(0, 3)
"""Which stream a frame is for: the latest, the one before, …"""
HONEST = st.one_of(
    st.tuples(st.just("headers"), FIELDS, st.sampled_from([4, 4, 4, 5])),
    st.tuples(st.just("data"), RECENT, BODIES, st.sampled_from([0, 0, 1])),
    st.tuples(st.just("data"), RECENT, BODIES, st.sampled_from([0, 0, 1])),
    st.tuples(st.just("window"), RECENT, WIDE),
    st.tuples(st.just("widen all"), WIDE),
    st.tuples(st.just("reset"), RECENT),
    st.tuples(st.just("setting"), st.just(4), WIDE),
    st.tuples(st.just("setting"), st.just(1), st.sampled_from([0, 100, 5000])),
)
ODD = st.one_of(
    st.tuples(st.just("raw"), ANY_STREAM, st.integers(0, 12), st.binary(max_size=12), FLAGS),
    st.tuples(st.just("raw"), ANY_STREAM, st.just(8), st.just(bytes(4)), FLAGS),
    st.tuples(st.just("setting"), st.integers(1, 9), SMALL),
    st.tuples(st.just("widen all"), SMALL),
)
STEPS = st.tuples(st.lists(HONEST, max_size=30), st.lists(ODD, max_size=3))


def encoded(steps: list[tuple[Any, ...]]) -> bytes:
    """The bytes of a client that takes these steps."""
    encoder = Encoder()
    opened = [1]
    parts: list[bytes] = []
    for kind, *rest in steps:
        if kind == "headers":
            fields, flags = rest
            block = encoder.encode(fields)
            parts.append(frame(frames.HEADERS, flags, opened[-1], block[: frames.MAX_FRAME]))
            opened.append(opened[-1] + 2)
        elif kind in ("data", "window", "reset"):
            stream_id = opened[-2 - rest[0]] if len(opened) >= 2 + rest[0] else 1
            if kind == "data":
                parts.append(frame(frames.DATA, rest[2], stream_id, rest[1]))
            elif kind == "window":
                parts.append(frames.window_update(stream_id, rest[1]))
            else:
                parts.append(frames.rst_stream(stream_id, ErrorCode.CANCEL))
        elif kind == "widen all":
            parts.append(frames.window_update(0, rest[0]))
        elif kind == "setting":
            parts.append(frames.settings([(rest[0], rest[1])]))
        else:
            stream_id, number, payload, flags = rest
            parts.append(frame(number, flags, stream_id, payload))
    return b"".join(parts)


@pytest.mark.filterwarnings("error")
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=STEPS,
    cuts=st.lists(st.integers(0, 5000), max_size=10),
    window=WIDE,
    paused=st.booleans(),
)
def test_clients_good_and_bad(
    runner: asyncio.Runner,
    steps: tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]],
    cuts: list[int],
    window: int,
    paused: bool,
) -> None:
    start = frames.PREFACE + frames.settings([(4, window)])

    async def run() -> None:
        world = World()
        await world.feed(start)
        world.connection.paused = paused
        for piece in cut(encoded(steps[0]), cuts):
            await world.feed(piece)
        if paused:
            world.connection.resume()
        await world.feed(encoded(steps[1]))
        await world.end()

    runner.run(run())
