"""Overload: clients that ask for more than they read. Memory stays bounded, others are served.

Each test overloads a real member over its own HTTP/2 server by raw connections, looks at the
memory of the process while the load stands, and has a client beside it that puts all the time.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count

import pytest

from kvstore.api.http2 import frames
from kvstore.api.http2.frames import Setting
from kvstore.pb import rpc_pb2
from tests.support.attacks import Bystander, anonymous_mib
from tests.support.rpc import Rpc
from tests.support.servers import Server, make_cluster
from tests.unit.api.client import create
from tests.unit.api.http2.raw import ClosedError, Raw, frame, message, request_headers

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

RANGE, PUT = "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put"
WATCH = "/etcdserverpb.Watch/Watch"
TOO_MANY = "etcdserver: too many requests"
WIDE = ((Setting.INITIAL_WINDOW_SIZE, 2**31 - 1),)
SHUT = ((Setting.INITIAL_WINDOW_SIZE, 0),)
LARGE = 1_000_000


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A member with 4 MB under `big/`; it is fresh, so that memory is what this test made it."""
    directory = tmp_path_factory.mktemp("overload")
    with make_cluster(directory, extra=("--transport=http2",)) as cluster:
        with Rpc(cluster.servers[0].endpoint) as rpc:
            for number in range(4):
                rpc.put(f"big/{number}", bytes(LARGE))
        yield cluster.servers[0]
        log = cluster.servers[0].log()
        assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]


@contextlib.contextmanager
def overloaded(server: Server, most_mib: int, *, p99_s: float = 1.0) -> Iterator[None]:
    """What is done within may cost so much memory, and must not be in others' way."""
    before = anonymous_mib(server)
    with Bystander(server.endpoint) as bystander:
        yield
        most = anonymous_mib(server)
        already = len(bystander.delays)
        deadline = time.monotonic() + 20
        while len(bystander.delays) < already + 50 and time.monotonic() < deadline:
            time.sleep(0.02)
            most = max(most, anonymous_mib(server))
    print(f"grown by {most - before:.0f} MiB; others' p99 {bystander.p99_s() * 1000:.0f} ms")
    assert most - before < most_mib
    assert not bystander.failures
    assert bystander.p99_s() < p99_s


def encoded(path: str) -> bytes:
    """A header block that leaves the table alone, so that it may be sent any number of times."""
    with_table = [(name.encode(), value.encode()) for name, value in request_headers(path=path)]
    return b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in with_table
    )


def calls(path: str, request: bytes, first: int, number: int) -> bytes:
    """So many unary calls, from stream `first` on; the request fits into one frame."""
    block, body = encoded(path), message(request)
    return b"".join(
        frame(frames.HEADERS, frames.END_HEADERS, stream_id, block)
        + frame(frames.DATA, frames.END_STREAM, stream_id, body)
        for stream_id in range(first, first + 2 * number, 2)
    )


def statuses(raw: Raw, number: int) -> Counter[str]:
    """How the next `number` calls to end were answered: error texts, empty for success."""
    ends: Counter[str] = Counter()
    while ends.total() < number:
        kind, flags, _, payload = raw.next(frames.RST_STREAM, frames.PING, frames.WINDOW_UPDATE)
        if kind == frames.HEADERS:
            fields = dict(raw.decoder.decode(payload))
            if flags & frames.END_STREAM:
                ends[fields.get("grpc-message", "")] += 1
    return ends


def test_ten_thousand_large_answers_that_have_no_window(server: Server) -> None:
    """10 GB asked for in 1 MB of requests, all before the first answer is there."""
    request = rpc_pb2.RangeRequest(key=b"big/0").SerializeToString()
    with Raw(f"127.0.0.1:{server.client_port}", SHUT, timeout=60) as raw:
        with overloaded(server, 450):
            raw.send(calls(RANGE, request, 1, 10_000))
            ends = statuses(raw, 9_800)
        assert set(ends) == {TOO_MANY}
        raw.widen(0, 2**30)
        raw.send(frames.settings(WIDE))  # the client reads at last: what was kept is sent
        while statuses(raw, 1) != Counter({"": 1}):
            pass


def test_questions_whose_answers_are_never_read(server: Server) -> None:
    """All windows open, so the socket is what fills; then the client is not heard any more."""
    request = rpc_pb2.RangeRequest(key=b"big/0").SerializeToString()
    with Raw(f"127.0.0.1:{server.client_port}", WIDE) as raw:
        raw.widen(0, 2**31 - 1 - 65_535)
        raw.socket.settimeout(2)
        with overloaded(server, 450):
            sent = 0
            with contextlib.suppress(TimeoutError):
                for first in range(1, 400_000, 200):
                    raw.send(calls(RANGE, request, first, 100))
                    sent += 100
            assert 0 < sent < 200_000, "the server read everything"


def test_tiny_windows(server: Server) -> None:
    """A client that lets its answers through byte by byte."""
    request = rpc_pb2.RangeRequest(key=b"big/", range_end=b"big0").SerializeToString()
    with (
        Raw(f"127.0.0.1:{server.client_port}", ((Setting.INITIAL_WINDOW_SIZE, 1),)) as raw,
        overloaded(server, 450),
    ):
        raw.send(calls(RANGE, request, 1, 1_000))
        received: Counter[int] = Counter()
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            kind, _, stream_id, payload = raw.next(frames.RST_STREAM, frames.HEADERS)
            if kind == frames.DATA:
                received[stream_id] += len(payload)
                raw.widen(0, len(payload))
                raw.widen(stream_id, 1)
        assert received.total() > 1_000
        assert max(received.values()) <= 2 * min(received.values()) + 2, "all in turn"


def test_a_thousand_watches_that_are_never_read(server: Server) -> None:
    """Each on a stream of its own with responses of its own: 1.6 GB of them."""
    value = bytes(400_000)
    with Raw(f"127.0.0.1:{server.client_port}", SHUT) as raw, Rpc(server.endpoint, 20) as rpc:
        block = encoded(WATCH)
        for number in range(1_000):
            # A number of its own makes each one's responses different bytes.
            asked = create(b"watched", watch_id=number + 1)
            raw.send(
                frame(frames.HEADERS, frames.END_HEADERS, 2 * number + 1, block),
                frame(frames.DATA, 0, 2 * number + 1, message(asked.SerializeToString())),
            )
        assert raw.is_alive()
        with overloaded(server, 450):
            for _ in range(4):
                rpc.put("watched", value)
        assert raw.is_alive()


def test_large_writes_beyond_what_the_log_takes(server: Server) -> None:
    """A thousand puts of a megabyte in flight on ten connections: some are done, others told."""
    request = message(rpc_pb2.PutRequest(key=b"w", value=bytes(LARGE)).SerializeToString())
    block = encoded(PUT)
    ends: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        target = f"127.0.0.1:{server.client_port}"
        raws = [stack.enter_context(Raw(target, timeout=60)) for _ in range(10)]
        # A put waits behind those that were accepted: up to 128 MiB of log to write.
        with overloaded(server, 1_250, p99_s=8):
            ids = count(1, 2)
            for stream_id in (next(ids) for _ in range(100)):
                for raw in raws:
                    raw.send(frame(frames.HEADERS, frames.END_HEADERS, stream_id, block))
                    with contextlib.suppress(socket.timeout, ClosedError):
                        for at in range(0, len(request), frames.MAX_FRAME):
                            piece = request[at : at + frames.MAX_FRAME]
                            last = at + frames.MAX_FRAME >= len(request)
                            raw.data(stream_id, piece, end=last)
            for raw in raws:
                ends += statuses(raw, 100)
    assert set(ends) <= {"", TOO_MANY}
    assert ends[""] > 10
    with Rpc(server.endpoint) as rpc:
        rpc.put("after", "the flood")
