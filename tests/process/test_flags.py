"""Flags that change what a server does: each is given to a real process and seen to work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore import errors
from kvstore.pb import rpc_pb2
from tests.support.rpc import Rpc
from tests.support.servers import make_cluster

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

MiB = 1024**2


@contextmanager
def server(directory: Path, *flags: str) -> Iterator[Rpc]:
    with make_cluster(directory, extra=flags) as cluster, Rpc(cluster.endpoints) as rpc:
        yield rpc


def refused(call: Callable[[], object], error: errors.EtcdError) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.details() == error.message


def until(condition: Callable[[], Any], patience_s: float = 10.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def txn(rpc: Rpc, operations: int) -> Any:
    request = rpc_pb2.TxnRequest()
    for number in range(operations):
        request.success.add().request_put.key = b"t%d" % number
    return rpc.call("KV", "Txn", request)


def compacted(rpc: Rpc, revision: int) -> bool:
    try:
        rpc.range("k", revision=revision)
    except grpc.RpcError:
        refused(lambda: rpc.range("k", revision=revision), errors.COMPACTED)
        return True
    return False


def test_limits_of_requests(tmp_path: Path) -> None:
    with server(tmp_path, "--max-request-bytes=2000", "--max-txn-ops=200") as rpc:
        rpc.put("k", "v" * 1900)
        refused(lambda: rpc.put("k", "v" * 2100), errors.REQUEST_TOO_LARGE)
        assert txn(rpc, 129).succeeded
        refused(lambda: txn(rpc, 201), errors.TOO_MANY_OPS)


def test_a_large_request_reaches_every_member(tmp_path: Path) -> None:
    value = b"v" * (12 * MiB)
    with make_cluster(tmp_path, size=3, extra=["--max-request-bytes=16777216"]) as cluster:
        with Rpc(cluster.servers[0].endpoint, timeout_s=20) as rpc:
            rpc.put("large", value)
        for member in cluster.servers:
            with Rpc(member.endpoint, timeout_s=20) as rpc:
                assert rpc.get("large") == value


@pytest.mark.parametrize(("given", "shown"), [(0, 2048 * MiB), (-1, -1), (2 * MiB, 2 * MiB)])
def test_quota(tmp_path: Path, given: int, shown: int) -> None:
    with server(tmp_path, f"--quota-backend-bytes={given}") as rpc:
        assert rpc.status().dbSizeQuota == shown

        def fill() -> None:
            for number in range(5):
                rpc.put(f"k{number}", bytes(MiB // 2))

        if given > 0:
            refused(fill, errors.NO_SPACE)
        else:
            fill()


def test_history_older_than_the_retention_goes(tmp_path: Path) -> None:
    with server(tmp_path, "--auto-compaction-retention=1s") as rpc:
        first = rpc.put("k", "1").header.revision
        rpc.put("k", "2")
        assert not compacted(rpc, first)
        until(lambda: compacted(rpc, first))
        assert rpc.get("k") == b"2"


def test_a_quiet_watch_hears_how_far_it_is(tmp_path: Path) -> None:
    with server(tmp_path, "--watch-progress-notify-interval=200ms") as rpc:
        revision = rpc.put("k", "v").header.revision
        create = rpc_pb2.WatchCreateRequest(key=b"quiet", progress_notify=True)
        watch = rpc.channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=rpc_pb2.WatchResponse.FromString,
        )
        answers = watch(iter([rpc_pb2.WatchRequest(create_request=create)]), timeout=10)
        assert next(answers).created
        for _ in range(2):
            told = next(answers)
            assert (told.header.revision, list(told.events)) == (revision, [])
        answers.cancel()


def test_one_of_three_goes_on_alone(tmp_path: Path) -> None:
    with make_cluster(tmp_path, size=3) as cluster:
        with Rpc(cluster.servers[0].endpoint) as rpc:
            rpc.put("k", "v")
            rpc.get("k")
        cluster.close()
        alone = replace(cluster.servers[0], extra=("--force-new-cluster",), process=None)
        try:
            alone.start()
            with Rpc(alone.endpoint) as rpc:
                assert rpc.get("k") == b"v"
                rpc.put("k", "w")
                members = rpc.call("Cluster", "MemberList", rpc_pb2.MemberListRequest()).members
                assert [member.name for member in members] == [alone.name]
        finally:
            alone.kill()


@pytest.mark.parametrize("strict", [True, False])
def test_a_change_of_members_that_loses_quorum(tmp_path: Path, strict: bool) -> None:
    flag = f"--strict-reconfig-check={str(strict).lower()}"
    request = rpc_pb2.MemberAddRequest(peerURLs=["http://127.0.0.1:9"])
    with make_cluster(tmp_path, size=2, extra=[flag]) as cluster:
        cluster.servers[1].kill()
        with Rpc(cluster.servers[0].endpoint) as rpc, pytest.raises(grpc.RpcError) as caught:
            rpc.call("Cluster", "MemberAdd", request)
    # Without the check it is taken, but nobody can decide it any more.
    assert (caught.value.details() == errors.UNHEALTHY.message) is strict
