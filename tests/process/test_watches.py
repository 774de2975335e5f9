"""Watches on a real cluster: many, slow, resumed, across leaders and snapshots; never a gap."""

from __future__ import annotations

import asyncio
import queue
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.pb import rpc_pb2
from tests.support.attacks import TRANSPORTS, Bystander, rss_mib, transport_flags
from tests.support.rpc import Rpc
from tests.support.servers import Cluster, Server, make_cluster
from tests.support.traffic import leader_of
from tests.unit.api.client import Bidi, Client, create

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

WATCH = "/etcdserverpb.Watch/Watch"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("watches")
    flags = ("--snapshot-count=200", "--snapshot-catchup-entries=200")
    with make_cluster(directory, size=3, extra=flags) as cluster:
        yield cluster


@pytest.fixture
def leader(cluster: Cluster) -> Server:
    for server in cluster.servers:
        if not server.running:
            server.start()
    return leader_of(cluster)


def channel(server: Server) -> grpc.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return grpc.insecure_channel(server.endpoint, options=options)


def followers(cluster: Cluster, leader: Server) -> list[Server]:
    return [server for server in cluster.servers if server is not leader]


class Follower:
    """Watches a prefix and follows it from member to member; keeps what it saw, in order."""

    def __init__(self, servers: list[Server], prefix: bytes) -> None:
        self.seen: list[tuple[int, bytes, bytes]] = []
        self.resumed = 0
        self._servers = servers
        self._range = (prefix, prefix[:-1] + bytes((prefix[-1] + 1,)))
        self._stopping = threading.Event()
        self._next = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        turn = 0
        while not self._stopping.is_set():
            server = self._servers[turn % len(self._servers)]
            turn += 1
            with channel(server) as connection:
                stream = Client(connection).watch_stream()
                stream.send(create(*self._range, start_revision=self._next))
                try:
                    self._take(stream)
                except grpc.RpcError:
                    self.resumed += 1
                    time.sleep(0.05)
                stream.cancel()

    def _take(self, stream: Bidi) -> None:
        while not self._stopping.is_set():
            try:
                response = stream.receive(0.2)
            except queue.Empty:
                continue
            assert not response.canceled, response
            if response.created and not self._next:
                self._next = response.header.revision + 1
            for event in response.events:
                self.seen.append((event.kv.mod_revision, event.kv.key, event.kv.value))
                self._next = event.kv.mod_revision + 1

    def __enter__(self) -> Follower:
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._next and time.monotonic() < deadline:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def wait(self, count: int, timeout_s: float = 15.0) -> None:
        deadline = time.monotonic() + timeout_s
        while len(self.seen) < count and time.monotonic() < deadline:
            time.sleep(0.02)


def history(rpc: Rpc, prefix: str, first: int, last: int) -> list[tuple[int, bytes, bytes]]:
    """What a watch must have shown of `prefix`, asked revision by revision in one replay."""
    stream = Client(rpc.channel).watch_stream()
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    stream.send(create(prefix.encode(), end.encode(), start_revision=first))
    found: list[tuple[int, bytes, bytes]] = []
    while not found or found[-1][0] < last:
        found += [
            (event.kv.mod_revision, event.kv.key, event.kv.value)
            for event in stream.receive(10).events
        ]
    stream.cancel()
    return found


def test_two_hundred_watchers_on_one_stream(cluster: Cluster, leader: Server) -> None:
    for server in cluster.servers:
        with channel(server) as connection, Rpc(leader.endpoint) as rpc:
            client = Client(connection)
            stream = client.watch_stream()
            for number in range(200):
                # Half of them the same prefix, half one key each.
                stream.send(
                    create(b"many/", b"many0") if number % 2 else create(b"many/%d" % number)
                )
            ids = {stream.receive().watch_id for _ in range(200)}
            assert ids == set(range(200))
            revision = rpc.put("many/42", "x").header.revision
            got = [stream.receive() for _ in range(101)]
            assert {r.watch_id for r in got} == {42, *range(1, 200, 2)}
            assert {r.events[0].kv.mod_revision for r in got} == {revision}
            assert stream.silent(0.1)
            stream.cancel()


def test_fifty_streams_each_see_everything(cluster: Cluster, leader: Server) -> None:
    async def watch(server: Server, ready: asyncio.Semaphore) -> list[int]:
        async with grpc.aio.insecure_channel(server.endpoint) as connection:
            call = connection.stream_stream(WATCH)()
            await call.write(create(b"fifty/", b"fifty0").SerializeToString())
            rpc_pb2.WatchResponse.FromString(await call.read())
            ready.release()
            seen: list[int] = []
            while len(seen) < 200:
                response = rpc_pb2.WatchResponse.FromString(await call.read())
                seen += [event.kv.mod_revision for event in response.events]
            call.cancel()
            return seen

    async def put_all() -> list[int]:
        async with grpc.aio.insecure_channel(leader.endpoint) as connection:
            put = connection.unary_unary("/etcdserverpb.KV/Put")

            async def one(number: int) -> int:
                request = rpc_pb2.PutRequest(key=b"fifty/%d" % number)
                answer = await put(request.SerializeToString(), timeout=10)
                revision: int = rpc_pb2.PutResponse.FromString(answer).header.revision
                return revision

            return sorted(await asyncio.gather(*(one(number) for number in range(200))))

    async def play() -> None:
        ready = asyncio.Semaphore(0)
        tasks = [
            asyncio.create_task(watch(cluster.servers[number % 3], ready)) for number in range(50)
        ]
        for _ in tasks:
            await ready.acquire()
        revisions = await put_all()
        for seen in await asyncio.wait_for(asyncio.gather(*tasks), 20):
            assert seen == revisions

    asyncio.run(play())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_slow_reader_delays_nobody_and_loses_nothing(tmp_path: Path, transport: str) -> None:
    with make_cluster(tmp_path, extra=transport_flags(transport)) as cluster:
        server = cluster.servers[0]
        value = bytes(50_000)
        with channel(server) as slow, channel(server) as quick, Rpc(server.endpoint) as rpc:
            held = threading.Event()
            sleeper = slow.stream_stream(WATCH)(requests(create(b"s/", b"s0"), held))
            assert rpc_pb2.WatchResponse.FromString(next(sleeper)).created
            stream = Client(quick).watch_stream()
            stream.send(create(b"s/", b"s0"))
            assert stream.receive().created
            before = rss_mib(server)
            delays = []
            for number in range(1200):  # 60 MB
                began = time.monotonic()
                revision = rpc.put(f"s/{number}", value).header.revision
                response = stream.receive()
                delays.append(time.monotonic() - began)
                assert response.events[0].kv.mod_revision == revision
            delays.sort()
            grown = rss_mib(server) - before
            print(f"{transport}: p99 {delays[-12] * 1000:.0f} ms, memory {grown:+.0f} MiB")
            assert delays[-12] < 0.3
            # 60 MB of events; the slow one's 128 responses and what the sockets hold stay behind.
            assert grown < 150
            keys = []
            while len(keys) < 1200:
                response = rpc_pb2.WatchResponse.FromString(next(sleeper))
                keys += [event.kv.key for event in response.events]
            assert keys == [b"s/%d" % number for number in range(1200)]
            held.set()


def requests(first: Any, until: threading.Event) -> Iterator[bytes]:
    yield first.SerializeToString()
    until.wait(60)


@pytest.mark.slow
def test_watching_goes_on_when_members_die(cluster: Cluster, leader: Server) -> None:
    """The watcher's own member is killed, then the leader: no gap, nothing twice."""
    first, second = followers(cluster, leader)
    with Follower([first, second, leader], b"die/") as watcher, Rpc(second.endpoint) as rpc:
        revisions = []
        for number in range(300):
            if number == 100:
                first.kill()
            if number == 200:
                first.start()
                leader_of(cluster).kill()
            for _ in range(100):
                try:
                    revisions.append(rpc.put(f"die/{number % 10}", str(number)).header.revision)
                    break
                except grpc.RpcError:
                    time.sleep(0.1)
        deadline = time.monotonic() + 15
        while (not watcher.seen or watcher.seen[-1][0] < revisions[-1]) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.05)
        expected = history(rpc, "die/", revisions[0], revisions[-1])
    assert watcher.resumed >= 1
    assert watcher.seen == expected
    assert {each[0] for each in expected} >= set(revisions)


def test_a_followers_stream_lives_through_a_leader_change(cluster: Cluster, leader: Server) -> None:
    follower, other = followers(cluster, leader)
    with channel(follower) as connection, Rpc(other.endpoint, timeout_s=2) as rpc:
        stream = Client(connection).watch_stream()
        stream.send(create(b"live/", b"live0"))
        start = stream.receive().header.revision
        revisions = []
        for number in range(60):
            if number == 20:
                leader.kill()
            for _ in range(100):
                try:
                    revisions.append(rpc.put(f"live/{number}", "x").header.revision)
                    break
                except grpc.RpcError:
                    time.sleep(0.1)
        seen: list[int] = []
        while not seen or seen[-1] < revisions[-1]:
            seen += [event.kv.mod_revision for event in stream.receive(10).events]
        assert seen == [each[0] for each in history(rpc, "live/", start + 1, revisions[-1])]
        stream.cancel()


def test_a_stream_lives_through_its_members_snapshot(cluster: Cluster, leader: Server) -> None:
    """The member sleeps, the log it needs is dropped, it gets a snapshot: its watchers get all."""
    follower = followers(cluster, leader)[0]
    installed = follower.log().count("installed the snapshot")
    with channel(follower) as connection, Rpc(leader.endpoint) as rpc:
        stream = Client(connection).watch_stream()
        stream.send(create(b"snap/", b"snap0"))
        stream.send(create(b"snap/1", b"", prev_kv=True))
        for _ in range(2):
            assert stream.receive().created
        rpc.put("snap/1", "before")
        assert {stream.receive().watch_id for _ in range(2)} == {0, 1}
        follower.signal(signal.SIGSTOP)
        try:
            asyncio.run(put_many(leader, 3000))
        finally:
            follower.signal(signal.SIGCONT)
        last = rpc.put("snap/1", "after").header.revision
        seen: dict[int, list[tuple[int, bytes]]] = {0: [], 1: []}
        while any(not each or each[-1][0] < last for each in seen.values()):
            response = stream.receive(20)
            assert not response.canceled
            for event in response.events:
                seen[response.watch_id].append((event.kv.mod_revision, event.kv.key))
        expected = history(rpc, "snap/", seen[0][0][0], last)
        assert seen[0] == [each[:2] for each in expected]
        assert len(seen[0]) == 3001
        assert [key for _, key in seen[1]] == [b"snap/1"] * len(seen[1])
        stream.cancel()
    assert follower.log().count("installed the snapshot") > installed, "the log was enough"


async def put_many(server: Server, count: int) -> None:
    async with grpc.aio.insecure_channel(server.endpoint) as connection:
        put = connection.unary_unary("/etcdserverpb.KV/Put")
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                request = rpc_pb2.PutRequest(key=b"snap/%d" % (number % 100), value=bytes(20_000))
                await put(request.SerializeToString(), timeout=15)

        await asyncio.gather(*(worker() for _ in range(64)))


def test_progress_and_compaction_on_every_member(cluster: Cluster, leader: Server) -> None:
    with Rpc(leader.endpoint) as rpc:
        old = rpc.put("comp/1", "1").header.revision
        rpc.put("comp/1", "2")
        now = rpc.put("comp/1", "3").header.revision
        rpc.call("KV", "Compact", rpc_pb2.CompactionRequest(revision=now))
    for server in cluster.servers:
        with channel(server) as connection:
            client = Client(connection)
            client.range(b"comp/1")  # linearizable: this member has the compaction
            stream = client.watch_stream()
            stream.send(create(b"comp/", b"comp0", start_revision=old))
            assert stream.receive().created
            gone = stream.receive()
            assert (gone.canceled, gone.compact_revision, gone.header.revision) == (True, now, 0)
            stream.send(create(b"comp/", b"comp0", start_revision=now))
            assert stream.receive().created
            assert stream.receive().events[0].kv.value == b"3"
            stream.send(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))
            progress = stream.receive()
            assert (progress.watch_id, len(progress.events)) == (-1, 0)
            assert progress.header.revision >= now
            stream.cancel()


def test_periodic_progress(tmp_path: Path) -> None:
    flags = ("--watch-progress-notify-interval=300ms",)
    with make_cluster(tmp_path, extra=flags) as cluster, channel(cluster.servers[0]) as connection:
        client = Client(connection)
        stream = client.watch_stream()
        stream.send(create(b"quiet", progress_notify=True))
        assert stream.receive().created
        revision = client.put(b"other").header.revision
        deadline = time.monotonic() + 5
        while stream.receive().header.revision < revision and time.monotonic() < deadline:
            pass
        assert stream.receive().header.revision == revision


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_five_hundred_connections_with_a_watch_each(tmp_path: Path, transport: str) -> None:
    """And one that never reads; memory stays bounded, and is given back."""
    with make_cluster(tmp_path, extra=transport_flags(transport)) as cluster:
        server = cluster.servers[0]
        with Rpc(server.endpoint) as rpc:
            rpc.put("c/0", "x")
        before = rss_mib(server)
        held = threading.Event()

        async def connect() -> tuple[float, float]:
            channels = [
                grpc.aio.insecure_channel(
                    server.endpoint, options=[("grpc.use_local_subchannel_pool", 1)]
                )
                for _ in range(500)
            ]
            calls = [each.stream_stream(WATCH)() for each in channels]
            for call in calls:
                await call.write(create(b"c/", b"c0").SerializeToString())
            for call in calls:
                await asyncio.wait_for(call.read(), 20)
            idle = rss_mib(server)
            async with grpc.aio.insecure_channel(server.endpoint) as connection:
                put = connection.unary_unary("/etcdserverpb.KV/Put")
                for number in range(10):
                    request = rpc_pb2.PutRequest(key=b"c/%d" % number, value=bytes(10_000))
                    await put(request.SerializeToString(), timeout=20)
            for call in calls:
                seen = 0
                while seen < 10:
                    data = await asyncio.wait_for(call.read(), 20)
                    seen += len(rpc_pb2.WatchResponse.FromString(data).events)
            busy = rss_mib(server)
            for each in channels:
                await each.close()
            return idle, busy

        with channel(server) as stalled:
            sleeper = stalled.stream_stream(WATCH)(requests(create(b"", b"\0"), held))
            next(sleeper)
            idle, busy = asyncio.run(connect())
            with Bystander(server.endpoint) as bystander:
                time.sleep(0.5)
            held.set()
        assert not bystander.failures
        print(f"{transport}: {idle - before:+.0f} MiB idle, {busy - before:+.0f} MiB after events")
        assert idle - before < 150
        assert busy - before < 300
