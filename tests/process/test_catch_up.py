"""Members that come back late, come new, or leave: by snapshot, as learner, under load."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import grpc
import pytest

from kvstore.pb import rpc_pb2
from tests.support.rpc import Rpc
from tests.support.servers import Cluster, Server, free_ports, make_cluster
from tests.support.traffic import Writers, leader_of, settled_hashes

MISSED = int(os.environ.get("KVSTORE_MISSED_WRITES", "15000"))

pytestmark = [pytest.mark.process, pytest.mark.timeout(120 + MISSED // 500)]


async def put_many(endpoint: str, count: int, *, in_flight: int = 128) -> None:
    """`count` puts of distinct keys, `in_flight` at a time."""
    async with grpc.aio.insecure_channel(endpoint) as channel:
        put = channel.unary_unary("/etcdserverpb.KV/Put")
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                request = rpc_pb2.PutRequest(key=b"missed/%07d" % number, value=b"v" * 64)
                await put(request.SerializeToString(), timeout=10)

        await asyncio.gather(*(worker() for _ in range(in_flight)))


def test_member_that_missed_many_writes_catches_up(tmp_path: Path) -> None:
    with make_cluster(tmp_path, size=3) as cluster:
        leader = leader_of(cluster)
        late = next(server for server in cluster.servers if server is not leader)
        late.kill()
        asyncio.run(put_many(leader.endpoint, MISSED))
        late.start(wait=False)
        began = time.monotonic()
        late.wait_ready(60)
        hashes = settled_hashes(cluster)
        assert len(set(hashes)) == 1, hashes
        with Rpc(late.endpoint) as rpc:
            answer = rpc.range("missed/", "missed0", count_only=True, serializable=True)
        assert answer.count == MISSED
        print(f"\ncaught up with {MISSED} missed writes in {time.monotonic() - began:.1f} s")


def member_call(server: Server, method: str, **fields: object) -> object:
    """A membership change, asked again while the cluster says that it is not ready for it."""
    request = getattr(rpc_pb2, f"{method}Request")(**fields)
    for _ in range(100):
        with Rpc(server.endpoint, timeout_s=10) as rpc:
            try:
                return rpc.call("Cluster", method, request)
            except grpc.RpcError as error:
                text = error.details() or ""
                if "unhealthy cluster" not in text and "in sync with leader" not in text:
                    raise
        time.sleep(0.2)
    raise AssertionError(f"{method} was refused for 20 s")


def test_a_learner_joins_is_promoted_and_an_old_member_leaves_under_load(tmp_path: Path) -> None:
    with make_cluster(tmp_path, size=3) as cluster, Writers(cluster, count=2) as writers:
        leader = leader_of(cluster)
        client, peer, http = free_ports(3)
        url = f"http://127.0.0.1:{peer}"
        added = member_call(leader, "MemberAdd", peerURLs=[url], isLearner=True)
        assert added.member.isLearner  # type: ignore[attr-defined]
        fourth = Server(
            argv=cluster.servers[0].argv,
            name="n4",
            directory=tmp_path,
            client_port=client,
            peer_port=peer,
            http_port=http,
            cluster=f"{cluster.servers[0].cluster},n4={url}",
            state="existing",
        )
        cluster.servers.append(fourth)
        fourth.start(wait=False)
        member_call(leader, "MemberPromote", ID=added.member.ID)  # type: ignore[attr-defined]
        fourth.wait_ready()
        leaving = next(s for s in cluster.servers[:3] if s is not leader)
        with Rpc(leaving.endpoint) as rpc:
            leaving_id = rpc.status().header.member_id
        member_call(leader, "MemberRemove", ID=leaving_id)
        leaving.wait(15)
        assert "removed" in leaving.log()[-6000:]
        cluster.servers.remove(leaving)
        before = len(writers.acked)
        writers.wait_success_after(time.monotonic())
        time.sleep(1)
        assert len(writers.acked) > before
    assert_nothing_lost(cluster, writers)


def assert_nothing_lost(cluster: Cluster, writers: Writers) -> None:
    for server in cluster.servers:
        if not server.running:
            server.start(wait=False)
    for server in cluster.servers:
        server.wait_ready()
    try:
        hashes = settled_hashes(cluster)
        assert len(set(hashes)) == 1, hashes
        for server in cluster.servers:
            with Rpc(server.endpoint, timeout_s=20) as rpc:
                found = {kv.key.decode(): kv.value.decode() for kv in rpc.range("w", "x").kvs}
            lost = {k for k, v in writers.acked.items() if found.get(k) != v}
            assert not lost, f"{len(lost)} of {len(writers.acked)} are gone on {server.name}"
    finally:
        cluster.close()
