"""The asyncio client against a real server: the same promises, kept by tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kvstore.client import (
    AsyncClient,
    ClientClosedError,
    ConnectError,
    ElectionError,
    KvError,
    LeaseNotFoundError,
    LockTimeoutError,
    Outcome,
    Put,
    Version,
    WatchCompacted,
)
from tests.process.client_cluster import Cluster, cluster_fixture
from tests.support.servers import free_ports

pytestmark = pytest.mark.process
cluster = cluster_fixture(1)

Body = Callable[[AsyncClient], Awaitable[None]]


def run(cluster: Cluster, body: Body) -> None:
    """Run `body` with a client of an empty store; nothing may be left of the client."""

    async def main() -> None:
        async with AsyncClient(cluster.endpoints) as client:
            await client.delete_prefix("")
            await body(client)
        left = [each for each in asyncio.all_tasks() if each.get_name().startswith("kvstore")]
        assert not left

    asyncio.run(asyncio.wait_for(main(), 60))


def test_keys_and_transactions(cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        assert await client.get("k") is None
        await client.put("k", "v")
        found = await client.get("k")
        assert found is not None
        assert found.value == b"v"
        txn = client.txn().when(Version("n") == 0).then(Put("n", "1"))
        assert (await txn.commit()).succeeded
        await asyncio.gather(*(client.put(f"p/{i}", "") for i in range(50)))
        assert len([kv async for kv in client.scan("p/", page=20)]) == 50
        assert (await client.delete_prefix("p/")).deleted == 50
        assert (await client.health()).healthy
        assert len((await client.member_list()).members) == 1

    run(cluster, body)


def test_errors(cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        with pytest.raises(LeaseNotFoundError) as caught:
            await client.put("k", "v", lease=77)
        assert caught.value.outcome is Outcome.NOT_APPLIED
        async with AsyncClient(f"127.0.0.1:{free_ports(1)[0]}") as nobody:
            with pytest.raises(ConnectError):
                await nobody.get("k", timeout=0.3)
            with pytest.raises(ConnectError):
                await nobody.watch("k", timeout=0.3)
        with pytest.raises(ClientClosedError):
            await nobody.get("k")

    run(cluster, body)


def test_closing_fails_calls_under_way(cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        other = AsyncClient(cluster.endpoints)
        await other.get("k")
        cluster.servers[0].freeze()
        try:
            pending = asyncio.create_task(other.put("k", "v"))
            await asyncio.sleep(0.1)
            await other.close()
            with pytest.raises(ClientClosedError) as caught:
                await pending
            assert caught.value.outcome is Outcome.UNKNOWN
        finally:
            cluster.servers[0].thaw()

    run(cluster, body)


def test_watch(cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        async with client.watch("w/", prefix=True) as watch:
            first = (await client.put("w/1", "a")).header.revision
            response = await watch.get(5)
            assert response is not None
            assert response.revision == first
            assert await watch.get(0.05) is None
            # A read that is canceled loses nothing.
            reading = asyncio.create_task(anext(watch))
            await asyncio.sleep(0.01)
            reading.cancel()
            await client.put("w/2", "b")
            assert (await anext(watch)).events[0].kv.value == b"b"
            await watch.cancel()
            assert [each async for each in watch] == []
        last = (await client.put("w/3", "c")).header.revision
        await client.compact(last)
        with pytest.raises(WatchCompacted) as caught:
            async for _ in client.watch("w/1", start_revision=first):
                pass
        assert caught.value.compact_revision == last

    run(cluster, body)


def test_watch_has_no_gap_and_no_repeat_when_the_server_is_killed(cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        server = cluster.servers[0]
        watch = await client.watch("n")
        stop = asyncio.Event()

        async def write() -> None:
            while not stop.is_set():
                try:
                    await client.put("n", "", timeout=2)
                except KvError:
                    continue

        writer = asyncio.create_task(write())
        await asyncio.sleep(0.3)
        server.kill()
        await asyncio.sleep(0.1)
        server.start()
        await client.get("n", timeout=15)
        await asyncio.sleep(0.3)
        stop.set()
        await writer
        found = await client.get("n")
        assert found is not None
        revisions: list[int] = []
        while not revisions or revisions[-1] < found.mod_revision:
            response = await watch.get(10)
            assert response is not None
            revisions += [each.kv.mod_revision for each in response.events]
        assert revisions == list(range(revisions[0], found.mod_revision + 1))
        await watch.cancel()

    run(cluster, body)


def test_a_slow_reader_loses_nothing(cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        async with client.watch("s") as watch:
            for i in range(200):
                await client.put("s", str(i))
            assert len(watch._ready) <= 64
            values: list[int] = []
            while len(values) < 200:
                response = await watch.get(5)
                assert response is not None
                values += [int(each.kv.value) for each in response.events]
            assert values == list(range(200))

    run(cluster, body)


def test_leases(cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        async with client.lease(1) as lease:
            await client.put("k", "", lease=lease.id)
            await asyncio.sleep(1.5)
            assert await client.get("k") is not None
            assert not lease.lost
            assert await lease.refresh() == lease.ttl_s
        assert await client.get("k") is None
        lost = await client.lease(1)
        called = asyncio.Event()
        lost.on_lost(called.set)
        await client.lease_revoke(lost.id)
        assert await lost.wait_lost(2)
        assert called.is_set()
        with pytest.raises(LeaseNotFoundError):
            await client.keep_alive(lost.id)

    run(cluster, body)


def test_lock(cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        inside = 0
        tokens: list[int] = []

        async def work() -> None:
            nonlocal inside
            async with client.lock("l", ttl=5) as lock:
                inside += 1
                assert inside == 1
                tokens.append(lock.token)
                await asyncio.sleep(0.01)
                inside -= 1

        await asyncio.gather(*(work() for _ in range(10)))
        assert tokens == sorted(set(tokens))
        async with client.lock("l", ttl=5) as lock:
            with pytest.raises(LockTimeoutError):
                await client.lock("l", ttl=5).acquire(0.1)
            # Who stops waiting leaves the queue.
            now = (await client.get_prefix("l/")).header.revision
            waiting = asyncio.create_task(client.lock("l", ttl=5).acquire())
            async with client.watch("l/", prefix=True, start_revision=now + 1) as queue:
                await anext(queue)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert (await client.get_prefix("l/")).count == 1
            assert lock.held

    run(cluster, body)


def test_election(cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        election = client.election("e")
        with pytest.raises(ElectionError):
            await election.leader()
        seen: list[bytes] = []
        started = asyncio.Event()

        async def observe() -> None:
            async for kv in election.observe():
                seen.append(kv.value)
                started.set()
                if kv.value == b"end":
                    return

        observer = asyncio.create_task(observe())
        async with await election.campaign("a", ttl=5) as leadership:
            assert (await election.leader()).create_revision == leadership.token
            await started.wait()
            await leadership.proclaim("end")
            await observer
        assert seen == [b"a", b"end"]

    run(cluster, body)


def test_snapshot(cluster: Cluster, tmp_path: Path) -> None:
    async def body(client: AsyncClient) -> None:
        info = await client.snapshot(tmp_path / "snap.db")
        assert (tmp_path / "snap.db").stat().st_size == info.size_bytes

    run(cluster, body)


def test_no_thread_is_started_by_the_client(cluster: Cluster) -> None:
    async def body(client: AsyncClient) -> None:
        await client.get("k")
        ours = [each for each in threading.enumerate() if each.name.startswith("kvstore")]
        assert not ours

    run(cluster, body)
