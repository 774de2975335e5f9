"""The blocking client against three members: failover, membership, maintenance."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.client import (
    Client,
    DeadlineError,
    KvError,
    MemberNotFoundError,
    NoLeaderError,
    NotLeaderError,
    Outcome,
    UnavailableError,
)
from tests.process.client_cluster import SERVER, Cluster, cluster_fixture, wait_until
from tests.support.tools import require

pytestmark = pytest.mark.process
cluster = cluster_fixture(3)


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with cluster.client() as client:
        client.delete_prefix("")
        yield client


def test_members_and_endpoints(cluster: Cluster, client: Client) -> None:
    members = client.member_list().members
    assert sorted(each.name for each in members) == ["m0", "m1", "m2"]
    assert not any(each.is_learner for each in members)
    with Client(cluster.endpoints[1]) as narrow:
        urls = narrow.sync_endpoints()
        assert sorted(urls) == sorted(f"http://{each}" for each in cluster.endpoints)
        assert narrow.get("k") is None


def test_a_learner_comes_and_goes(client: Client) -> None:
    added = client.member_add(["http://127.0.0.1:1"], is_learner=True)
    assert added.member is not None
    assert added.member.is_learner
    assert len(added.members) == 4
    updated = client.member_update(added.member.id, ["http://127.0.0.1:2"])
    assert {each.id: each for each in updated.members}[added.member.id].peer_urls == (
        "http://127.0.0.1:2",
    )
    with pytest.raises(KvError) as caught:
        client.member_promote(added.member.id)
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert len(client.member_remove(added.member.id).members) == 3
    with pytest.raises(MemberNotFoundError):
        client.member_remove(added.member.id)


def test_status_hash_defragment_alarms_health(cluster: Cluster, client: Client) -> None:
    revision = client.put("k", "v").header.revision
    hashes = set()
    for endpoint in client.endpoints:
        status = client.status(endpoint=endpoint)
        assert status.endpoint == endpoint
        assert status.version.startswith("3.")
        assert status.leader
        assert status.db_size_bytes > 0
        # A read that the whole cluster confirms first: the member has this revision.
        assert client.range("k", endpoint=endpoint).count == 1
        hashes.add(client.hash_kv(revision=revision, endpoint=endpoint).hash)
        client.defragment(endpoint=endpoint)
        assert client.health(endpoint).healthy
    assert len(hashes) == 1
    assert client.alarms().alarms == ()
    assert client.alarm_disarm().alarms == ()


def test_move_leader(client: Client) -> None:
    status = client.status(endpoint=client.endpoints[0])
    target = next(m.id for m in client.member_list().members if m.id != status.leader)
    assert client.move_leader(target) == status.leader
    wait_until(lambda: client.status(endpoint=client.endpoints[0]).leader == target)
    follower = next(
        each for each in client.endpoints if client.status(endpoint=each).header.member_id != target
    )
    with Client(follower) as alone, pytest.raises(KvError, match="no leader among"):
        alone.move_leader(status.leader)
    assert NotLeaderError.default_code.name == "FAILED_PRECONDITION"


def test_snapshot(client: Client, tmp_path: Path) -> None:
    client.put("k", "x" * 100_000)
    seen: list[tuple[int, int]] = []
    target = tmp_path / "snap.db"
    info = client.snapshot(target, progress=lambda done, left: seen.append((done, left)))
    assert target.stat().st_size == info.size_bytes == seen[-1][0]
    assert seen[-1][1] == 0
    assert list(tmp_path.iterdir()) == [target]
    if SERVER == ["etcd"]:
        check = [require("etcdctl"), "snapshot", "status", str(target)]
        assert subprocess.run(check, check=False, capture_output=True).returncode == 0


def test_calls_and_watches_survive_the_loss_of_any_member(cluster: Cluster, client: Client) -> None:
    watch = client.watch("n", require_leader=True)
    lease = client.lease(5)
    client.put("held", "", lease=lease.id)
    written: list[int] = []
    failures: list[KvError] = []
    for server in (cluster.servers[0], cluster.leader()):
        server.kill()
        for _ in range(20):
            try:
                written.append(client.put("n", "", timeout=1).header.revision)
            except (UnavailableError, DeadlineError) as error:
                failures.append(error)
        assert client.get("n", timeout=10) is not None
        assert lease.refresh() == 5
        server.start()
        cluster.wait_ready()
    found = client.get("n")
    assert found is not None
    revisions: list[int] = []
    while not revisions or revisions[-1] < found.mod_revision:
        response = watch.get(10)
        assert response is not None
        revisions += [each.kv.mod_revision for each in response.events]
    watch.cancel()
    # Where the leader was lost while a write was under way, nobody can know.
    assert all(each.outcome is Outcome.UNKNOWN for each in failures)
    assert revisions == sorted(set(revisions))
    assert len(revisions) == found.version
    assert set(written) <= set(revisions)
    assert not lease.lost
    lease.revoke()


def test_a_read_leaves_a_frozen_member(cluster: Cluster, client: Client) -> None:
    client.put("k", "v")
    frozen = cluster.servers[0]
    frozen.freeze()
    try:
        with Client([frozen.endpoint, *cluster.endpoints[1:]], shuffle=False) as other:
            found = other.get("k", timeout=2)
            assert found is not None
            other.put("k", "w", timeout=2)
    finally:
        frozen.thaw()


def test_a_watch_leaves_a_frozen_member(cluster: Cluster, client: Client) -> None:
    # The same pings as by default, only sooner.
    impatient = [
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.keepalive_timeout_ms", 500),
        ("grpc.http2.ping_timeout_ms", 500),
    ]
    frozen = cluster.servers[0]
    with (
        Client(cluster.endpoints, shuffle=False, channel_options=impatient) as watcher,
        Client(cluster.endpoints[1:], timeout=1) as writer,
        watcher.watch("k") as watch,
    ):
        frozen.freeze()
        try:
            for _ in range(5):
                try:
                    writer.put("k", "v")
                    break
                except KvError:
                    continue
            response = watch.get(10)
            assert response is not None
            assert response.events[0].kv.key == b"k"
        finally:
            frozen.thaw()


def test_without_a_quorum(cluster: Cluster, client: Client) -> None:
    client.put("k", "v")
    alive = cluster.servers[2]
    for each in cluster.servers[:2]:
        each.kill()
    try:
        with Client(alive.endpoint) as alone:
            wait_until(lambda: not alone.status().leader)
            stale = alone.get("k", serializable=True)
            assert stale is not None
            with pytest.raises(KvError) as caught:
                alone.put("k", "w", timeout=0.5)
            assert caught.value.outcome is Outcome.UNKNOWN
            with pytest.raises(NoLeaderError):
                alone.watch("k", require_leader=True, timeout=5)
            assert not alone.health(timeout=0.5).healthy
    finally:
        for each in cluster.servers[:2]:
            each.start()
        cluster.wait_ready()


def test_a_lock_is_handed_on_across_the_loss_of_a_member(
    cluster: Cluster,
) -> None:
    client = Client(cluster.endpoints, timeout=2)
    lock = client.lock("l", ttl=10).acquire()
    tokens: list[int] = []

    def wait() -> None:
        with client.lock("l", ttl=10) as mine:
            tokens.append(mine.token)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: client.get_prefix("l/").count == 2)
    server = next(s for s in cluster.servers if s.endpoint == client._rotation.current.text)
    server.kill()
    lock.release()
    waiter.join(10)
    server.start()
    cluster.wait_ready()
    client.close()
    assert len(tokens) == 1
