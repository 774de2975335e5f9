"""Frames: whole, torn anywhere, with more behind, and any bytes at all."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.machine import Member
from kvstore.node import wire
from kvstore.node.transport import Cluster
from kvstore.node.wire import FrameError, FrameReader, Hello, Kind

U64 = st.integers(0, (1 << 64) - 1)
FIELDS = st.lists(U64 | st.binary(max_size=40) | st.text(max_size=10) | st.booleans(), max_size=4)
URLS = st.lists(st.text(max_size=20), max_size=3).map(tuple)


def read_all(reader: FrameReader, pieces: list[bytes]) -> list[tuple[int, list[Any]]]:
    return [wire.unpack(packed) for piece in pieces for packed in reader.feed(piece)]


@given(st.lists(st.tuples(st.sampled_from(Kind), FIELDS), max_size=5), st.data())
def test_frames_come_out_as_they_went_in_however_they_are_torn(
    frames: list[tuple[Kind, list[Any]]], data: st.DataObject
) -> None:
    stream = b"".join(wire.frame(kind, *fields) for kind, fields in frames)
    expected = [(int(kind), fields) for kind, fields in frames]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read_all(FrameReader(1 << 20), pieces) == expected
    single_bytes = [stream[at : at + 1] for at in range(len(stream))]
    assert read_all(FrameReader(1 << 20), single_bytes) == expected


@given(st.binary(max_size=60))
def test_any_bytes_are_frames_or_incomplete_or_refused(garbage: bytes) -> None:
    try:
        for packed in FrameReader(1 << 16).feed(garbage):
            kind, fields = wire.unpack(packed)
            assert type(kind) is int
            assert type(fields) is list
    except FrameError:
        pass


@given(
    st.sampled_from([wire.read_hello, wire.read_cluster]), st.lists(st.from_type(object) | FIELDS)
)
def test_any_fields_are_read_or_refused(read: Any, fields: list[Any]) -> None:
    try:
        read(fields)
    except FrameError:
        pass


def test_incomplete_frames_wait() -> None:
    whole = wire.frame(Kind.PING, 7)
    reader = FrameReader(100)
    assert read_all(reader, [whole[:-1]]) == []
    assert read_all(reader, [whole[-1:] + whole[:2]]) == [(Kind.PING, [7])]
    assert read_all(reader, [whole[2:]]) == [(Kind.PING, [7])]


def test_a_length_beyond_the_limit_is_refused_before_anything_is_kept() -> None:
    reader = FrameReader(100)
    with pytest.raises(FrameError, match="a frame of 101 bytes, where at most 100 belong"):
        read_all(reader, [(101).to_bytes(4, "big")])
    with pytest.raises(FrameError):
        read_all(FrameReader(4096), [b"GET / HTTP/1.1\r\n"])


def test_a_frame_that_no_receiver_takes_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FRAME_BYTES_MAX", 1000)
    with pytest.raises(FrameError, match="a CALL frame of"):
        wire.frame(Kind.CALL, 1, "m", b"x" * 1000)


@pytest.mark.parametrize(
    "packed",
    [b"", b"\xc1", b"\x01", b"\x90", b"\x92\xa1k\x01", b"\x91\x01\x01", b"\x91" * 2000 + b"\x01"],
    ids=["empty", "reserved", "no list", "no kind", "text kind", "trailing", "deep"],
)
def test_what_is_not_a_frame(packed: bytes) -> None:
    with pytest.raises(FrameError):
        wire.unpack(packed)


@given(st.integers(1, 2), U64, U64, U64, URLS)
def test_hello_is_read_as_written(
    purpose: int, cluster_id: int, sender: int, target: int, urls: tuple[str, ...]
) -> None:
    hello = Hello(wire.VERSION, purpose, cluster_id, sender, target, urls)
    ((kind, fields),) = read_all(FrameReader(4096), [wire.hello_frame(hello)])
    assert kind == Kind.HELLO
    assert wire.read_hello(fields) == hello


def test_hello_of_another_version_is_read_as_far_as_the_version() -> None:
    assert wire.read_hello([wire.MAGIC, 9, "whatever"]).version == 9
    assert wire.read_hello([wire.MAGIC, "x"]).version == 0
    with pytest.raises(FrameError, match="another protocol"):
        wire.read_hello(["other", 1])
    with pytest.raises(FrameError):
        wire.read_hello([wire.MAGIC])


@given(
    U64,
    st.lists(st.builds(Member, U64, st.text(max_size=9), URLS, URLS, st.booleans()), max_size=4),
)
def test_a_cluster_is_read_as_written(cluster_id: int, members: list[Member]) -> None:
    cluster = Cluster(cluster_id, tuple(members))
    ((kind, fields),) = read_all(FrameReader(1 << 16), [wire.cluster_frame(cluster)])
    assert kind == Kind.CLUSTER
    assert wire.read_cluster(fields) == cluster


def test_length_and_checksum_stand_in_front() -> None:
    whole = wire.frame(Kind.PONG, 3)
    assert whole == bytes.fromhex("00000003e3b28bdc") + msgpack.packb([8, 3])


def frames_before_the_damage(stream: bytes) -> list[bytes]:
    found: list[bytes] = []
    try:
        # One by one: what came before an error was believed.
        for packed in FrameReader(1 << 16).feed(stream):
            found.append(packed)  # noqa: PERF402
    except FrameError:
        pass
    return found


def test_no_flipped_bit_makes_another_frame() -> None:
    whole = wire.frame(Kind.MESSAGES, [[1, 2, 3, [[7, 2, 0, b"value"], [8, 2, 0, b""]]]])
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        # With something behind it, so that a length that has grown is filled.
        assert frames_before_the_damage(bytes(damaged) + bytes(1 << 16)) == [], bit


def test_no_lost_or_repeated_piece_makes_another_frame() -> None:
    first, second = wire.frame(Kind.CALL, 1, "m", b"abc"), wire.frame(Kind.CALL, 2, "m", b"abd")
    stream = first + second
    sent = {first[8:], second[8:]}
    for start in range(len(first)):
        for end in range(start + 1, len(stream)):
            for damaged in (stream[:start] + stream[end:], stream[:end] + stream[start:]):
                assert sent.issuperset(frames_before_the_damage(damaged)), (start, end)
