"""Clients that leave in the middle of things, and floods: on every transport, by real sockets."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest

from kvstore.pb import rpc_pb2
from tests.support.attacks import TRANSPORTS, Bystander, open_files, rss_mib, transport_flags
from tests.support.rpc import Rpc
from tests.support.servers import Server, make_cluster
from tests.unit.api.client import create

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
PUT = "/etcdserverpb.KV/Put"
WATCH = "/etcdserverpb.Watch/Watch"
SNAPSHOT = "/etcdserverpb.Maintenance/Snapshot"


@pytest.fixture(scope="module", params=TRANSPORTS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with 30 MB in it."""
    flags = transport_flags(request.param)
    with make_cluster(tmp_path_factory.mktemp("transports"), extra=flags) as cluster:
        with Rpc(cluster.servers[0].endpoint) as rpc:
            for number in range(30):
                rpc.put(f"big/{number:02}", bytes(1_000_000))
        yield cluster.servers[0]
        log = cluster.servers[0].log()
        assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]


def channel(server: Server) -> grpc.Channel:
    return grpc.insecure_channel(server.endpoint, options=OPTIONS)


def files_settle(server: Server, most: int) -> int:
    for _ in range(60):
        if open_files(server) <= most:
            break
        time.sleep(0.1)
    return open_files(server)


def one_watch(until: threading.Event) -> Iterator[bytes]:
    yield create(b"big/", b"big0", start_revision=2).SerializeToString()
    until.wait(30)


def test_stalled_and_abandoned_streams(server: Server) -> None:
    """Snapshots and replays that stop being read, and whose clients then go without a word."""
    files = open_files(server)
    leaving = threading.Event()
    channels = [channel(server) for _ in range(12)]
    with Bystander(server.endpoint) as bystander:
        for number, each in enumerate(channels):
            if number % 2:
                next(each.unary_stream(SNAPSHOT)(b""))
            else:
                next(each.stream_stream(WATCH)(one_watch(leaving)))
        time.sleep(1)
        for each in channels:
            each.close()
        leaving.set()
        time.sleep(0.3)
    assert not bystander.failures
    assert bystander.p99_s() < 0.5
    assert files_settle(server, files + 4) <= files + 4, "what abandoned streams held is still open"


def test_cancelled_calls_leave_nothing(server: Server) -> None:
    request = rpc_pb2.PutRequest(key=b"c", value=bytes(1000)).SerializeToString()

    async def play(rounds: int) -> None:
        async with grpc.aio.insecure_channel(server.endpoint, options=OPTIONS) as connection:
            put = connection.unary_unary(PUT)
            for _ in range(rounds):
                calls = [put(request) for _ in range(300)]
                await asyncio.sleep(0.002)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(play(3))
    before = rss_mib(server)
    asyncio.run(play(12))
    with Rpc(server.endpoint) as rpc:
        rpc.put("c", "after")
    assert rss_mib(server) < before + 60


def test_a_flood_of_large_writes_is_refused_beyond_the_bounds(server: Server) -> None:
    """280 MB of puts at once: some succeed, others are told; memory stays within bounds."""
    request = rpc_pb2.PutRequest(key=b"flood", value=bytes(1_400_000)).SerializeToString()
    outcomes: Counter[str] = Counter()

    async def play() -> None:
        async with grpc.aio.insecure_channel(server.endpoint, options=OPTIONS) as connection:
            put = connection.unary_unary(PUT)

            async def one() -> None:
                try:
                    await put(request, timeout=30)
                    outcomes["ok"] += 1
                except grpc.RpcError as error:
                    outcomes[error.details() or ""] += 1

            await asyncio.gather(*(one() for _ in range(200)))

    asyncio.run(play())
    print(outcomes, f"{rss_mib(server):.0f} MiB")
    assert outcomes["ok"] > 10
    assert set(outcomes) <= {"ok", "etcdserver: too many requests"}
    with Rpc(server.endpoint) as rpc:
        rpc.put("after", "the flood")
    assert rss_mib(server) < 1500


def test_watches_created_by_the_thousand_and_never_read(server: Server) -> None:
    one = create(b"x", b"y").SerializeToString()

    def many() -> Iterator[bytes]:
        for _ in range(30_000):
            yield one
        time.sleep(3)

    before = rss_mib(server)
    with Bystander(server.endpoint) as bystander, channel(server) as connection:
        call = connection.stream_stream(WATCH)(many())
        time.sleep(2)
        grown = rss_mib(server) - before
        call.cancel()
    assert not bystander.failures
    assert bystander.p99_s() < 0.5
    assert grown < 150
