"""Recipes through what happens to processes: a sleeping owner, a leader's death, a killed owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kvstore.client import Client, LeaseLostError, PartitionState
from tests.process.client_cluster import Cluster, cluster_fixture, wait_until
from tests.support.servers import ROOT

pytestmark = pytest.mark.process
cluster = cluster_fixture(3)

# Acquires, says so, and writes under its guard when told to on its standard input.
_OWNER = """
import sys
from kvstore.client import Client, Put
kind, name, endpoints = sys.argv[1:]
client = Client(endpoints)
lock = getattr(client, kind)(name, *((1,) if kind == "semaphore" else ()), ttl=2)
lock.acquire()
print(lock.fencing_token, flush=True)
sys.stdin.readline()
print(client.txn().when(lock.guard()).then(Put(name, "old")).commit().succeeded, flush=True)
lock.lease.wait_lost(10)
print(lock.lost, flush=True)
"""


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with cluster.client() as client:
        client.delete_prefix("")
        yield client


def owner(cluster: Cluster, kind: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _OWNER, kind, name, ",".join(cluster.endpoints)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("kind", ["lock", "write_lock", "semaphore"])
def test_a_paused_owner_wakes_up_too_late(cluster: Cluster, client: Client, kind: str) -> None:
    with owner(cluster, kind, kind) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            token = int(process.stdout.readline())
            process.send_signal(signal.SIGSTOP)
            ours = client.semaphore(kind, 1) if kind == "semaphore" else getattr(client, kind)(kind)
            with ours.acquire(timeout=20) as lock:  # its lease ends while it sleeps
                assert lock.fencing_token > token
                client.put(kind, "new")
                process.send_signal(signal.SIGCONT)
                process.stdin.write("go on\n")
                process.stdin.flush()
                assert process.stdout.readline() == "False\n"
                assert process.stdout.readline() == "True\n"  # and it learns of its loss
                found = client.get(kind)
                assert found is not None
                assert found.value == b"new"
        finally:
            process.kill()


def test_a_killed_owner_is_succeeded(cluster: Cluster, client: Client) -> None:
    with owner(cluster, "lock", "killed") as process:
        assert process.stdout is not None
        token = int(process.stdout.readline())
        process.kill()
    start = time.monotonic()
    with client.lock("killed").acquire(timeout=20) as lock:
        assert lock.fencing_token > token
    assert time.monotonic() - start < 10


def test_through_a_leaders_death(cluster: Cluster) -> None:
    """The owner keeps its place, waiters keep theirs, nobody is inside twice, nothing is lost."""
    with cluster.client() as client, cluster.client() as other:
        client.delete_prefix("")
        held = client.lock("steady", ttl=10).acquire()
        queue = other.locking_queue("work", ttl=10)
        queue.put_all(str(i) for i in range(6))
        assert queue.get() == b"0"
        share = client.partitioner("shards", ["a", "b", "c"], ttl=10)
        share.join()
        share.acquire()
        counting = threading.Lock()
        inside = most = 0

        def work() -> None:
            nonlocal inside, most
            for _ in range(3):
                with other.lock("steady", ttl=10):
                    with counting:
                        inside += 1
                        most = max(most, inside)
                    with counting:
                        inside -= 1

        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(work) for _ in range(3)]
            wait_until(lambda: len(held.contenders()) == 4)
            server = cluster.leader()
            server.kill()
            cache = client.tree_cache("work/").start()
            try:
                assert not any(each.done() for each in jobs)
                assert held.held
                held.check()
                assert client.txn().when(held.guard()).commit().succeeded
                held.release()
                for each in jobs:
                    each.result(60)
                assert most == 1
                queue.consume()
                rest = []
                while (value := queue.get(timeout=0)) is not None:
                    queue.consume()
                    rest.append(value)
                assert rest == [b"1", b"2", b"3", b"4", b"5"]
                assert cache.wait_for(lambda known: len(known) == 1, timeout=10)
                assert share.state is PartitionState.ACQUIRED
                share.leave()
            finally:
                server.start()
                cluster.wait_ready()
            cache.close()


def test_without_a_quorum_the_loss_is_told(cluster: Cluster) -> None:
    """An owner that cannot renew counts its lease as lost before anybody else can own."""
    with cluster.client() as client:
        client.delete_prefix("")
        lock = client.lock("cut-off", ttl=3).acquire()
        asleep = cluster.servers[1:]
        for each in asleep:
            each.freeze()
        try:
            assert lock.lease.wait_lost(20)
            with pytest.raises(LeaseLostError, match="somebody else may hold it now"):
                lock.check()
        finally:
            for each in asleep:
                each.thaw()
            cluster.wait_ready()
