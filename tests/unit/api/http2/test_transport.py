"""Sockets and timers of the HTTP/2 server: other protocols, silence, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web

from kvstore.api.address import ListenError
from kvstore.api.http2 import frames
from kvstore.api.http2.errors import ErrorCode
from kvstore.api.http2.transport import Http2Transport
from tests.unit.api.http2.raw import PATH, Raw, message
from tests.unit.api.http2.server import Methods
from tests.unit.api.serving import MAX_REQUEST_BYTES, LoopThread, has_uvloop


class Running:
    """A transport with options of its own, on a loop of either kind."""

    def __init__(
        self, target: str = "127.0.0.1:0", *, uvloop: bool = False, **options: Any
    ) -> None:
        self.thread = LoopThread(uvloop=uvloop)
        self.methods = Methods()

        async def start() -> str:
            self.transport = Http2Transport(
                self.methods.build(), max_request_bytes=MAX_REQUEST_BYTES, **options
            )
            bound = await self.transport.listen(target)
            await self.transport.start()
            return bound[0]

        self.target = self.thread.run(start())

    def stop(self, grace_s: float = 0.1) -> None:
        self.thread.run(self.transport.stop(grace_s))

    def close(self) -> None:
        self.stop(0)
        self.thread.close()


@contextlib.contextmanager
def running(*arguments: Any, **options: Any) -> Iterator[Running]:
    server = Running(*arguments, **options)
    try:
        yield server
    finally:
        server.close()


LOOPS = [False, pytest.param(True, marks=pytest.mark.skipif(not has_uvloop(), reason="uvloop"))]


# HTTP/1 on the same port


async def http_handler() -> web.Server:
    async def handle(request: web.BaseRequest) -> web.Response:
        return web.Response(text=f"{request.method} {request.path} {await request.text()}")

    return web.Server(handle)


def exchange(target: str, *pieces: bytes) -> bytes:
    """What a server answers to bytes sent piece by piece."""
    host, _, port = target.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as one:
        for piece in pieces:
            one.sendall(piece)
            time.sleep(0.02)
        received = b""
        while data := one.recv(65_536):
            received += data
        return received


@pytest.mark.parametrize("uvloop", LOOPS)
def test_http1_and_grpc_share_a_port(uvloop: bool) -> None:
    handlers: list[web.Server] = []
    with running(uvloop=uvloop, http1=lambda: handlers[0]()) as server:
        handlers.append(server.thread.run(http_handler()))
        close = b"Host: x\r\nConnection: close\r\n\r\n"
        get = b"GET /health HTTP/1.1\r\n" + close
        assert b"200 OK" in exchange(server.target, get)
        for cuts in ((1, 2), (3, 4, 40), (16,)):
            edges = [0, *cuts, len(get)]
            pieces = [get[a:b] for a, b in itertools.pairwise(edges)]
            assert exchange(server.target, *pieces).endswith(b"GET /health ")
        for method in (b"POST", b"PUT", b"PATCH"):  # they begin as the preface of HTTP/2 does
            head = method + b" / HTTP/1.1\r\nContent-Length: 3\r\n" + close
            for cut in (1, 2, len(head)):
                answer = exchange(server.target, head[:cut], head[cut:] + b"abc")
                assert answer.endswith(method + b" / abc")
        with Raw(server.target) as raw:
            raw.call(1, b"both")
            assert raw.response(1)[1] == message(b"both")


def test_without_an_http_handler_http1_is_refused() -> None:
    with running() as server:
        answer = exchange(server.target, b"GET / HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 505 ")


# Sockets


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with running(f"unix:{path}") as server:
        assert server.target == f"unix:{path}"
        with grpc.insecure_channel(server.target) as channel:
            assert channel.unary_unary(PATH + "Echo")(b"x", timeout=5) == b"x"
        thread = LoopThread()
        second = Http2Transport(Methods().build(), max_request_bytes=1)
        with pytest.raises(ListenError, match="another process listens there already"):
            thread.run(second.listen(server.target))
        thread.close()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # what a killed server leaves behind
    with running(f"unix:{path}") as server, grpc.insecure_channel(server.target) as channel:
        assert channel.unary_unary(PATH + "Echo")(b"x", timeout=5) == b"x"


def test_each_message_of_a_stream_leaves_when_it_is_there() -> None:
    """Not with the next thing that the connection has to say."""
    with running() as server, grpc.insecure_channel(server.target) as channel:
        call = channel.unary_stream(PATH + "Ticks")(b"", timeout=5)
        ticks = server.methods.ticks
        for number in range(3):
            server.thread.call(ticks.put_nowait, b"%d" % number)
            assert next(call) == b"%d" % number
        call.cancel()


def test_a_unix_path_that_cannot_be_had(tmp_path: Path) -> None:
    thread = LoopThread()
    transport = Http2Transport(Methods().build(), max_request_bytes=1)
    with pytest.raises(ListenError, match="nowhere"):
        thread.run(transport.listen(f"unix:{tmp_path}/nowhere/s.sock"))
    thread.close()


def test_every_interface_takes_both_families() -> None:
    with running(":0") as server:
        port = server.target.rpartition(":")[2]
        with Raw(f"127.0.0.1:{port}") as raw:
            raw.call(1, b"x")
            assert raw.response(1)[1] == message(b"x")


# Silence


@pytest.mark.parametrize("uvloop", LOOPS)
def test_a_silent_client_is_asked_and_then_left(
    uvloop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.api.http2.limits.PREFACE_S", 0.05)
    with (
        running(uvloop=uvloop, keepalive_time_ms=150, keepalive_timeout_ms=150) as server,
        Raw(server.target) as raw,
    ):
        for _ in range(3):
            kind, flags, _, payload = raw.next()
            assert (kind, flags) == (frames.PING, 0)
            raw.send(frames.ping(payload, ack=True))
        raw.call(1, name="Keep")
        assert raw.next()[0] == frames.PING
        begin = time.monotonic()
        assert raw.is_closed()
        assert time.monotonic() - begin < 2
        assert server.methods.kept[0].cancelled


# The end


@pytest.mark.parametrize("uvloop", LOOPS)
def test_stopping_says_goodbye_and_waits_for_calls(uvloop: bool) -> None:
    with running(uvloop=uvloop) as server, Raw(server.target) as raw, Raw(server.target) as idle:
        raw.call(1, name="Keep")
        raw.begin(3, "Reflect")
        assert raw.is_alive()
        assert idle.is_alive()
        stopped = asyncio.run_coroutine_threadsafe(server.transport.stop(5), server.thread.loop)
        assert idle.goaway() == ErrorCode.NO_ERROR
        assert raw.next()[0] == frames.GOAWAY
        raw.begin(5)
        assert raw.reset(5) == ErrorCode.REFUSED_STREAM
        raw.data(3, message(b"still there"), end=True)
        assert raw.response(3)[1] == message(b"still there")
        server.thread.call(server.methods.kept[0].reply, b"done")
        assert raw.response(1)[1] == message(b"done")
        assert raw.is_closed()
        stopped.result(5)


def test_stopping_fails_what_does_not_end_in_time() -> None:
    with running() as server, Raw(server.target, [(4, 0)]) as raw:
        raw.call(1, name="Keep")
        raw.call(3, name="Sleep")
        raw.begin(5, "Reflect")
        raw.send(raw.headers(7, []))
        raw.call(9, b"5", "Count")
        raw.call(11, b"5", "Large")
        assert raw.reset(7) == ErrorCode.PROTOCOL_ERROR
        begun = [raw.next()[2] for _ in range(2)]
        assert sorted(begun) == [9, 11]
        stopped = asyncio.run_coroutine_threadsafe(server.transport.stop(0.1), server.thread.loop)
        assert raw.next()[0] == frames.GOAWAY
        ends: dict[int, str] = {}
        while len(ends) < 5:
            kind, _, stream_id, payload = raw.next()
            if kind == frames.HEADERS:
                ends[stream_id] = dict(raw.decoder.decode(payload))["grpc-status"]
            else:
                assert kind == frames.RST_STREAM
                ends.setdefault(stream_id, "reset")
        assert ends == {1: "14", 3: "14", 5: "14", 9: "14", 11: "reset"}
        assert raw.is_closed()
        stopped.result(5)


def test_a_client_that_ignores_the_end_is_cut_off() -> None:
    with running() as server, Raw(server.target) as raw:
        assert raw.is_alive()
        begin = time.monotonic()
        server.stop(0)
        assert time.monotonic() - begin < 3
        assert raw.is_closed()
