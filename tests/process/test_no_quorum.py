"""Without a quorum: what must fail fails in time, what can be served is, and all is well after."""

from __future__ import annotations

import concurrent.futures
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore import errors
from kvstore.pb import rpc_pb2
from tests.support.rpc import Rpc
from tests.support.servers import Server, make_cluster
from tests.support.traffic import leader_of, settled_hashes
from tests.unit.api.client import Client, create

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(120)]

IN_TIME_S = 8.5
FAMILY = {
    errors.TIMEOUT.message,
    errors.TIMEOUT_LEADER_FAILURE.message,
    errors.TIMEOUT_CONNECTION_LOST.message,
    errors.NO_LEADER.message,
    errors.LEADER_CHANGED.message,
}


def failing(server: Server, call: Callable[[Client], Any]) -> tuple[str, float]:
    """The message that a call fails with, and after how long."""
    with grpc.insecure_channel(server.endpoint) as channel:
        began = time.monotonic()
        try:
            call(Client(channel))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error
            return error.details() or "", time.monotonic() - began
    raise AssertionError("it succeeded without a quorum")


CALLS: dict[str, Callable[[Client], Any]] = {
    "get": lambda client: client.range(b"k"),
    "put": lambda client: client.put(b"k", b"lost"),
    "delete": lambda client: client.delete(b"none"),
    "txn": lambda client: client.txn(success=[]) and client.txn(success=[_put()]),
    "grant": lambda client: client.grant(10),
    "ttl": lambda client: client.time_to_live(5),
    "members": lambda client: client.cluster("MemberList", linearizable=True),
    "member add": lambda client: client.cluster("MemberAdd", peerURLs=["http://127.0.0.1:9"]),
}


def _put() -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"k"))


@pytest.mark.parametrize("stop", ["killed", "stopped"])
def test_one_of_three_is_left(tmp_path: Path, stop: str) -> None:
    with make_cluster(tmp_path, size=3) as cluster:
        leader = leader_of(cluster)
        # The leader stays in one case, a follower in the other.
        left = leader if stop == "stopped" else next(s for s in cluster.servers if s is not leader)
        gone = [server for server in cluster.servers if server is not left]
        with Rpc(left.endpoint) as rpc, grpc.insecure_channel(left.endpoint) as channel:
            rpc.put("k", "v")
            watch = Client(channel).watch_stream()
            watch.send(create(b"k"))
            assert watch.receive().created
            for server in gone:
                if stop == "killed":
                    server.kill()
                else:
                    server.signal(signal.SIGSTOP)
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                outcomes = {name: pool.submit(failing, left, call) for name, call in CALLS.items()}
                # Meanwhile the local state is served, and the member says what is wrong.
                for _ in range(5):
                    assert rpc.range("k", serializable=True).kvs[0].value == b"v"
                    time.sleep(0.2)
            for name, outcome in outcomes.items():
                message, took = outcome.result()
                assert message in FAMILY | {errors.UNHEALTHY.message}, (name, message)
                assert took < IN_TIME_S, (name, message, took)
            assert rpc.range("k", serializable=True).kvs[0].value == b"v"
            assert rpc.status().leader == 0
            assert errors.NO_LEADER.message in rpc.status().errors
            assert not left.healthy()
            with pytest.raises(grpc.RpcError) as raised:
                rpc.channel.unary_unary("/etcdserverpb.KV/Put")(
                    rpc_pb2.PutRequest(key=b"k").SerializeToString(),
                    metadata=[("hasleader", "true")],
                    timeout=5,
                )
            assert raised.value.details() == errors.NO_LEADER.message
            for server in gone:
                if stop == "killed":
                    server.start(wait=False)
                else:
                    server.signal(signal.SIGCONT)
            began = time.monotonic()
            while True:
                try:
                    revision = rpc.put("k", "back").header.revision
                    break
                except grpc.RpcError:
                    assert time.monotonic() - began < 10
            assert rpc.get("k") == b"back"
            seen = 0
            while seen < revision:
                response = watch.receive(10)
                seen = response.events[-1].kv.mod_revision
            for server in cluster.servers:
                server.wait_ready()
            assert len(set(settled_hashes(cluster))) == 1
