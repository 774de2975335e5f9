"""The blocking client against a real server: keys, transactions, errors, outcomes, threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from kvstore import errors as catalogue
from kvstore.client import (
    Client,
    ClientClosedError,
    CompactedError,
    ConnectError,
    CreateRevision,
    DeadlineError,
    Delete,
    DeleteResult,
    FutureRevisionError,
    Get,
    InvalidRequestError,
    LeaseNotFoundError,
    LeaseOf,
    ModRevision,
    NotSupportedError,
    Outcome,
    Put,
    PutResult,
    RangeResult,
    SortOrder,
    SortTarget,
    Txn,
    TxnResult,
    UnavailableError,
    Value,
    Version,
)
from kvstore.client.call import Effect, Method, Unary
from kvstore.pb import rpc_pb2 as pb
from tests.process.client_cluster import Cluster, cluster_fixture, wait_until
from tests.support.servers import free_ports

pytestmark = pytest.mark.process
cluster = cluster_fixture(1)


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with cluster.client() as client:
        client.delete_prefix("")
        yield client


def test_put_get_delete(client: Client) -> None:
    put = client.put("k", "v1")
    assert put.prev_kv is None
    assert put.header.cluster_id
    found = client.get("k")
    assert found is not None
    assert (found.key, found.value, found.version) == (b"k", b"v1", 1)
    assert found.create_revision == found.mod_revision == put.header.revision
    second = client.put(b"k", b"v2", prev_kv=True)
    assert second.prev_kv == found
    assert client.get("k", revision=put.header.revision) == found
    deleted = client.delete("k", prev_kv=True)
    assert deleted.deleted == 1
    assert deleted.prev_kvs[0].value == b"v2"
    assert client.get("k") is None
    assert client.delete("k").deleted == 0


def test_put_keeps_what_it_is_told_to(client: Client) -> None:
    lease = client.lease_grant(60).id
    client.put("k", "v", lease=lease)
    client.put("k", "w", ignore_lease=True)
    client.put("k", ignore_value=True, lease=lease)
    found = client.get("k")
    assert found is not None
    assert (found.value, found.lease) == (b"w", lease)
    with pytest.raises(InvalidRequestError) as caught:
        client.put("absent", ignore_value=True)
    assert caught.value == catalogue.KEY_NOT_FOUND
    client.lease_revoke(lease)


def test_range_options(client: Client) -> None:
    revisions = [client.put(f"r/{i}", str(9 - i)).header.revision for i in range(5)]
    client.put("s", "outside")
    everything = client.get_prefix("r/")
    assert [kv.key for kv in everything] == [b"r/%d" % i for i in range(5)]
    assert (len(everything), everything.count, everything.more) == (5, 5, False)
    page = client.range("r/", prefix=True, limit=2)
    assert (len(page), page.count, page.more) == (2, 5, True)
    assert client.range("r/3", from_key=True).count == 3
    assert client.range("r/1", range_end="r/3").count == 2
    assert client.range("", prefix=True).count == 6
    by_value = client.range(
        "r/", prefix=True, sort_target=SortTarget.VALUE, sort_order=SortOrder.ASCEND
    )
    assert [kv.value for kv in by_value] == [b"5", b"6", b"7", b"8", b"9"]
    newest = client.get_prefix("r/", sort_target=SortTarget.MOD, sort_order=SortOrder.DESCEND)
    assert newest.first is not None
    assert newest.first.mod_revision == revisions[-1]
    assert client.range("r/0", keys_only=True).kvs[0].value == b""
    counted = client.range("r/", prefix=True, count_only=True)
    assert (counted.kvs, counted.count) == ((), 5)
    bounded = client.range(
        "r/", prefix=True, min_mod_revision=revisions[1], max_mod_revision=revisions[3]
    )
    assert len(bounded) == 3
    bounded = client.range(
        "r/", prefix=True, min_create_revision=revisions[2], max_create_revision=revisions[2]
    )
    assert [kv.key for kv in bounded] == [b"r/2"]
    assert client.range("r/", prefix=True, revision=revisions[0]).count == 1
    assert client.range("r/", prefix=True, serializable=True).count == 5


def test_scan_reads_one_revision_in_pages(client: Client) -> None:
    for i in range(7):
        client.put(f"p/{i}", "")
    scan = client.scan("p/", page=3)
    keys = [next(scan).key]
    client.delete("p/5")
    client.put("p/9", "")
    keys += [kv.key for kv in scan]
    assert keys == [b"p/%d" % i for i in range(7)]


def test_txn_both_branches_and_nested(client: Client) -> None:
    def run() -> TxnResult:
        return (
            client.txn()
            .when(Version("t") == 0, CreateRevision("t/", prefix=True) == 0)
            .then(
                Put("t", "1"),
                Get("t"),
                Txn().when(Version("t") == 0).then(Put("t/inner", "x")).otherwise(Delete("z")),
            )
            .otherwise(Get("t", prefix=True), Delete("t", prefix=True))
            .commit()
        )

    first = run()
    assert first.succeeded
    put, got, inner = first.responses
    assert isinstance(put, PutResult)
    assert isinstance(got, RangeResult)
    assert isinstance(inner, TxnResult)
    assert got.kvs[0].value == b"1"
    assert inner.succeeded  # guards see the state before the transaction
    second = run()
    assert not second.succeeded
    found, deleted = second.responses
    assert isinstance(found, RangeResult)
    assert isinstance(deleted, DeleteResult)
    assert (found.count, deleted.deleted) == (2, 2)


def test_txn_comparisons(client: Client) -> None:
    lease = client.lease_grant(60).id
    revision = client.put("c", "m", lease=lease).header.revision
    true = [
        Value("c") == "m",
        Value("c") != "n",
        Value("c") > b"l",
        Value("c") < "n",
        Version("c") == 1,
        Version("c") < 2,
        CreateRevision("c") == revision,
        ModRevision("c") > revision - 1,
        LeaseOf("c") == lease,
        LeaseOf("absent") == 0,
    ]
    assert client.txn().when(*true).commit().succeeded
    for false in (Value("c") == "n", Version("c") > 1, Value("absent") != "x"):
        assert not client.txn().when(false).commit().succeeded
    client.lease_revoke(lease)


def test_compaction_errors(client: Client) -> None:
    revision = client.put("k", "1").header.revision
    client.put("k", "2")
    client.compact(revision + 1)
    with pytest.raises(CompactedError) as caught:
        client.get("k", revision=revision)
    assert caught.value == catalogue.COMPACTED
    assert not caught.value.retryable
    with pytest.raises(FutureRevisionError):
        client.get("k", revision=revision + 1000)
    with pytest.raises(CompactedError) as caught:
        client.compact(revision)
    assert caught.value.outcome is Outcome.NOT_APPLIED


def test_refusals_have_types(client: Client) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        client.get("")
    assert caught.value == catalogue.EMPTY_KEY
    with pytest.raises(LeaseNotFoundError) as lease:
        client.put("k", "v", lease=12345)
    assert lease.value.outcome is Outcome.NOT_APPLIED
    missing = Method("/etcdserverpb.KV/Nothing", pb.PutResponse)
    with pytest.raises(NotSupportedError):
        client.call(Unary(missing, pb.PutRequest(), Effect.WRITE, lambda m: m))


def test_nobody_listens_means_not_applied() -> None:
    with Client(f"127.0.0.1:{free_ports(1)[0]}") as client:
        start = time.monotonic()
        with pytest.raises(ConnectError) as caught:
            client.put("k", "v", timeout=0.3)
        assert time.monotonic() - start < 2
        assert caught.value.outcome is Outcome.NOT_APPLIED
        assert caught.value.retryable


def test_a_frozen_server_leaves_a_write_unknown(cluster: Cluster, client: Client) -> None:
    client.put("k", "v")
    cluster.servers[0].freeze()
    try:
        with pytest.raises(DeadlineError) as read:
            client.get("k", timeout=0.2)
        with pytest.raises(DeadlineError) as write:
            client.put("k", "w", timeout=0.2)
    finally:
        cluster.servers[0].thaw()
    assert read.value.outcome is Outcome.NOT_APPLIED
    assert write.value.outcome is Outcome.UNKNOWN
    assert not write.value.outcome_known


def test_a_killed_server_leaves_a_write_unknown(cluster: Cluster, client: Client) -> None:
    client.put("k", "v")
    server = cluster.servers[0]
    server.freeze()
    failures: list[UnavailableError] = []

    def write() -> None:
        try:
            client.put("k", "w")
        except UnavailableError as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.2)  # the request is in the frozen server's socket
    server.kill()
    thread.join(5)
    server.start()
    assert [each.outcome for each in failures] == [Outcome.UNKNOWN]
    # A read is repeated until the server is back.
    found = client.get("k", timeout=10)
    assert found is not None
    assert found.value == b"v"


def test_threads_share_a_client(client: Client) -> None:
    def work(name: str) -> None:
        for i in range(20):
            client.put(f"{name}/{i}", name)
            assert client.get(f"{name}/{i}") is not None

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert client.range("w", prefix=True, count_only=True).count == 160


def test_closing_leaves_no_threads(cluster: Cluster) -> None:
    before = set(threading.enumerate())
    client = cluster.client()
    client.put("k", "v")
    client.watch("k")
    client.lease(60)
    assert set(threading.enumerate()) - before
    client.close()
    client.close()
    wait_until(lambda: not set(threading.enumerate()) - before)
    with pytest.raises(ClientClosedError):
        client.get("k")
    with pytest.raises(ClientClosedError):
        client.watch("k")


def test_a_client_of_the_parent_is_refused_after_a_fork(client: Client) -> None:
    client._pid = os.getpid() + 1  # as the child would see it
    with pytest.raises(ClientClosedError, match="after a fork"):
        client.get("k")
    client._pid = os.getpid()
