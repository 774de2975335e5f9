"""Members that stop for seconds (SIGSTOP): leader, follower, all at once; under writes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.support.rpc import Rpc
from tests.support.servers import Cluster, Server, make_cluster
from tests.support.traffic import Writers, leader_of, settled_hashes

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(120)]

PAUSE_S = 5.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with make_cluster(tmp_path_factory.mktemp("pauses"), size=3) as cluster:
        yield cluster


def pause(servers: list[Server], seconds: float = PAUSE_S) -> None:
    for server in servers:
        server.signal(signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        for server in servers:
            server.signal(signal.SIGCONT)


def assert_nothing_lost(cluster: Cluster, writers: Writers) -> None:
    hashes = settled_hashes(cluster)
    assert len(set(hashes)) == 1, hashes
    for server in cluster.servers:
        with Rpc(server.endpoint, timeout_s=20) as rpc:
            found = {kv.key.decode(): kv.value.decode() for kv in rpc.range("w", "x").kvs}
        lost = {k for k, v in writers.acked.items() if found.get(k) != v}
        assert not lost, f"{len(lost)} of {len(writers.acked)} are gone on {server.name}"


@pytest.mark.parametrize("who", ["leader", "follower", "all"])
def test_a_pause_loses_nothing(cluster: Cluster, who: str) -> None:
    leader = leader_of(cluster)
    with Rpc(leader.endpoint) as rpc:
        term = rpc.status().raftTerm
    paused = {
        "leader": [leader],
        "follower": [next(s for s in cluster.servers if s is not leader)],
        "all": list(cluster.servers),
    }[who]
    with Writers(cluster, count=3) as writers:
        writers.wait_success_after(time.monotonic())
        pause(paused)
        awake = time.monotonic()
        writers.wait_success_after(awake + 0.05)
        again = time.monotonic() - awake
        time.sleep(0.5)
    assert_nothing_lost(cluster, writers)
    with Rpc(leader_of(cluster).endpoint) as rpc:
        terms = rpc.status().raftTerm - term
    print(f"{who}: writes again {again:.2f} s after the pause, {terms} new terms")
    assert again < 4
    if who == "follower":
        assert terms == 0, "a follower that slept must not disturb the leader"


def test_a_leader_that_slept_never_answers_from_the_past(cluster: Cluster) -> None:
    """Reads that reach the old leader the moment it wakes: new state or an error, never old."""
    for _ in range(3):
        leader = leader_of(cluster)
        other = next(server for server in cluster.servers if server is not leader)
        with Rpc(leader.endpoint, timeout_s=10) as old, Rpc(other.endpoint, timeout_s=2) as new:
            old.put("past", "1")
            leader.signal(signal.SIGSTOP)
            try:
                call = old.channel.unary_unary("/etcdserverpb.KV/Range")
                asked = call.future(b"\x0a\x04past", timeout=12)
                deadline = time.monotonic() + 10
                written = False
                while not written and time.monotonic() < deadline:
                    try:
                        new.put("past", "2")
                        written = True
                    except Exception:
                        time.sleep(0.05)
                assert written
            finally:
                leader.signal(signal.SIGCONT)
            # It was asked before the second write ended, but answers after: both may be.
            asked.exception()
            for _ in range(20):
                try:
                    assert old.get("past") == b"2"
                except AssertionError:
                    raise
                except Exception:
                    time.sleep(0.05)
