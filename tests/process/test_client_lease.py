"""Leases of the blocking client against a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from kvstore.client import Client, LeaseExistsError, LeaseNotFoundError, PreconditionError
from tests.process.client_cluster import Cluster, cluster_fixture, wait_until

pytestmark = pytest.mark.process
cluster = cluster_fixture(1)

# The server's minimum at the fixture's election timeout.
SHORT_S = 1


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with cluster.client() as client:
        client.delete_prefix("")
        yield client


def test_grant_times_list_revoke(client: Client) -> None:
    granted = client.lease_grant(60)
    assert granted.ttl_s == 60
    client.put("a", "", lease=granted.id)
    client.put("b", "", lease=granted.id)
    times = client.lease_time_to_live(granted.id, keys=True)
    assert 0 < times.ttl_s <= 60
    assert times.granted_ttl_s == 60
    assert sorted(times.keys) == [b"a", b"b"]
    assert granted.id in client.leases().ids
    client.lease_revoke(granted.id)
    assert client.get_prefix("").count == 0
    with pytest.raises(LeaseNotFoundError):
        client.lease_revoke(granted.id)
    assert client.lease_time_to_live(granted.id).ttl_s == -1
    assert client.keep_alive_once(granted.id).ttl_s == 0


def test_an_id_can_be_chosen_once(client: Client) -> None:
    with client.lease(60, lease_id=0x1234, keep_alive=False) as lease:
        assert lease.id == 0x1234
        with pytest.raises((LeaseExistsError, PreconditionError)):
            client.lease_grant(60, lease_id=0x1234)


def test_keys_of_a_lease_live_as_long_as_it_is_kept(client: Client) -> None:
    kept, left = client.lease(SHORT_S), client.lease(SHORT_S, keep_alive=False)
    client.put("kept", "", lease=kept.id)
    client.put("left", "", lease=left.id)
    wait_until(lambda: client.get("left") is None, 10)
    assert client.get("kept") is not None
    assert not kept.lost
    assert 0 < kept.remaining_s() <= SHORT_S
    kept.revoke()
    kept.revoke()
    assert client.get("kept") is None
    assert not kept.lost  # ended by ourselves


def test_a_revoked_lease_is_reported_lost(client: Client) -> None:
    lease = client.lease(SHORT_S)
    called = threading.Event()
    lease.on_lost(called.set)
    client.lease_revoke(lease.id)
    assert lease.wait_lost(SHORT_S)
    assert called.wait(1)
    assert lease.lost
    assert lease.remaining_s() == 0
    late = threading.Event()
    lease.on_lost(late.set)
    assert late.is_set()
    with pytest.raises(LeaseNotFoundError):
        lease.refresh()


def test_a_lease_without_contact_is_lost_before_the_server_can_drop_it(
    cluster: Cluster, client: Client
) -> None:
    lease = client.lease(SHORT_S)
    cluster.servers[0].freeze()
    try:
        start = time.monotonic()
        assert lease.wait_lost(SHORT_S + 0.5)
        assert time.monotonic() - start <= SHORT_S + 0.2
    finally:
        cluster.servers[0].thaw()
    cluster.wait_ready()


def test_keeping_survives_a_restart_of_the_server(cluster: Cluster, client: Client) -> None:
    lease = client.lease(5)
    client.put("k", "", lease=lease.id)
    cluster.servers[0].kill()
    cluster.servers[0].start()
    cluster.wait_ready()
    assert lease.refresh() == 5
    assert not lease.lost
    assert client.get("k") is not None
    with client.keep_alive(lease.id) as same:
        assert same.ttl_s == 5
    assert client.get("k") is None


def test_many_leases_share_one_thread(client: Client) -> None:
    before = threading.active_count()
    leases = [client.lease(SHORT_S) for _ in range(50)]
    time.sleep(1.5 * SHORT_S)
    assert threading.active_count() <= before + 3
    assert not any(each.lost for each in leases)
    for each in leases:
        each.revoke()
