"""Leases on a real cluster: on time, through every member, across leaders, a thousand at once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore import errors
from kvstore.pb import rpc_pb2
from tests.support.servers import Cluster, Server, make_cluster
from tests.support.traffic import leader_of, settled_hashes
from tests.unit.api.client import Bidi, Client, create

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

LATE_S = 1.5
"""A lease may outlive its TTL by this much (etcd: half a second and a commit)."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with make_cluster(tmp_path_factory.mktemp("leases"), size=3) as cluster:
        yield cluster


@pytest.fixture
def clients(cluster: Cluster) -> Iterator[list[Client]]:
    for server in cluster.servers:
        if not server.running:
            server.start()
    leader_of(cluster)
    channels = [
        grpc.insecure_channel(server.endpoint, options=[("grpc.use_local_subchannel_pool", 1)])
        for server in cluster.servers
    ]
    yield [Client(channel) for channel in channels]
    for channel in channels:
        channel.close()


def watching(client: Client, prefix: bytes) -> Bidi:
    stream = client.watch_stream()
    stream.send(create(prefix, prefix[:-1] + bytes((prefix[-1] + 1,))))
    assert stream.receive().created
    return stream


def keep_alive(stream: Bidi, lease_id: int, timeout: float = 10.0) -> int:
    stream.send(rpc_pb2.LeaseKeepAliveRequest(ID=lease_id))
    ttl: int = stream.receive(timeout).TTL
    return ttl


def test_expiry_is_on_time_for_watchers_of_every_member(clients: list[Client]) -> None:
    streams = [watching(client, b"exp/") for client in clients]
    began = time.monotonic()
    lease = clients[0].grant(2)
    assert lease.TTL == 2
    granted = time.monotonic()
    for number in range(3):
        clients[1].put(b"exp/%d" % number, b"x", lease=lease.ID)
    for stream in streams:
        seen = 0
        while seen < 3:
            seen += len(stream.receive().events)
    for stream in streams:
        (*events,) = stream.receive(8).events
        assert [(e.type, e.kv.key) for e in events] == [(1, b"exp/%d" % i) for i in range(3)]
        assert len({e.kv.mod_revision for e in events}) == 1
        now = time.monotonic()
        assert now - granted > 1.9 - (granted - began), "before its time"
        assert now - granted < 2 + LATE_S, "late"
    assert clients[2].range(b"exp/", b"exp0").count == 0
    assert clients[2].time_to_live(lease.ID).TTL == -1


def test_keep_alives_through_every_member(clients: list[Client]) -> None:
    lease = clients[0].grant(2).ID
    clients[0].put(b"keep", b"x", lease=lease)
    streams = [client.keep_alive_stream() for client in clients]
    began = time.monotonic()
    turn = 0
    while time.monotonic() - began < 5:
        assert keep_alive(streams[turn % 3], lease) == 2
        turn += 1
        time.sleep(0.4)
    assert clients[1].range(b"keep").count == 1
    for client in clients:
        times = client.time_to_live(lease, keys=True)
        assert (times.TTL in (1, 2), times.grantedTTL, list(times.keys)) == (True, 2, [b"keep"])
        assert lease in [status.ID for status in client.leases().leases]
    clients[2].revoke(lease)
    for client, stream in zip(clients, streams, strict=True):
        assert client.range(b"keep").count == 0
        assert keep_alive(stream, lease) == 0
        with pytest.raises(grpc.RpcError) as raised:
            client.revoke(lease)
        assert raised.value.details() == errors.LEASE_NOT_FOUND.message


def test_a_lease_outlives_its_leader(cluster: Cluster, clients: list[Client]) -> None:
    leader = leader_of(cluster)
    others = [c for c, s in zip(clients, cluster.servers, strict=True) if s is not leader]
    lease = others[0].grant(4).ID
    others[0].put(b"outlive", b"x", lease=lease)
    kept = others[1].grant(4).ID
    others[1].put(b"kept", b"x", lease=kept)
    stream = others[0].keep_alive_stream()
    assert keep_alive(stream, kept) == 4
    time.sleep(1)
    renewed = time.monotonic()
    leader.kill()
    gone_at = 0.0
    answered = 0
    until = renewed + 14
    while time.monotonic() < until and not gone_at:
        try:
            if keep_alive(stream, kept) == 4:
                answered += 1
        except grpc.RpcError:
            stream = others[0].keep_alive_stream()
        if serializable_count(others[1], b"outlive") == 0:
            gone_at = time.monotonic()
        time.sleep(0.2)
    assert gone_at, "the lease of the old leader never ended"
    # The new leader gives it its whole TTL again; it may not end before the old one's.
    assert gone_at - renewed > 3 - 0.1
    assert gone_at - renewed < 4 + 4 + LATE_S
    assert answered >= 5
    assert serializable_count(others[1], b"kept") == 1
    others[0].revoke(kept)


def serializable_count(client: Client, key: bytes) -> int:
    count: int = client.range(key, serializable=True).count
    return count


def test_a_thousand_leases_end_together(cluster: Cluster, clients: list[Client]) -> None:
    leader = leader_of(cluster)
    stream = watching(clients[1], b"many/")

    async def grant_all() -> float:
        async with grpc.aio.insecure_channel(leader.endpoint) as channel:
            grant = channel.unary_unary("/etcdserverpb.Lease/LeaseGrant")
            put = channel.unary_unary("/etcdserverpb.KV/Put")

            async def one(number: int) -> None:
                answer = rpc_pb2.LeaseGrantResponse.FromString(
                    await grant(rpc_pb2.LeaseGrantRequest(TTL=3).SerializeToString(), timeout=10)
                )
                key = b"many/%04d" % number
                request = rpc_pb2.PutRequest(key=key, lease=answer.ID)
                await put(request.SerializeToString(), timeout=10)

            await asyncio.gather(*(one(number) for number in range(1000)))
            return time.monotonic()

    began = time.monotonic()
    done = asyncio.run(grant_all())
    deleted: list[bytes] = []
    revisions = []
    put = 0
    while len(deleted) < 1000:
        for event in stream.receive(15).events:
            if event.type == 1:
                deleted.append(event.kv.key)
                revisions.append(event.kv.mod_revision)
            else:
                put += 1
    took = time.monotonic() - done
    print(f"granted in {done - began:.2f} s; all gone {took:.2f} s after the last grant")
    assert put == 1000
    assert len(set(deleted)) == 1000
    # One revision each, as separate revocations.
    assert revisions == sorted(set(revisions))
    assert took < 3 + LATE_S + 1.5
    assert clients[0].range(b"many/", b"many0").count == 0
    assert len(set(settled_hashes(cluster))) == 1


@pytest.mark.slow
def test_a_paused_leader_does_not_end_leases_early(cluster: Cluster, clients: list[Client]) -> None:
    """SIGSTOP for longer than the TTL, while another member keeps the lease alive."""
    leader = leader_of(cluster)
    others = [c for c, s in zip(clients, cluster.servers, strict=True) if s is not leader]
    lease = others[0].grant(3).ID
    others[0].put(b"paused", b"x", lease=lease)
    leader.signal(signal.SIGSTOP)
    try:
        stream: Any = None
        until = time.monotonic() + 5
        renewals = 0
        while time.monotonic() < until:
            stream = stream or others[0].keep_alive_stream()
            try:
                renewals += keep_alive(stream, lease, 3) == 3
            except Exception:
                stream = None
            time.sleep(0.3)
    finally:
        leader.signal(signal.SIGCONT)
    assert renewals > 3
    # The old leader wakes up with the lease's deadline long past; it must not act on it.
    for _ in range(8):
        assert keep_alive(stream, lease) == 3
        time.sleep(0.2)
    for client in clients:
        assert client.range(b"paused").count == 1
    others[0].revoke(lease)


@pytest.mark.slow
def test_leases_survive_a_restart_of_everything(tmp_path: Path) -> None:
    with make_cluster(tmp_path) as cluster:
        server: Server = cluster.servers[0]
        with grpc.insecure_channel(server.endpoint) as channel:
            client = Client(channel)
            lease = client.grant(3).ID
            client.put(b"k", b"v", lease=lease)
        server.kill()
        time.sleep(1)
        server.start()
        restarted = time.monotonic()
        with grpc.insecure_channel(server.endpoint) as channel:
            client = Client(channel)
            assert client.time_to_live(lease, keys=True).keys == [b"k"]
            while client.range(b"k").count:
                time.sleep(0.1)
                assert time.monotonic() - restarted < 3 + 1 + LATE_S
