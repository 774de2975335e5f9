"""Targets: the client port, where HTTP/2 and HTTP/1 arrive, and the HTTP endpoints behind it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError

from kvstore.api.call import Call, MethodTable, Outlet
from kvstore.api.http2 import frames
from kvstore.api.http2.deadlines import Deadlines
from kvstore.api.http2.dispatch import Dispatcher
from kvstore.api.http2.errors import Http2Error
from kvstore.api.http2.headers import HeaderDecoder
from kvstore.api.http2.peer import Shared
from kvstore.errors import EMPTY_KEY
from kvstore.gateways.http.app import make_app
from kvstore.gateways.http.health import HealthChecks
from kvstore.gateways.http.server import HttpServer
from kvstore.metrics import Metrics
from tests.fuzz.registry import Feed, Refused, Target
from tests.fuzz.sockets import FakeSocket, settle
from tests.support.http2_world import World
from tests.unit.api.http2.raw import PATH, frame, message, request_headers
from tests.unit.api.http2.server import Methods, Reflection
from tests.unit.gateways.test_http import FakeNode

__all__ = ("TARGETS",)

_PIECES = 400
"""A torn input comes byte by byte, or in this many pieces if it is longer."""


def _torn(data: bytes) -> list[bytes]:
    step = len(data) // _PIECES + 1
    return [data[at : at + step] for at in range(0, len(data), step)]


class _CarefulReflection(Reflection):
    def received(self, payload: bytes) -> None:
        if payload == b"crash":
            raise EMPTY_KEY
        super().received(payload)


class _Careful(Methods):
    """Methods that make no mistakes of their own, so that any that is logged is the server's."""

    def build(self) -> MethodTable:
        table = MethodTable()
        table.unary(PATH + "Echo", lambda call: call.payload)
        table.unary(PATH + "Large", lambda call: bytes(1000 * len(call.payload)))
        table.unary(PATH + "Keep", self.kept.append)
        table.unary(PATH + "Sleep", self._sleep)
        table.unary(PATH + "Fail", self._fail)
        table.stream(PATH + "Count", self._each)
        table.session(PATH + "Reflect", self._reflect)
        return table

    async def _each(self, call: Call) -> AsyncIterator[bytes]:
        for number in range(len(call.payload)):
            yield b"%04d" % number + bytes(996)

    def _reflect(self, outlet: Outlet) -> Any:
        self.sessions.append(_CarefulReflection(outlet))
        return self.sessions[-1]


# ---- HTTP/2 -------------------------------------------------------------------------------------


@contextmanager
def _http2() -> Iterator[Feed]:
    with asyncio.Runner() as runner:

        async def once(pieces: list[bytes]) -> int:
            world = World(_Careful())
            for piece in pieces:
                await world.feed(piece)
            await world.end()
            return world.goaways

        def feed(data: bytes) -> None:
            refused = runner.run(once([data]))
            assert runner.run(once(_torn(data))) == refused
            if refused:
                raise Refused("GOAWAY")

        yield feed


def _call(encoder: Encoder, stream_id: int, name: str, body: bytes, **fields: str) -> bytes:
    block = encoder.encode(request_headers(name, **fields))
    opening = frame(frames.HEADERS, 4, stream_id, block)
    return opening + frame(frames.DATA, 1, stream_id, body)


def _http2_seeds() -> list[bytes]:
    start = frames.PREFACE + frames.settings(())
    encoder = Encoder()
    calls = (
        _call(encoder, 1, "Echo", message(b"hello")),
        _call(encoder, 3, "Count", message(b"3"), grpc_timeout="1S"),
        _call(encoder, 5, "Reflect", message(b"a") + message(b"b")),
        _call(encoder, 7, "Large", message(b"70000")),
    )
    split = Encoder().encode(request_headers("Echo"))
    continued = frame(frames.HEADERS, 0, 1, split[:9]) + frame(frames.CONTINUATION, 4, 1, split[9:])
    tuned = frames.settings([(1, 0), (4, 10), (5, 16_384)]) + frames.window_update(0, 1000)
    return [
        start,
        start + b"".join(calls),
        start + continued + frame(frames.DATA, 1, 1, message(b"x")),
        start + tuned + _call(Encoder(), 1, "Echo", message(b"long" * 20)),
        start + frame(frames.PING, 0, 0, b"12345678") + frame(frames.GOAWAY, 0, 0, bytes(8)),
    ]


_HTTP2_WORDS = (
    *(frame(kind, flags, stream, b"") for kind in range(10) for flags, stream in ((0, 0), (5, 1))),
    *(frame(frames.DATA, 8, 1, b"\xff"), frame(frames.DATA, 9, 1, b"\x05aaaaaaaa")),
    *(frames.window_update(0, 2**31 - 1), frames.settings([(4, 2**31)]), frames.settings([(2, 9)])),
    *(frames.settings([(5, 0)]), message(b"fail"), message(b"crash"), b"\0\xff\xff\xff\xff"),
    *(b"\xff\xff\xff\xff\x0f", b"\x3f\xe1\xff\x03", b"\x20", b"\x40\x01a\x01b", b"\x80"),
    frame(frames.RST_STREAM, 0, 1, bytes(4)),
)


@contextmanager
def _hpack() -> Iterator[Feed]:
    """A header block, twice: the second time with what the first has left in the table.

    What another decoder makes of it, if it takes it, is the same.
    """

    def feed(data: bytes) -> None:
        ours, other = HeaderDecoder(lambda fields: fields), Decoder()
        for _ in range(2):
            fields = ours.decode(data)
            try:
                theirs = other.decode(data, raw=True)
            except (HPACKError, ValueError):
                return
            assert fields is None or list(fields) == [(bytes(n), bytes(v)) for n, v in theirs]

    yield feed


def _hpack_seeds() -> list[bytes]:
    encoder = Encoder()
    first = encoder.encode(request_headers("Echo", grpc_timeout="1S"))
    encoder.header_table_size = 100
    fields = [("a", "b" * 300), ("secret", "x")]
    return [first, encoder.encode(request_headers("Echo")), Encoder().encode(fields, huffman=False)]


# ---- HTTP/1 -------------------------------------------------------------------------------------

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class _Doors:
    """Ports of every kind; `connect` makes what serves one connection."""

    async def start(self, *, with_http1: bool) -> None:
        metrics = Metrics()
        node = FakeNode()
        checks = HealthChecks(node, metrics, timeout_s=0.05)
        self._server = HttpServer(make_app(node, metrics, checks, hosts=("ok", "127.0.0.1")))
        self.http = await self._server.prepare()
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop.time, loop.call_later)
        dispatcher = Dispatcher(_Careful().build(), 2000, deadlines)
        self._shared = Shared(dispatcher, 100, 0.0, 1.0, self.http if with_http1 else None)

    def client_port(self) -> Any:
        return self._shared.connect()

    async def stop(self) -> None:
        for peer in list(self._shared.peers):
            peer.abort()
        await self._server.stop()


def _http1(connect: Callable[[_Doors], Any], *, with_http1: bool = True) -> Any:
    @contextmanager
    def opened() -> Iterator[Feed]:
        with asyncio.Runner() as runner:
            doors = _Doors()
            runner.run(doors.start(with_http1=with_http1))

            async def once(pieces: list[bytes]) -> str:
                sock = FakeSocket(connect(doors))
                for piece in pieces:
                    sock.feed(piece)
                    await settle(1)
                await settle(12)
                found = _STATUS.match(sock.written)
                sock.lose()
                await settle(2)
                if found is None:
                    return "no answer" if not sock.written else "HTTP/2"
                return found[1].decode()

            def feed(data: bytes) -> None:
                # Garbage behind a request spoils it for aiohttp if both come in one piece, so the
                # two may differ; neither may fail.
                for pieces in ([data], _torn(data)):
                    status = runner.run(once(pieces))
                    assert not status.startswith("5") or status in ("503", "505"), status
                if not status.startswith("2"):
                    raise Refused(status)

            try:
                yield feed
            finally:
                runner.run(doors.stop())

    return opened


def _get(path: str, *headers: str, host: str = "ok") -> bytes:
    lines = (f"GET {path} HTTP/1.1", f"Host: {host}", *headers, "", "")
    return "\r\n".join(lines).encode()


def _http1_seeds() -> list[bytes]:
    paths = ("/health", "/metrics", "/livez?verbose", "/readyz?exclude=non_learner", "/version")
    start = b"POST /health HTTP/1.1\r\nHost: ok\r\n"
    chunked = start + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    return [
        *(_get(path) for path in paths),
        _get("/health?serializable=true&exclude=NOSPACE", "Connection: close"),
        _get("/readyz/linearizable_read", "Origin: http://evil"),
        _get("/health", host="elsewhere"),
        _get("/nothing"),
        b"OPTIONS /health HTTP/1.0\r\nHost: ok\r\n\r\n",
        chunked,
        _http2_seeds()[0],
    ]


_HTTP1_WORDS = (
    *(b"GET ", b"HEAD ", b"POST ", b"HTTP/1.1", b"HTTP/9.9", b"\r\n", b"\n", b"\r\n\r\n", b"\0"),
    *(b"Host: [::1]:2379\r\n", b"Host: \r\n", b"Content-Length: -1\r\n", b"Content-Length: 99\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n"),
    *(
        b"%00",
        b"%ff",
        b"?exclude=",
        b"&exclude=%ff",
        b"//",
        b"/../",
        b"*",
        b"x" * 9000,
        "é".encode(),
    ),
    b"ffffffffffffffff\r\n",
)


def _said(error: Exception) -> str:
    return str(error)


TARGETS = (
    Target(
        "http2 connection",
        _http2,
        (Refused,),
        _http2_seeds,
        _HTTP2_WORDS,
        label=_said,
        cost=20,
    ),
    Target(
        "http2 headers",
        _hpack,
        (Http2Error,),
        _hpack_seeds,
        (
            *(
                b"\x82",
                b"\xbe",
                b"\x20",
                b"\x3f\xe1\x1f",
                b"\x3f\xe1\xff\xff\x03",
                b"\x7f\xff\xff\x7f",
            ),
            *(
                b"\x40\x01a\x01b",
                b"\x10\x81\xff",
                b"\0\xff\x80\x80\x80\x80\x10",
                b"\x84\xff\xff\xff\xff",
            ),
        ),
    ),
    Target(
        "client port",
        _http1(_Doors.client_port),
        (Refused,),
        lambda: [*_http1_seeds(), *_http2_seeds()],
        (*_HTTP1_WORDS, *_HTTP2_WORDS[:8]),
        label=_said,
        cost=20,
    ),
    Target(
        "client port without HTTP/1",
        _http1(_Doors.client_port, with_http1=False),
        (Refused,),
        lambda: [*_http1_seeds()[:3], *_http2_seeds()[:2]],
        _HTTP1_WORDS,
        label=_said,
        cost=40,
        accepts=False,
    ),
    Target(
        "http endpoints",
        _http1(lambda doors: doors.http()),
        (Refused,),
        _http1_seeds,
        _HTTP1_WORDS,
        label=_said,
        cost=20,
    ),
)
