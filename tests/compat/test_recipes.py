"""Recipes beside etcdctl's own `lock` and `elect`, and on Debian's etcd as the server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kvstore.client import Client, LockTimeoutError
from tests.process.client_cluster import ETCD, SERVER, Cluster, wait_until
from tests.support.bridge import BridgedClient
from tests.support.tools import require

pytestmark = pytest.mark.compat


@pytest.fixture(scope="module", params=["kvstore", "etcd"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    server = SERVER if request.param == "kvstore" else ETCD
    running = Cluster(tmp_path_factory.mktemp(request.param), 1, server=server)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(params=[Client, BridgedClient])
def client(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Any]:
    kind: Callable[[list[str]], Any] = request.param
    client = kind(cluster.endpoints)
    client.delete_prefix("")
    yield client
    client.close()


def etcdctl(cluster: Cluster, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [require("etcdctl"), "--endpoints", cluster.endpoints[0], *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_in_one_line_with_etcdctl_lock(cluster: Cluster, client: Any) -> None:
    """We hold, etcdctl waits, we wait behind it: everyone in order, none at the same time."""
    first = client.lock("shared", ttl=10, identifier="first").acquire()
    with etcdctl(cluster, "lock", "shared", "--ttl=10") as theirs, ThreadPoolExecutor() as pool:
        assert theirs.stdout is not None
        try:
            wait_until(lambda: len(first.contenders()) == 2)
            last = client.lock("shared", ttl=10, identifier="last")
            waiting = pool.submit(last.acquire)
            wait_until(lambda: len(first.contenders()) == 3)
            assert [each.identifier for each in first.contenders()] == [b"first", b"", b"last"]
            token = first.fencing_token
            first.release()
            its_key = theirs.stdout.readline().strip()
            its = client.get(its_key)
            assert its.create_revision > token
            assert not waiting.done()
            with pytest.raises(LockTimeoutError, match=f"before us: .*key {last.name.decode()}/"):
                client.lock("shared").acquire(timeout=0.1)
        finally:
            theirs.terminate()  # it gives the lock back
        waiting.result(10)
        assert last.fencing_token > its.create_revision
        last.release()


def test_etcdctl_lock_runs_its_command_after_us(cluster: Cluster, client: Any) -> None:
    with client.lock("exec", ttl=10) as held:
        theirs = etcdctl(cluster, "lock", "exec", "--", "sh", "-c", "echo $ETCD_LOCK_KEY")
        wait_until(lambda: len(held.contenders()) == 2)
        assert theirs.poll() is None
    out, _ = theirs.communicate(timeout=10)
    assert out.startswith("exec/")


def test_taking_turns_with_etcdctl_elect(cluster: Cluster, client: Any) -> None:
    election = client.election("boss")
    with etcdctl(cluster, "elect", "boss", "theirs") as theirs, ThreadPoolExecutor() as pool:
        assert theirs.stdout is not None
        try:
            its_key = theirs.stdout.readline().strip()
            assert its_key.startswith("boss/")
            assert election.leader().value == b"theirs"
            observer = election.observe()
            assert next(observer).key == its_key.encode()
            campaigning = pool.submit(election.campaign, "ours", ttl=10)
            wait_until(lambda: len(election.contenders()) == 2)
            assert [each.identifier for each in election.contenders()] == [b"theirs", b"ours"]
        finally:
            theirs.terminate()
        ours = campaigning.result(10)
        assert next(observer).value == b"ours"
        with etcdctl(cluster, "elect", "--listen", "boss") as listening:
            assert listening.stdout is not None
            lines = [listening.stdout.readline().strip() for _ in range(2)]
            assert lines == [ours.key.decode(), "ours"]
            ours.proclaim("ours, busy")
            assert [listening.stdout.readline().strip() for _ in range(2)][1] == "ours, busy"
            listening.terminate()
        ours.resign()


def test_every_recipe_on_this_server(client: Any) -> None:
    """What the in-process tests show of our server holds on etcd: nothing here is ours alone."""
    with client.write_lock("rw", ttl=5):
        assert not client.read_lock("rw").try_acquire()
    with client.read_lock("rw", ttl=5), client.read_lock("rw", ttl=5):
        assert not client.write_lock("rw").try_acquire()
    with client.semaphore("sem", 2, ttl=5), client.semaphore("sem", 2, ttl=5) as second:
        assert not client.semaphore("sem", 2).try_acquire()
        assert len(second.holders()) == 2
    barrier = client.barrier("barrier")
    assert barrier.create()
    assert not barrier.wait(timeout=0.05)
    assert barrier.remove()
    with ThreadPoolExecutor() as pool:
        two = [client.double_barrier("double", 2, ttl=5) for _ in range(2)]
        for step in ("enter", "leave"):
            for each in [pool.submit(getattr(one, step), 10) for one in two]:
                each.result(20)
    for kind in ("queue", "locking_queue"):
        queue = getattr(client, kind)(kind, ttl=5)
        queue.put_all(["b", "c"])
        queue.put("a", priority=1)
        assert queue.get() == b"a"
    queue.consume()
    assert (queue.size(), queue.get(timeout=1)) == (2, b"b")
    queue.release()
    counter = client.counter("counter")
    assert [counter.add(2), counter.add(-5), counter.value()] == [2, -3, -3]
    with client.party("party", "me", ttl=5) as party:
        assert [each.identifier for each in party.members()] == [b"me"]
    with client.partitioner("parts", ["x", "y", "z"], ttl=5) as parts:
        assert len(parts.acquire(timeout=5)) == 3
    with client.tree_cache("tree/") as cache:
        client.put("tree/a", "1")
        assert cache.wait_for(lambda known: len(known) == 1, timeout=5)
