"""Each kind of probe against something real on loopback."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from aiohttp import web

from kvstore.checks.probes import Prober, Target, one_line, ttl_finding
from kvstore.checks.reach import Reach, network
from kvstore.checks.spec import (
    Check,
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    Probe,
    TcpProbe,
    TtlProbe,
)
from kvstore.checks.tally import Finding, Verdict
from kvstore.pb import health_pb2 as health

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def prober(*networks: str) -> AsyncIterator[Prober]:
    made = Prober(Reach(tuple(map(network, networks))) if networks else None)
    try:
        yield made
    finally:
        await made.close()


async def ask(
    probe: Probe, port: int = 1, *, timeout_s: float = 5.0, networks: tuple[str, ...] = ()
) -> Finding:
    async with prober(*networks) as asking:
        check = Check(probe, timeout_s=timeout_s)
        return await asking.probe(check, Target("127.0.0.1", port))


@asynccontextmanager
async def http(handler: Handler) -> AsyncIterator[int]:
    """A server that answers everything with `handler`; its port."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def closed_port() -> int:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


@pytest.mark.parametrize(
    ("status", "expected", "verdict"),
    [
        (200, (), Verdict.PASSING),
        (204, (), Verdict.PASSING),
        (429, (), Verdict.WARNING),
        (404, (), Verdict.CRITICAL),
        (503, (), Verdict.CRITICAL),
        (401, (200, 401), Verdict.PASSING),
        (200, (204,), Verdict.CRITICAL),
        (429, (200,), Verdict.CRITICAL),
    ],
)
def test_http_statuses(status: int, expected: tuple[int, ...], verdict: Verdict) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text="" if status == 204 else "fine\n")

    async def go() -> None:
        async with http(answer) as port:
            found = await ask(HttpProbe("/", expected=expected), port)
        assert found.verdict is verdict
        assert found.summary.startswith(f"HTTP {status}")
        assert found.output == ("" if status == 204 else "fine\n")

    asyncio.run(go())


def test_http_sends_what_it_was_told_and_nothing_of_its_own() -> None:
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(text="x")

    async def go() -> None:
        async with http(answer) as port:
            probe = HttpProbe(
                f"http://localhost:{port}/a%2Fb?c=d", "HEAD", {"X-Who": "me", "Host": "other"}
            )
            assert (await ask(probe)).verdict is Verdict.PASSING
            assert (await ask(HttpProbe(f"http://localhost:{port}/"))).verdict is Verdict.PASSING
            assert seen[0].method == "HEAD"
            assert seen[0].raw_path == "/a%2Fb?c=d"
            assert seen[0].headers["X-Who"] == "me"
            assert seen[0].headers["Host"] == "other"
            assert seen[1].headers["Host"] == f"localhost:{port}"

    asyncio.run(go())


def test_http_redirects_are_not_followed() -> None:
    paths: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=302, headers={"Location": "/secret"})

    async def go() -> None:
        async with http(answer) as port:
            found = await ask(HttpProbe("/"), port)
            moved = await ask(HttpProbe("/", expected=(302,)), port)
        assert found.verdict is Verdict.CRITICAL
        assert found.summary == "HTTP 302 Found"
        assert moved.verdict is Verdict.PASSING
        assert paths == ["/", "/"]

    asyncio.run(go())


def test_http_output_is_cut_and_an_endless_one_ends() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"y" * 1000)

    async def go() -> None:
        async with http(answer) as port:
            found = await ask(HttpProbe("/"), port)
        assert found.verdict is Verdict.PASSING
        assert len(found.output) == 4096

    asyncio.run(go())


def test_a_slow_answer_and_none_at_all() -> None:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def go() -> None:
        async with http(answer) as port:
            slow = await ask(HttpProbe("/"), port, timeout_s=0.1)
        gone = await ask(HttpProbe("/"), await closed_port())
        assert (slow.verdict, slow.summary) == (Verdict.CRITICAL, "no answer within 0.1 s")
        assert (gone.verdict, gone.summary) == (Verdict.CRITICAL, "connection refused")

    asyncio.run(go())


def test_what_does_not_speak_http_is_told() -> None:
    async def go() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        async with server:
            found = await ask(HttpProbe("/"), server.sockets[0].getsockname()[1])
        assert found.verdict is Verdict.CRITICAL
        assert "not answered as HTTP" in found.summary
        assert "\n" not in found.summary

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        await writer.drain()
        writer.close()

    asyncio.run(go())


def test_tcp() -> None:
    async def go() -> None:
        server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            assert (await ask(TcpProbe(), port)).verdict is Verdict.PASSING
            # A name with two addresses, of which the first need not answer.
            found = await ask(TcpProbe(f"localhost:{port}"))
            assert (found.verdict, found.summary) == (
                Verdict.PASSING,
                f"localhost:{port} accepts connections",
            )
        assert (await ask(TcpProbe(), port)).summary == "connection refused"

    asyncio.run(go())


def test_grpc_health() -> None:
    statuses = {"": 1, "a.Sick": 2}

    async def check(
        request: health.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> object:
        if request.service not in statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health.HealthCheckResponse(status=statuses[request.service])

    async def go() -> None:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.unary_unary_rpc_method_handler(
            check,
            request_deserializer=health.HealthCheckRequest.FromString,
            response_serializer=health.HealthCheckResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            well = await ask(GrpcProbe(), port)
            sick = await ask(GrpcProbe(f"localhost:{port}", "a.Sick"))
            none = await ask(GrpcProbe("", "a.None"), port)
        finally:
            await server.stop(None)
        gone = await ask(GrpcProbe(), port)
        assert (well.verdict, well.summary) == (Verdict.PASSING, "gRPC health: SERVING")
        assert (sick.verdict, sick.summary) == (Verdict.CRITICAL, "gRPC health: NOT_SERVING")
        assert (none.verdict, none.summary) == (
            Verdict.CRITICAL,
            "gRPC NOT_FOUND: unknown service",
        )
        assert gone.verdict is Verdict.CRITICAL
        assert "no gRPC server" in gone.summary

    asyncio.run(go())


@pytest.mark.parametrize(
    ("script", "verdict", "summary"),
    [
        ("echo fine", Verdict.PASSING, "exit code 0: fine"),
        ("echo low disk >&2; exit 1", Verdict.WARNING, "exit code 1: low disk"),
        ("exit 2", Verdict.CRITICAL, "exit code 2"),
        ("exit 255", Verdict.CRITICAL, "exit code 255"),
        ("kill -9 $$", Verdict.CRITICAL, "ended by signal 9"),
    ],
)
def test_commands_as_consul_reads_them(script: str, verdict: Verdict, summary: str) -> None:
    found = asyncio.run(ask(CommandProbe(("sh", "-c", script))))
    assert (found.verdict, found.summary) == (verdict, summary)


def test_a_command_that_does_not_exist() -> None:
    found = asyncio.run(ask(CommandProbe(("/nowhere/at/all",))))
    assert (found.verdict, found.summary) == (Verdict.CRITICAL, "no such file or directory")


def test_a_command_with_much_output() -> None:
    program = f"{sys.executable} -c \"print('z' * 1_000_000)\""
    found = asyncio.run(ask(CommandProbe(("sh", "-c", program))))
    assert found.verdict is Verdict.PASSING
    assert found.output == "z" * 4096


def alive(pid: int) -> bool:
    """Not gone, and not merely waiting to be taken note of."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


async def gone(*pids: int) -> None:
    async with asyncio.timeout(5):
        while any(map(alive, pids)):  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(0.01)


def test_a_command_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 100 & echo $$ $! > {pids}; trap '' TERM; wait; wait"

    async def go() -> None:
        found = await ask(CommandProbe(("sh", "-c", script)), timeout_s=0.5)
        assert found.summary == "no answer within 0.5 s"
        numbers = list(map(int, pids.read_text().split()))
        assert len(numbers) == 2
        await gone(*numbers)

    asyncio.run(go())


def test_a_command_is_over_when_it_ends_whatever_it_leaves_behind(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"sleep 100 & echo $! > {pid}; echo done"

    async def go() -> None:
        found = await ask(CommandProbe(("sh", "-c", script)))
        assert (found.verdict, found.output) == (Verdict.PASSING, "done\n")
        await gone(int(pid.read_text()))

    asyncio.run(go())


def test_ttl_files(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    probe = TtlProbe(str(file), 30.0)
    assert asyncio.run(ask(probe)).summary == f"{file} was never written"
    file.write_text("")
    assert asyncio.run(ask(probe)).verdict is Verdict.PASSING
    file.write_text("warning: queue is long\nmore")
    found = asyncio.run(ask(probe))
    assert (found.verdict, found.summary) == (Verdict.PASSING, "warning: queue is long more")
    file.write_text("WARNING queue is long\n")
    assert asyncio.run(ask(probe)).verdict is Verdict.WARNING
    os.utime(file, (1, 1))
    found = asyncio.run(ask(probe))
    assert found.verdict is Verdict.CRITICAL
    assert "30 s are allowed" in found.summary


def test_ttl_arithmetic() -> None:
    assert ttl_finding(30.0, 30.0, b"").verdict is Verdict.PASSING
    assert ttl_finding(30.1, 30.0, b"passing").verdict is Verdict.CRITICAL
    assert ttl_finding(1.0, 30.0, b"critical out of memory").verdict is Verdict.CRITICAL
    assert ttl_finding(1.0, 30.0, b"\xff\xfe").verdict is Verdict.PASSING


FORBIDDEN: list[Callable[[int], Probe]] = [
    lambda port: HttpProbe(f"http://127.0.0.1:{port}/"),
    lambda port: HttpProbe(f"http://127.1:{port}/"),
    lambda port: HttpProbe(f"http://[::ffff:127.0.0.1]:{port}/"),
    lambda port: HttpProbe(f"http://localhost:{port}/"),
    lambda _: HttpProbe("/"),
    lambda port: TcpProbe(f"127.0.0.1:{port}"),
    lambda port: TcpProbe(f"2130706433:{port}"),
    lambda _: TcpProbe(),
    lambda port: GrpcProbe(f"[::ffff:7f00:1]:{port}"),
    lambda _: GrpcProbe(),
]


@pytest.mark.parametrize("make", FORBIDDEN)
def test_nothing_is_sent_to_where_checks_may_not_go(make: Callable[[int], Probe]) -> None:
    connections: list[object] = []

    async def go() -> None:
        server = await asyncio.start_server(
            lambda _r, writer: connections.append(writer), "127.0.0.1", 0
        )
        async with server:
            port = server.sockets[0].getsockname()[1]
            found = await ask(make(port), port, networks=("10.0.0.0/8", "::/0"))
        assert found.verdict is Verdict.CRITICAL
        assert "lies outside of the networks" in found.summary or "means" in found.summary

    asyncio.run(go())
    assert not connections


def test_the_variables_for_web_proxies_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="direct")

    async def go() -> None:
        async with http(answer) as port:
            assert (await ask(HttpProbe("/"), port)).output == "direct"

    asyncio.run(go())


def test_one_line_is_one_line() -> None:
    assert one_line("a\n b\t\x00c") == "a b ?c"
    assert len(one_line("x" * 1000)) == 200
