"""Locks and elections of the blocking client against a real server, and against etcdctl's."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from kvstore.client import (
    Client,
    ElectionError,
    KvError,
    LeaseLostError,
    LockTimeoutError,
    Put,
)
from tests.process.client_cluster import Cluster, cluster_fixture, wait_until
from tests.support.tools import require

pytestmark = pytest.mark.process
cluster = cluster_fixture(1)


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with cluster.client() as client:
        client.delete_prefix("")
        yield client


def test_one_holder_at_a_time_with_growing_tokens(client: Client) -> None:
    inside = 0
    most = 0
    tokens: list[int] = []

    def work() -> None:
        nonlocal inside, most
        for _ in range(3):
            with client.lock("jobs", ttl=5) as lock:
                inside += 1
                most = max(most, inside)
                tokens.append(lock.token)
                time.sleep(0.01)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most == 1
    assert len(tokens) == 15
    assert tokens == sorted(set(tokens))
    assert client.get_prefix("jobs/").count == 0


def test_try_and_timeout_leave_nothing_behind(client: Client) -> None:
    with client.lock("l", ttl=5) as held:
        assert held.held
        assert held.key == b"l/%x" % held.lease.id
        leases = set(client.leases().ids)
        assert not client.lock("l", ttl=5).try_acquire()
        with pytest.raises(LockTimeoutError):
            client.lock("l", ttl=5).acquire(timeout=0.2)
        assert client.get_prefix("l/").count == 1
        assert set(client.leases().ids) == leases
        assert client.txn().when(held.guard()).then(Put("guarded", "yes")).commit().succeeded
        with pytest.raises(KvError):
            held.acquire()
    assert not held.held
    with pytest.raises(KvError):
        _ = held.token
    assert client.lock("l", ttl=5).try_acquire()


def test_a_given_lease_is_kept(client: Client) -> None:
    with client.lease(5) as lease:
        lock = client.lock("l", lease=lease)
        token = lock.acquire().token
        lock.release()
        assert lock.acquire().token > token
        # The same lease locks twice.
        assert client.lock("l", lease=lease).try_acquire()
        lock.release()
        assert not lease.lost


def test_who_loses_the_lease_loses_the_lock(client: Client) -> None:
    with client.lock("l", ttl=2) as lock:
        client.lease_revoke(lock.lease.id)
        assert client.lock("l", ttl=2).try_acquire()
        assert lock.lease.wait_lost(2)
        assert lock.lost
        assert not lock.held


def test_waiting_ends_when_the_own_lease_is_lost(client: Client) -> None:
    failures: list[LeaseLostError] = []
    mine = client.lease(1)

    def wait() -> None:
        try:
            client.lock("l", lease=mine).acquire(timeout=20)
        except LeaseLostError as error:
            failures.append(error)

    with client.lock("l", ttl=5):
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: client.get_prefix("l/").count == 2)
        client.lease_revoke(mine.id)
        thread.join(5)
    assert len(failures) == 1


def test_etcdctl_lock_waits_for_us_and_we_for_it(cluster: Cluster, client: Client) -> None:
    etcdctl = [require("etcdctl"), "--endpoints", cluster.endpoints[0]]
    lock = client.lock("shared", ttl=5).acquire()
    with subprocess.Popen(
        [*etcdctl, "lock", "shared", "--ttl=5"], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            wait_until(lambda: client.get_prefix("shared/").count == 2)
            assert not client.lock("shared", ttl=5).try_acquire()
            lock.release()
            assert other.stdout is not None
            its_key = other.stdout.readline().strip()  # printed once it has the lock
            assert its_key.startswith("shared/")
            with pytest.raises(LockTimeoutError):
                client.lock("shared", ttl=5).acquire(timeout=0.2)
        finally:
            other.terminate()  # it gives the lock back
    with client.lock("shared", ttl=5) as again:
        assert again.token > 0


def test_etcdctl_observes_our_leader(cluster: Cluster, client: Client) -> None:
    etcdctl = [require("etcdctl"), "--endpoints", cluster.endpoints[0]]
    with (
        client.election("boss").campaign("me", ttl=5) as leadership,
        subprocess.Popen(
            [*etcdctl, "elect", "--listen", "boss"], stdout=subprocess.PIPE, text=True
        ) as other,
    ):
        assert other.stdout is not None
        lines = [other.stdout.readline().strip() for _ in range(2)]
        leadership.proclaim("still me")
        lines += [other.stdout.readline().strip() for _ in range(2)]
        other.terminate()
    assert lines == [leadership_key(lines), "me", leadership_key(lines), "still me"]


def leadership_key(lines: list[str]) -> str:
    assert lines[0].startswith("boss/")
    return lines[0]


def test_election_passes_on(client: Client) -> None:
    election = client.election("e")
    with pytest.raises(ElectionError):
        election.leader()
    observed: list[bytes] = []

    def observe() -> None:
        for kv in client.election("e").observe():
            observed.append(kv.value)
            if kv.value == b"second":
                return

    observer = threading.Thread(target=observe)
    observer.start()
    first = election.campaign("first", ttl=5)
    assert election.leader().create_revision == first.token
    wait_until(lambda: observed == [b"first"])
    first.proclaim("first again")
    wait_until(lambda: len(observed) == 2)
    with pytest.raises(LockTimeoutError):
        election.campaign("late", ttl=5, timeout=0.1)
    won: list[int] = []
    second = threading.Thread(target=lambda: won.append(election.campaign("second", ttl=5).token))
    second.start()
    wait_until(lambda: client.get_prefix("e/").count == 2)
    first.resign()
    first.resign()
    second.join(5)
    observer.join(5)
    assert won[0] > 0
    assert observed == [b"first", b"first again", b"second"]
    with pytest.raises(KvError):
        first.proclaim("too late")


def test_proclaim_fails_when_the_key_is_gone(client: Client) -> None:
    with client.election("e").campaign("me", ttl=5) as leadership:
        client.delete(leadership.key)
        with pytest.raises(ElectionError):
            leadership.proclaim("still me")
