"""HTTP/2's rules over a real socket: what is served, reset, or ended with GOAWAY."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from kvstore.api.http2 import frames, limits
from kvstore.api.http2.errors import ErrorCode
from kvstore.api.http2.frames import Setting
from kvstore.api.http2.load import Load
from kvstore.api.http2.peer import Shared
from tests.unit.api.http2.raw import (
    ClosedError,
    Raw,
    frame,
    head,
    message,
    request_headers,
)
from tests.unit.api.http2.server import Methods
from tests.unit.api.serving import Served

TOO_MANY = ("2", "etcdserver: too many requests")


class World:
    def __init__(self) -> None:
        self.methods = Methods()
        self.server = Served("http2", self.methods.build)

    def connect(self, settings: tuple[tuple[int, int], ...] | None = ()) -> Raw:
        return Raw(self.server.target, settings)

    @property
    def load(self) -> Load:
        """What the server counts of all its connections."""
        shared = self.server.transport._shared
        assert isinstance(shared, Shared)
        return shared.load

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not self.server.thread.call(condition):
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    world = World()
    yield world
    world.server.close()


@pytest.fixture
def world(shared: World) -> World:
    """The module's server with nothing left of other tests."""
    shared.methods.sessions.clear()
    shared.methods.kept.clear()
    shared.methods.stream_ends = 0
    return shared


@pytest.fixture
def raw(world: World) -> Iterator[Raw]:
    with world.connect() as connection:
        yield connection


# The beginning


def test_the_servers_settings_come_first(raw: Raw) -> None:
    kind, flags, stream_id, payload = raw.read()
    assert (kind, flags, stream_id) == (frames.SETTINGS, 0, 0)
    values = dict(frames.parse_settings(payload))
    assert values[Setting.INITIAL_WINDOW_SIZE] == limits.STREAM_WINDOW_BYTES
    assert values[Setting.MAX_CONCURRENT_STREAMS] > 10_000
    kind, _, stream_id, payload = raw.read()
    assert (kind, stream_id) == (frames.WINDOW_UPDATE, 0)
    assert raw.read()[:3] == (frames.SETTINGS, frames.ACK, 0)


def test_a_call_byte_by_byte(world: World) -> None:
    with world.connect(None) as raw:
        call = (
            frames.PREFACE
            + frames.settings(())
            + raw.headers(1, request_headers())
            + frame(frames.DATA, 0, 1, message(b"hello")[:3])
            + frame(frames.DATA, frames.END_STREAM, 1, message(b"hello")[3:])
        )
        for byte in call:
            raw.send(bytes([byte]))
        first, body, last = raw.response(1)
        assert (first[":status"], first["content-type"]) == ("200", "application/grpc")
        assert (body, last) == (message(b"hello"), {"grpc-status": "0"})


def test_a_preface_and_a_call_in_one_packet(world: World) -> None:
    with world.connect(None) as raw:
        raw.send(
            frames.PREFACE,
            frames.settings(()),
            raw.headers(1, request_headers()),
            frame(frames.DATA, frames.END_STREAM, 1, message(b"x")),
        )
        assert raw.response(1)[1] == message(b"x")


@pytest.mark.parametrize(
    "start",
    [b"\x16\x03\x01\x02\x00", b"\0" * 24, b"get /", b"\r\n" + frames.PREFACE],
)
def test_another_protocol_is_refused(world: World, start: bytes) -> None:
    with world.connect(None) as raw:
        raw.send(start)
        assert raw.goaway() == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("first", [frames.ping(bytes(8), ack=False), frames.SETTINGS_ACK])
def test_the_first_frame_must_be_settings(world: World, first: bytes) -> None:
    with world.connect(None) as raw:
        raw.send(frames.PREFACE, first)
        assert raw.goaway() == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("start", [b"", b"PRI", frames.PREFACE])
def test_a_connection_that_does_not_begin_is_closed(
    world: World, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PREFACE_S", 0.1)
    with world.connect(None) as raw:
        raw.send(start)
        begin = time.monotonic()
        assert raw.is_closed()
        assert time.monotonic() - begin < 3


# Frames that end the connection

SIZE, PROTOCOL = ErrorCode.FRAME_SIZE_ERROR, ErrorCode.PROTOCOL_ERROR
FLOW, CLOSED = ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.STREAM_CLOSED
FATAL = {
    "frame too large": (head(16_385, frames.DATA, 0, 1), SIZE),
    "DATA on stream 0": (frame(frames.DATA, 0, 0, b"x"), PROTOCOL),
    "DATA on an idle stream": (frame(frames.DATA, 0, 99, b"x"), PROTOCOL),
    "DATA on a stream of ours": (frame(frames.DATA, 0, 2, b"x"), PROTOCOL),
    "HEADERS on stream 0": (frame(frames.HEADERS, 4, 0, b"\x82"), PROTOCOL),
    "HEADERS on an even stream": (frame(frames.HEADERS, 4, 2, b"\x82"), PROTOCOL),
    "DATA with too much padding": (frame(frames.DATA, 8, 1, b"\x05abc"), PROTOCOL),
    "HEADERS with too much padding": (frame(frames.HEADERS, 12, 1, b"\x05abc"), PROTOCOL),
    "HEADERS too short for a priority": (frame(frames.HEADERS, 0x24, 1, b"abc"), SIZE),
    "bad header block": (frame(frames.HEADERS, 4, 1, b"\x80"), ErrorCode.COMPRESSION_ERROR),
    "CONTINUATION without HEADERS": (frame(frames.CONTINUATION, 4, 1, b"\x82"), PROTOCOL),
    "PRIORITY on stream 0": (frame(frames.PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    "RST_STREAM on stream 0": (frame(frames.RST_STREAM, 0, 0, bytes(4)), PROTOCOL),
    "RST_STREAM on an idle stream": (frame(frames.RST_STREAM, 0, 99, bytes(4)), PROTOCOL),
    "RST_STREAM of a wrong size": (frame(frames.RST_STREAM, 0, 1, bytes(3)), SIZE),
    "SETTINGS on a stream": (frame(frames.SETTINGS, 0, 1), PROTOCOL),
    "SETTINGS of a wrong size": (frame(frames.SETTINGS, 0, 0, bytes(5)), SIZE),
    "SETTINGS ACK with a payload": (frame(frames.SETTINGS, 1, 0, bytes(6)), SIZE),
    "initial window too large": (frames.settings([(4, 2**31)]), FLOW),
    "ENABLE_PUSH neither 0 nor 1": (frames.settings([(2, 2)]), PROTOCOL),
    "MAX_FRAME_SIZE too small": (frames.settings([(5, 16_383)]), PROTOCOL),
    "MAX_FRAME_SIZE too large": (frames.settings([(5, 2**24)]), PROTOCOL),
    "PUSH_PROMISE": (frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), PROTOCOL),
    "PING on a stream": (frame(frames.PING, 0, 1, bytes(8)), PROTOCOL),
    "PING of a wrong size": (frame(frames.PING, 0, 0, bytes(7)), SIZE),
    "GOAWAY on a stream": (frame(frames.GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    "GOAWAY of a wrong size": (frame(frames.GOAWAY, 0, 0, bytes(7)), SIZE),
    "WINDOW_UPDATE of a wrong size": (frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    "WINDOW_UPDATE of nothing": (frames.window_update(0, 0), PROTOCOL),
    "WINDOW_UPDATE of too much": (frames.window_update(0, 2**31 - 1), FLOW),
    "WINDOW_UPDATE on an idle stream": (frames.window_update(99, 1), PROTOCOL),
}


@pytest.mark.parametrize(("sent", "code"), FATAL.values(), ids=FATAL)
def test_a_fault_of_the_connection(world: World, raw: Raw, sent: bytes, code: ErrorCode) -> None:
    raw.begin(1, "Keep")
    before = raw.headers(3, request_headers("Keep"))
    raw.send(before, frame(frames.DATA, frames.END_STREAM, 3, message(b"")))
    world.wait(lambda: len(world.methods.kept) == 1)
    if sent[3] == frames.HEADERS:
        sent = sent[:5] + sent[5:9].replace(b"\x01", b"\x05") + sent[9:]
    raw.send(sent)
    assert raw.goaway() == code
    world.wait(lambda: world.methods.kept[0].cancelled)


@pytest.mark.parametrize(
    "between",
    [
        frame(frames.DATA, 0, 1, b"x"),
        frames.ping(bytes(8), ack=False),
        frame(frames.CONTINUATION, 4, 3, b"\x82"),
        frame(frames.HEADERS, 4, 3, b"\x82"),
        frame(200, 0, 0, b""),
    ],
)
def test_a_header_block_must_not_be_interrupted(raw: Raw, between: bytes) -> None:
    raw.send(frame(frames.HEADERS, 0, 1, b"\x82"), between)
    assert raw.goaway() == ErrorCode.PROTOCOL_ERROR


def test_a_stream_id_must_not_go_back(raw: Raw) -> None:
    raw.call(5)
    raw.response(5)
    raw.begin(3)
    assert raw.goaway() == ErrorCode.STREAM_CLOSED


# Streams


def test_continuation_padding_and_priority_are_understood(raw: Raw) -> None:
    block = raw.encoder.encode(request_headers())
    flags = frames.PADDED | frames.PRIORITY_FLAG
    raw.send(
        frame(frames.HEADERS, flags, 1, b"\x07" + bytes(5) + block[:9] + bytes(7)),
        frame(frames.CONTINUATION, 0, 1, block[9:11]),
        frame(frames.CONTINUATION, 0, 1, b""),
        frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[11:]),
        frame(frames.DATA, frames.PADDED, 1, b"\x02" + message(b"abc") + bytes(2)),
        frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, b"\x00"),
    )
    assert raw.response(1)[1] == message(b"abc")


def test_unknown_frames_flags_and_settings_are_ignored(raw: Raw) -> None:
    raw.send(frame(77, 0xFF, 1, b"what"), frames.settings([(0x99, 5)]))
    raw.send(frame(frames.PRIORITY, 0, 9, bytes(5)), frame(frames.PING, 0xFE, 0, bytes(8)))
    raw.send(raw.headers(1, request_headers(), frames.END_HEADERS | 0xD2))
    raw.data(1, message(b"x"), end=True)
    assert raw.next()[:2] == (frames.PING, frames.ACK)
    assert raw.response(1)[1] == message(b"x")


def test_interleaved_calls_do_not_mix(raw: Raw) -> None:
    raw.begin(1)
    raw.begin(3)
    raw.data(3, message(b"three")[:6])
    raw.data(1, message(b"one"), end=True)
    raw.data(3, message(b"three")[6:], end=True)
    assert raw.response(1)[1] == message(b"one")
    assert raw.response(3)[1] == message(b"three")


def test_a_malformed_request_resets_its_stream_alone(raw: Raw) -> None:
    raw.send(raw.headers(1, [*request_headers(), ("Bad", "x")]))
    assert raw.reset(1) == ErrorCode.PROTOCOL_ERROR
    raw.data(1, message(b"late"), end=True)
    raw.call(3, b"well")
    assert raw.response(3)[1] == message(b"well")


def test_a_refused_request_may_still_send_what_it_has_begun(raw: Raw) -> None:
    raw.begin(1, "Nope")
    for _ in range(50):
        raw.data(1, bytes(1000))
    raw.data(1, b"", end=True)
    assert raw.status(1)[0] == "12"
    assert raw.reset(1) == ErrorCode.NO_ERROR
    assert raw.is_alive()


@pytest.mark.parametrize("late", [0, frames.END_STREAM])
def test_data_after_the_end_of_the_request(world: World, raw: Raw, late: int) -> None:
    raw.call(1, name="Keep")
    raw.send(frame(frames.DATA, late, 1, b"x"))
    assert raw.reset(1) == ErrorCode.STREAM_CLOSED
    world.wait(lambda: world.methods.kept[0].cancelled)
    assert raw.is_alive()


def test_data_on_a_finished_stream(raw: Raw) -> None:
    raw.call(1)
    raw.response(1)
    raw.data(1, b"x")
    assert raw.reset(1) == ErrorCode.STREAM_CLOSED
    raw.data(1, b"more of the same", end=True)
    assert raw.is_alive()


def test_headers_on_a_finished_stream(raw: Raw) -> None:
    raw.call(1)
    raw.response(1)
    raw.begin(1)
    assert raw.goaway() == ErrorCode.STREAM_CLOSED


def test_a_window_update_or_reset_for_a_finished_stream_is_harmless(raw: Raw) -> None:
    raw.call(1)
    raw.response(1)
    raw.widen(1, 100)
    raw.send(frames.rst_stream(1, ErrorCode.CANCEL))
    assert raw.is_alive()


def test_headers_after_the_end_of_the_request(world: World, raw: Raw) -> None:
    raw.call(1, name="Keep")
    raw.begin(1, "Keep")
    assert raw.reset(1) == ErrorCode.STREAM_CLOSED
    world.wait(lambda: world.methods.kept[0].cancelled)
    assert raw.is_alive()


def test_a_half_closed_stream_takes_priorities_and_window(world: World) -> None:
    with world.connect(((Setting.INITIAL_WINDOW_SIZE, 3),)) as raw:
        raw.call(1, name="Keep")
        raw.send(frame(frames.PRIORITY, 0, 1, bytes(5)))
        raw.widen(1, 100)
        world.wait(lambda: bool(world.methods.kept))
        world.server.thread.call(world.methods.kept[0].reply, b"x" * 50)
        assert raw.response(1)[1] == message(b"x" * 50)


def test_a_priority_of_a_wrong_size_resets_its_stream_if_it_is_open(raw: Raw) -> None:
    raw.begin(1)
    raw.send(frame(frames.PRIORITY, 0, 1, bytes(4)))
    assert raw.reset(1) == ErrorCode.FRAME_SIZE_ERROR
    raw.send(frame(frames.PRIORITY, 0, 1, bytes(4)), frame(frames.PRIORITY, 0, 9, bytes(6)))
    assert raw.is_alive()


def test_a_stream_that_depends_on_itself_is_served(raw: Raw) -> None:
    """RFC 7540 forbade it; RFC 9113 knows no dependencies any more."""
    itself = (1).to_bytes(4, "big") + b"\x10"
    raw.send(frame(frames.PRIORITY, 0, 1, itself))
    flags = frames.END_HEADERS | frames.PRIORITY_FLAG
    raw.send(frame(frames.HEADERS, flags, 1, itself + raw.encoder.encode(request_headers())))
    raw.data(1, message(b"x"), end=True)
    assert raw.response(1)[1] == message(b"x")


def test_padding_counts_in_the_windows(raw: Raw) -> None:
    """A request of 2 MiB, half of it padding: it needs more window than its message is long."""
    raw.begin(1, "Reflect")
    piece = frame(frames.DATA, frames.PADDED, 1, b"\xff" + message(bytes(250)) + bytes(255))
    given = 0
    for _ in range(2 * limits.STREAM_WINDOW_BYTES // 511 // 4):
        raw.send(piece * 2)
    raw.send(frames.ping(b"all read", ack=False))
    while True:
        kind, _, stream_id, payload = raw.read()
        if kind == frames.PING:
            break
        if (kind, stream_id) == (frames.WINDOW_UPDATE, 1):
            given += int.from_bytes(payload, "big")
    assert given >= limits.STREAM_WINDOW_BYTES // 2


def test_settings_apply_in_order(world: World) -> None:
    with world.connect(None) as raw:
        sizes = [(Setting.INITIAL_WINDOW_SIZE, size) for size in (5, 100, 7)]
        raw.send(frames.PREFACE, frames.settings(sizes))
        raw.call(1, b"20", "Large")
        assert raw.next()[0] == frames.HEADERS
        assert len(raw.next()[3]) == 7


def test_initial_windows_that_change_all_the_time_end_the_connection(
    world: World, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change looks at every open stream; one frame may hold thousands of changes."""
    monkeypatch.setattr(limits, "STREAMS_PER_NUISANCE", 1)
    for number in range(50):
        raw.call(2 * number + 1, name="Keep")
    raw.send(frames.settings([(Setting.INITIAL_WINDOW_SIZE, number) for number in (0, 9) * 4]))
    assert raw.is_alive()
    raw.send(frames.settings([(Setting.INITIAL_WINDOW_SIZE, number) for number in (0, 9) * 50]))
    assert raw.goaway() == ErrorCode.ENHANCE_YOUR_CALM


def test_request_trailers_end_a_request(raw: Raw) -> None:
    raw.begin(1)
    raw.data(1, message(b"x"))
    raw.send(raw.headers(1, [("x-check", "1")], frames.END_HEADERS | frames.END_STREAM))
    assert raw.response(1)[1] == message(b"x")


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ([("x-check", "1")], frames.END_HEADERS),
        ([(":path", "/")], frames.END_HEADERS | frames.END_STREAM),
    ],
)
def test_bad_trailers_reset_the_stream(raw: Raw, fields: list[tuple[str, str]], flags: int) -> None:
    raw.begin(1)
    raw.send(raw.headers(1, fields, flags))
    assert raw.reset(1) == ErrorCode.PROTOCOL_ERROR
    assert raw.is_alive()


@pytest.mark.parametrize("announced", ["5", "7", "0"])
def test_a_content_length_that_is_not_kept(raw: Raw, announced: str) -> None:
    raw.begin(1, content_length=announced)
    raw.data(1, message(b"x"), end=True)
    assert raw.reset(1) == ErrorCode.PROTOCOL_ERROR
    raw.begin(3, content_length="6")
    raw.data(3, message(b"x"), end=True)
    assert raw.response(3)[1] == message(b"x")


def test_a_reset_cancels_the_call(world: World, raw: Raw) -> None:
    raw.call(1, name="Keep")
    world.wait(lambda: bool(world.methods.kept))
    raw.send(frames.rst_stream(1, ErrorCode.CANCEL))
    world.wait(lambda: world.methods.kept[0].cancelled)
    world.server.thread.call(world.methods.kept[0].reply, b"too late")
    assert raw.is_alive()


def test_a_client_that_says_goodbye_is_served_to_the_end(world: World, raw: Raw) -> None:
    raw.call(1, name="Keep")
    raw.send(frames.goaway(0, ErrorCode.NO_ERROR))
    world.wait(lambda: bool(world.methods.kept))
    world.server.thread.call(world.methods.kept[0].reply, b"fine")
    assert raw.response(1)[1] == message(b"fine")


def test_the_streams_of_a_connection_are_limited(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STREAMS_PER_CONNECTION", 3)
    with world.connect() as raw:
        for stream_id in (1, 3, 5):
            raw.call(stream_id, name="Keep")
        raw.begin(7)
        assert raw.reset(7) == ErrorCode.REFUSED_STREAM
        world.wait(lambda: len(world.methods.kept) == 3)
        world.server.thread.call(world.methods.kept[0].reply, b"")
        raw.response(1)
        raw.call(9, b"room again")
        assert raw.response(9)[1] == message(b"room again")


# gRPC


@pytest.mark.parametrize("name", ["Echo", "Count"])
@pytest.mark.parametrize("body", [b"", b"\0\0", message(b"abc")[:-1], message(b"1") * 2])
def test_a_body_that_is_not_one_message(raw: Raw, name: str, body: bytes) -> None:
    raw.begin(1, name)
    raw.data(1, body, end=True)
    assert raw.status(1)[0] == "13"
    assert raw.is_alive()


def test_a_request_without_a_body(raw: Raw) -> None:
    raw.send(raw.headers(1, request_headers(), frames.END_HEADERS | frames.END_STREAM))
    assert raw.status(1)[0] == "13"


def test_a_compressed_message_is_refused(raw: Raw) -> None:
    raw.begin(1)
    raw.data(1, message(b"x", compressed=1), end=True)
    code, text = raw.status(1)
    assert (code, text) == ("13", "grpc: compressed flag set with identity or empty encoding")


def test_a_huge_message_is_refused_by_its_first_bytes(raw: Raw) -> None:
    raw.begin(1)
    raw.data(1, b"\0" + (100 << 20).to_bytes(4, "big"))
    code, text = raw.status(1)
    assert code == "8"
    assert text == "grpc: received message larger than max (104857600 vs. 2097152)"
    assert raw.reset(1) == ErrorCode.NO_ERROR
    raw.data(1, bytes(16_384))
    raw.call(3, b"others go on")
    assert raw.response(3)[1] == message(b"others go on")


def test_the_server_keeps_deadlines_itself(world: World, raw: Raw) -> None:
    raw.begin(1, "Keep", grpc_timeout="100m")
    raw.data(1, message(b""), end=True)
    raw.begin(3, "Sleep", grpc_timeout="100m")
    raw.data(3, message(b""), end=True)
    raw.begin(5, "Reflect", grpc_timeout="100m")
    raw.begin(7, "Count", grpc_timeout="100m")  # its request never comes
    raw.data(7, b"\0")
    ends = {}
    begin = time.monotonic()
    while len(ends) < 4:
        kind, _, stream_id, payload = raw.next()
        if kind == frames.HEADERS:
            ends[stream_id] = dict(raw.decoder.decode(payload))["grpc-status"]
    assert ends == {1: "4", 3: "4", 5: "4", 7: "4"}
    assert 0.05 < time.monotonic() - begin < 2
    world.wait(lambda: world.methods.kept[0].cancelled)
    world.wait(lambda: world.methods.sessions[0].closes == 1)


def test_url_authorities_are_served(raw: Raw) -> None:
    raw.send(raw.headers(1, request_headers(authority="http://127.0.0.1:2379")))
    raw.data(1, message(b"x"), end=True)
    assert raw.response(1)[1] == message(b"x")


# Flow control


def test_a_response_waits_for_the_streams_window(world: World) -> None:
    with world.connect(((Setting.INITIAL_WINDOW_SIZE, 10),)) as raw:
        raw.call(1, b"20", "Large")
        assert raw.next()[0] == frames.HEADERS
        kind, flags, _, payload = raw.next()
        assert (kind, flags, len(payload)) == (frames.DATA, 0, 10)
        assert raw.is_alive()
        raw.widen(1, 5)
        assert len(raw.next()[3]) == 5
        raw.widen(1, 100)
        assert len(raw.next()[3]) == 10
        assert raw.next()[:3] == (frames.HEADERS, 5, 1)


def test_a_new_initial_window_reaches_open_streams(world: World) -> None:
    with world.connect(((Setting.INITIAL_WINDOW_SIZE, 10),)) as raw:
        raw.call(1, b"95", "Large")
        raw.next()
        assert len(raw.next()[3]) == 10
        raw.send(frames.settings([(Setting.INITIAL_WINDOW_SIZE, 4)]))  # 6 below zero now
        raw.widen(1, 6)
        assert raw.is_alive()
        raw.send(frames.settings([(Setting.INITIAL_WINDOW_SIZE, 50)]))
        assert len(raw.next()[3]) == 46
        raw.widen(1, 44)
        assert len(raw.next()[3]) == 44
        assert raw.next()[0] == frames.HEADERS


def test_an_initial_window_that_overflows_a_stream(world: World, raw: Raw) -> None:
    raw.begin(1, "Reflect")
    raw.widen(1, 2**31 - 1 - 65_535)
    assert raw.is_alive()
    raw.send(frames.settings([(Setting.INITIAL_WINDOW_SIZE, 65_536)]))
    assert raw.goaway() == ErrorCode.FLOW_CONTROL_ERROR


@pytest.mark.parametrize("name", ["Keep", "Reflect", "Count"])
def test_a_streams_window_that_overflows(raw: Raw, name: str) -> None:
    raw.begin(1, name)
    raw.widen(1, 2**31 - 1)
    assert raw.reset(1) == ErrorCode.FLOW_CONTROL_ERROR
    raw.begin(3, name)
    raw.widen(3, 0)
    assert raw.reset(3) == ErrorCode.PROTOCOL_ERROR
    assert raw.is_alive()


def test_the_connections_window_is_shared_fairly(raw: Raw) -> None:
    raw.call(1, b"200000", "Large")
    raw.call(3, b"200000", "Large")
    received = {1: 0, 3: 0}

    def read(count: int) -> None:
        while count:
            kind, _, stream_id, payload = raw.next()
            if kind == frames.DATA:
                received[stream_id] += len(payload)
                count -= len(payload)

    read(65_535)
    assert raw.is_alive()
    raw.widen(1, 1 << 20)
    raw.widen(3, 1 << 20)
    for _ in range(4):
        raw.widen(0, 65_536)
        read(65_536)
    assert min(received.values()) >= 65_536
    raw.call(5, b"")  # one that needs no window is not held up by those that do
    raw.widen(0, 1 << 20)
    for _ in range(2):
        while raw.next()[0] != frames.HEADERS:
            pass


def test_a_small_call_passes_one_that_waits_for_its_window(raw: Raw) -> None:
    raw.widen(0, 1 << 20)
    raw.call(1, b"500000", "Large")
    raw.call(3, b"small")
    while True:
        kind, _, stream_id, payload = raw.next()
        if (kind, stream_id) == (frames.DATA, 3):
            break
    assert payload == message(b"small")


def test_a_large_request_is_given_window_as_it_arrives(raw: Raw) -> None:
    body = message(bytes(2 << 20))
    raw.begin(1)
    window, at = limits.STREAM_WINDOW_BYTES, 0
    raw.widen(0, 1 << 24)
    raw.widen(1, 1 << 24)
    while at < len(body):
        while window < 16_384:
            kind, _, stream_id, payload = raw.read()
            if (kind, stream_id) == (frames.WINDOW_UPDATE, 1):
                window += int.from_bytes(payload, "big")
        raw.data(1, body[at : at + 16_384], end=at + 16_384 >= len(body))
        window -= 16_384
        at += 16_384
    assert raw.response(1)[1] == body


def test_a_session_that_reads_nothing_bounds_what_it_is_sent(world: World, raw: Raw) -> None:
    raw.begin(1, "Reflect")
    world.wait(lambda: bool(world.methods.sessions))
    session = world.methods.sessions[0]
    world.server.thread.call(setattr, session, "accepting", False)
    for _ in range(limits.STREAM_WINDOW_BYTES // 16_384):
        raw.data(1, bytes(16_384))
    assert raw.is_alive()
    assert not session.received_count
    raw.data(1, b"x")
    assert raw.reset(1) == ErrorCode.FLOW_CONTROL_ERROR
    world.wait(lambda: session.closes == 1)
    raw.call(3, b"others go on")
    assert raw.response(3)[1] == message(b"others go on")


def test_unfinished_requests_of_a_connection_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HELD_BYTES", 50_000)
    with world.connect() as raw:
        for stream_id in (1, 3, 5, 7):
            raw.begin(stream_id, "Reflect" if stream_id == 7 else "Echo")
            raw.data(stream_id, b"\0" + (100_000).to_bytes(4, "big") + bytes(14_000))
        assert raw.status(7) == TOO_MANY
        assert raw.reset(7) == ErrorCode.NO_ERROR
        raw.data(5, bytes(14_000))
        assert raw.status(5) == TOO_MANY
        assert raw.reset(5) == ErrorCode.NO_ERROR
        raw.data(3, bytes(6000))  # there is room again, for a little more
        assert raw.is_alive()


def test_unread_responses_of_a_connection_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "QUEUED_BYTES", 50_000)
    with world.connect() as raw:
        raw.call(1, b"200000", "Large")  # two thirds of it wait for a window
        raw.call(3, b"refused")
        frame_of_3 = next(each for each in iter(raw.next, None) if each[2] == 3)
        refusal = dict(raw.decoder.decode(frame_of_3[3]))
        assert (refusal["grpc-status"], refusal["grpc-message"]) == TOO_MANY
        raw.widen(0, 1 << 20)
        raw.widen(1, 1 << 20)
        while raw.next(frames.RST_STREAM)[0] != frames.HEADERS:
            pass  # the rest of the first response, to its trailers
        raw.call(5, b"room again")
        assert raw.response(5)[1] == message(b"room again")


def test_large_answers_of_calls_begun_before_are_not_kept_beyond_the_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten calls are accepted while nothing waits: only as many answers are kept as may wait."""
    monkeypatch.setattr(limits, "QUEUED_BYTES", 300_000)
    with world.connect(((Setting.INITIAL_WINDOW_SIZE, 0),)) as raw:
        for stream_id in range(1, 21, 2):
            raw.call(stream_id, name="Keep")
        world.wait(lambda: len(world.methods.kept) == 10)

        def answer() -> None:
            for call in world.methods.kept:
                call.reply(bytes(100_000))

        world.server.thread.call(answer)
        ends = []
        for _ in range(10):
            kind, flags, _, payload = raw.next()
            assert kind == frames.HEADERS
            opened = dict(raw.decoder.decode(payload))
            ends.append(opened["grpc-status"] if flags & frames.END_STREAM else "")
        assert ends == [""] * 3 + ["8"] * 7
        assert world.load.queued_bytes == 3 * 100_005
    world.wait(lambda: world.load.queued_bytes == 0)


def test_connections_share_what_a_server_keeps_for_clients(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the server's sum those are refused who have much; who reads is served on."""
    monkeypatch.setattr(limits, "SERVER_QUEUED_BYTES", 400_000)
    monkeypatch.setattr(limits, "SERVER_HELD_BYTES", 30_000)
    monkeypatch.setattr(limits, "SHARE_BYTES", 10_000)
    shut = ((Setting.INITIAL_WINDOW_SIZE, 0),)
    with contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(world.connect(shut)) for _ in range(5)]
        for raw in greedy:
            raw.call(1, b"100000", "Large")
            assert raw.next()[:3] == (frames.HEADERS, frames.END_HEADERS, 1)
        for raw in greedy:
            raw.call(3, b"10")
            assert raw.status(3) == TOO_MANY
        modest = stack.enter_context(world.connect())
        modest.call(1, b"served on")
        assert modest.response(1)[1] == message(b"served on")
    world.wait(lambda: world.load.queued_bytes == 0)
    with world.connect() as one, world.connect() as two:
        unfinished = b"\0" + (100_000).to_bytes(4, "big") + bytes(14_000)
        for raw in (one, two):
            raw.begin(1)
            raw.data(1, unfinished)
            assert raw.is_alive()
        one.data(1, bytes(14_000))
        assert one.status(1) == TOO_MANY
        two.call(3, b"small ones")
        assert two.response(3)[1] == message(b"small ones")
    world.wait(lambda: world.load.held_bytes == 0)


# Sessions


def test_a_session_takes_and_gives_messages_however_they_are_cut(world: World, raw: Raw) -> None:
    raw.begin(1, "Reflect")
    sent = [b"x" * size for size in (0, 1, 100, 5000, 3)]
    stream = b"".join(map(message, sent))
    for at in range(0, len(stream), 700):
        raw.data(1, stream[at : at + 700])
    raw.data(1, b"", end=True)
    first, body, last = raw.response(1)
    assert first[":status"] == "200"
    assert body == stream
    assert last == {"grpc-status": "0"}
    session = world.methods.sessions[0]
    world.wait(lambda: (session.half_closes, session.closes) == (1, 1))


def test_messages_taken_together_travel_in_one_frame(world: World, raw: Raw) -> None:
    raw.begin(1, "Reflect")
    world.wait(lambda: bool(world.methods.sessions))
    session = world.methods.sessions[0]

    def give() -> None:
        session.held += [b"%d" % number for number in range(60)]
        session.outlet.wake()

    world.server.thread.call(give)
    assert raw.next()[0] == frames.HEADERS
    kind, _, _, payload = raw.next()
    assert kind == frames.DATA
    assert payload == b"".join(message(b"%d" % number) for number in range(60))


@pytest.mark.parametrize(("sent", "code"), [(b"fail", "3"), (b"crash", "13")])
def test_a_session_that_fails(world: World, raw: Raw, sent: bytes, code: str) -> None:
    raw.begin(1, "Reflect")
    raw.data(1, message(b"before") + message(sent) + message(b"after"))
    _, body, last = raw.response(1)
    assert body == message(b"before")
    assert last["grpc-status"] == code
    assert "secret" not in str(last)
    assert raw.reset(1) == ErrorCode.NO_ERROR
    raw.data(1, message(b"late"))
    assert raw.is_alive()
    world.wait(lambda: world.methods.sessions[0].closes == 1)


def test_a_session_ended_within_a_message(world: World, raw: Raw) -> None:
    raw.begin(1, "Reflect")
    raw.data(1, message(b"abc")[:6], end=True)
    assert raw.status(1)[0] == "13"


def test_a_session_that_ends_waits_for_the_window(world: World) -> None:
    with world.connect(((Setting.INITIAL_WINDOW_SIZE, 0),)) as raw:
        raw.begin(1, "Reflect")
        raw.data(1, message(b"abc"), end=True)
        assert raw.next()[0] == frames.HEADERS
        assert raw.is_alive()
        raw.widen(1, 8)
        assert raw.next()[3] == message(b"abc")
        assert raw.next()[:3] == (frames.HEADERS, 5, 1)


def test_a_session_without_messages_ends_without_a_window(world: World) -> None:
    with world.connect(((Setting.INITIAL_WINDOW_SIZE, 0),)) as raw:
        raw.begin(1, "Reflect")
        raw.data(1, b"", end=True)
        assert raw.status(1) == ("0", "")


@pytest.mark.parametrize("way", ["reset", "close"])
def test_a_session_whose_client_leaves(world: World, way: str) -> None:
    with world.connect() as raw:
        raw.begin(1, "Reflect")
        world.wait(lambda: bool(world.methods.sessions))
        session = world.methods.sessions[0]
        if way == "reset":
            raw.send(frames.rst_stream(1, ErrorCode.CANCEL))
    world.wait(lambda: session.closes == 1)
    world.server.thread.call(session.outlet.wake)
    world.server.thread.call(session.outlet.finish, None)


# Server streams


def test_a_stream_goes_at_the_clients_pace(world: World, raw: Raw) -> None:
    raw.call(1, b"5000", "Count")
    assert raw.next()[0] == frames.HEADERS
    time.sleep(0.05)
    assert raw.is_alive()
    assert world.methods.drawn <= 66, "65,535 bytes hold no more"
    raw.widen(0, 1 << 24)
    raw.widen(1, 1 << 24)
    assert raw.next()[0] == frames.DATA
    while raw.next()[0] == frames.DATA:
        pass
    assert world.methods.stream_ends == 1


def test_a_streams_messages_all_arrive(world: World) -> None:
    with world.connect(((Setting.INITIAL_WINDOW_SIZE, 2**31 - 1),)) as raw:
        raw.widen(0, 1 << 30)
        raw.call(1, b"3000", "Count")
        _, body, last = raw.response(1)
        assert last == {"grpc-status": "0"}
        assert len(body) == 3000 * 1005
        assert [int(body[at + 5 : at + 9]) for at in range(0, len(body), 1005)] == list(range(3000))


def test_a_stream_whose_client_leaves_ends(world: World, raw: Raw) -> None:
    raw.call(1, b"5000", "Count")
    assert raw.next()[0] == frames.HEADERS
    raw.send(frames.rst_stream(1, ErrorCode.CANCEL))
    world.wait(lambda: world.methods.stream_ends == 1)


# Header tables


def test_a_client_without_a_header_table_is_told_that_ours_is_empty(world: World) -> None:
    with world.connect(((Setting.HEADER_TABLE_SIZE, 0),)) as raw:
        raw.decoder.max_allowed_table_size = 0
        for stream_id in (1, 3):
            raw.call(stream_id, b"x")
            assert raw.response(stream_id)[2] == {"grpc-status": "0"}
        assert raw.decoder.header_table_size == 0


# Floods and oversizes


def test_an_oversized_header_list_is_refused(raw: Raw) -> None:
    fields = request_headers("Echo", ("big", "x" * 15_000), ("a", "y" * 2000))
    block = raw.encoder.encode(fields, huffman=False)
    raw.send(frames.headers(1, block, end_stream=False))
    assert raw.status(1)[0] == "8"
    assert raw.reset(1) == ErrorCode.NO_ERROR
    raw.call(3, b"still in step")
    assert raw.response(3)[1] == message(b"still in step")


def flood(raw: Raw, piece: bytes, count: int) -> ErrorCode:
    """Sends a piece over and over while reading nothing; the code of the GOAWAY that ends it."""
    try:
        for _ in range(count // 100):
            raw.send(piece * 100)
    except OSError:
        pass
    try:
        while True:
            kind, _, _, payload = raw.next(frames.PING)
            if kind == frames.GOAWAY:
                return ErrorCode(int.from_bytes(payload[4:8], "big"))
    except ClosedError:
        pytest.fail("closed without a word")


FLOODS = {
    "PING": frames.ping(bytes(8), ack=False),
    "PING ACK": frames.ping(bytes(8), ack=True),
    "SETTINGS": frames.settings(()),
    "SETTINGS ACK": frames.SETTINGS_ACK,
    "PRIORITY": frame(frames.PRIORITY, 0, 5, bytes(5)),
    "unknown": frame(123, 0, 0, b""),
    "empty DATA": frame(frames.DATA, 0, 1, b""),
    "padding": frame(frames.DATA, frames.PADDED, 1, b"\x02\0\0"),
    "GOAWAY": frames.goaway(0, ErrorCode.NO_ERROR),
}


@pytest.mark.parametrize("piece", FLOODS.values(), ids=FLOODS)
def test_floods_end_the_connection(raw: Raw, piece: bytes) -> None:
    raw.begin(1)
    assert flood(raw, piece, 2 * limits.NUISANCES) == ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("payload", [b"", bytes(8000)])
def test_continuation_floods_end_the_connection(raw: Raw, payload: bytes) -> None:
    raw.send(frame(frames.HEADERS, 0, 1, b"\x82"))
    piece = frame(frames.CONTINUATION, 0, 1, payload)
    assert flood(raw, piece, 100) == ErrorCode.ENHANCE_YOUR_CALM


def test_rapid_reset_ends_the_connection(
    world: World, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RESETS", 200)
    raw.encoder.encode(request_headers("Keep"))
    block = raw.encoder.encode(request_headers("Keep"))
    raw.encoder = type(raw.encoder)()
    raw.send(frame(frames.HEADERS, 5, 1, raw.encoder.encode(request_headers("Keep"))))
    raw.status(1)
    parts = [
        frame(frames.HEADERS, 4, stream_id, block)
        + frame(frames.DATA, 1, stream_id, message(b""))
        + frames.rst_stream(stream_id, ErrorCode.CANCEL)
        for stream_id in range(3, 1003, 2)
    ]
    raw.send(*parts)
    assert raw.goaway() == ErrorCode.ENHANCE_YOUR_CALM
    assert 200 <= len(world.methods.kept) <= 210
    world.wait(lambda: all(call.cancelled for call in world.methods.kept))


def test_honest_pings_and_resets_are_never_punished(world: World, raw: Raw) -> None:
    for number in range(3 * limits.NUISANCES):
        raw.send(frames.ping(bytes(8), ack=False))
        raw.call(2 * number + 1, b"x")
        if number % 50 == 49:
            for back in range(49, -1, -1):
                raw.response(2 * (number - back) + 1)
    assert raw.is_alive()


def test_a_client_that_reads_nothing_is_not_read(world: World) -> None:
    """Its responses fill the socket, then its requests wait: nothing piles up here."""
    with world.connect(((Setting.INITIAL_WINDOW_SIZE, 2**31 - 1),)) as raw:
        raw.widen(0, 2**31 - 1 - 65_535)
        raw.call(1, b"1000000", "Large")
        raw.response(1)
        block = raw.encoder.encode(request_headers("Large"))
        raw.socket.settimeout(0.3)
        sent = 0
        with contextlib.suppress(TimeoutError):
            for stream_id in range(3, 200_001, 2):
                raw.send(
                    frame(frames.HEADERS, 4, stream_id, block),
                    frame(frames.DATA, 1, stream_id, message(b"16000")),
                )
                sent += 1
        assert sent < 99_000, "the socket never filled"
        with world.connect() as other:
            other.call(1, b"others go on")
            assert other.response(1)[1] == message(b"others go on")
        method = world.server.table.get("/test.Service/Large")
        assert method is not None
        assert method.started < sent
        raw.socket.settimeout(5)
        assert raw.next()[0] == frames.HEADERS
