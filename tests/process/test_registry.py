"""The registry on real servers: deadlines, killed leaders, lost quorums, many subscribers."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.pb import registry_pb2 as pb
from kvstore.pb import rpc_pb2
from tests.support.servers import Cluster, Server, make_cluster
from tests.support.traffic import leader_of
from tests.unit.api.client import Client

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

SERVICE = "/kvstore.registry.v1.Registry/"
LATE_S = 1.0
"""How late a deadline may be acted on (issue: 1 s)."""
ELECTION_S = 4.0
"""What a new leader may take until its first commit, on a busy machine."""


class Registry:
    """Calls to one server, by the method's name."""

    def __init__(self, server: Server) -> None:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
        ]
        self.channel = grpc.insecure_channel(server.endpoint, options=options)

    def __call__(self, name: str, /, **fields: Any) -> Any:
        response: Any = getattr(pb, f"{name}Response")
        method = self.channel.unary_unary(
            SERVICE + name,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return method(getattr(pb, f"{name}Request")(**fields), timeout=12)

    def watch(self, service: str, subscriber_id: str = "") -> Watch:
        return Watch(self, service, subscriber_id)

    def status(self, service: str, id_: str) -> str:
        """The word for an instance's status; empty if it is not there."""
        selection = pb.Selection(health=pb.Selection.ALL)
        answer = self("GetInstances", service=named(service), selection=selection)
        found = [each.status for each in answer.instances if each.name.id == id_]
        return pb.Status.Name(found[0]) if found else ""


class Watch:
    """A stream of changes, with the time at which each came."""

    def __init__(self, registry: Registry, service: str, subscriber_id: str) -> None:
        method = registry.channel.unary_stream(
            SERVICE + "Watch",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.WatchResponse.FromString,
        )
        request = pb.WatchRequest(
            service=named(service),
            subscriber_id=subscriber_id,
            selection=pb.Selection(health=pb.Selection.ALL),
        )
        self._call = method(request)
        self._events: queue.Queue[tuple[float, Any]] = queue.Queue()
        self.responses: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._pump, daemon=True).start()
        assert self.responses.get(timeout=10).is_snapshot

    def _pump(self) -> None:
        try:
            for response in self._call:
                self.responses.put(response)
                for event in response.events:
                    self._events.put((time.monotonic(), event))
        except grpc.RpcError as error:
            self.responses.put(error)

    def event(self, timeout_s: float) -> tuple[float, Any]:
        return self._events.get(timeout=timeout_s)

    def close(self) -> None:
        self._call.cancel()


def named(service: str) -> Any:
    return pb.ServiceName(service=service)


def instance(service: str, number: int = 1, *, ttl_s: int = 2, grace_s: int = 2) -> Any:
    return pb.Instance(
        name=pb.InstanceName(service=service, id=f"{service}-{number}"),
        address="10.0.0.1",
        ports=[pb.Port(name="http", number=8080)],
        ttl_s=ttl_s,
        grace_s=grace_s,
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with make_cluster(tmp_path_factory.mktemp("registry"), size=3) as cluster:
        yield cluster


@pytest.fixture
def registries(cluster: Cluster) -> Iterator[list[Registry]]:
    for server in cluster.servers:
        if not server.running:
            server.start()
    leader_of(cluster)
    found = [Registry(server) for server in cluster.servers]
    yield found
    for each in found:
        each.channel.close()


def until(condition: Callable[[], bool], patience_s: float = 10.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_silence_is_found_in_time_and_told_by_every_member(registries: list[Registry]) -> None:
    watches = [each.watch("silence") for each in registries]
    lease = registries[0]("Register", instance=instance("silence")).instance.lease
    for watch in watches:
        assert watch.event(5)[1].event == "registered"
    for turn in range(6):
        time.sleep(0.6)
        before = time.monotonic()
        (ttl,) = registries[turn % 3]("Heartbeat", leases=[lease]).ttl_s
        assert ttl == 2
    heard = time.monotonic()
    for watch in watches:
        at, down = watch.event(6)
        assert (down.event, down.reason.code) == ("unhealthy", "missed_heartbeat")
        assert before + 2 <= at <= heard + 2 + LATE_S
        assert down.instance.status == pb.DOWN
    # A plain keep-alive of the lease counts as well.
    stream = Client(registries[1].channel).keep_alive_stream()
    before = time.monotonic()
    stream.send(rpc_pb2.LeaseKeepAliveRequest(ID=lease))
    assert stream.receive().TTL == 4
    heard = time.monotonic()
    stream.cancel()
    for watch in watches:
        assert watch.event(5)[1].event == "recovered"
        at, down = watch.event(6)
        assert down.event == "unhealthy"
        assert before + 2 <= at <= heard + 2 + LATE_S
        at, gone = watch.event(6)
        assert (gone.event, gone.left) == ("expired", True)
        assert before + 4 <= at <= heard + 4 + LATE_S
        watch.close()
    assert list(registries[2]("Heartbeat", leases=[lease]).ttl_s) == [0]
    events = registries[2]("History", name=pb.InstanceName(service="silence")).events
    assert [each.event.event for each in events] == [
        "registered",
        "unhealthy",
        "recovered",
        "unhealthy",
        "expired",
    ]


def test_a_change_of_leader_removes_nobody_early(
    cluster: Cluster, registries: list[Registry]
) -> None:
    leader = leader_of(cluster)
    others = [r for r, s in zip(registries, cluster.servers, strict=True) if s is not leader]
    watch = others[0].watch("change")
    others[0]("Register", instance=instance("change", ttl_s=3, grace_s=3))
    assert watch.event(5)[1].event == "registered"
    last = time.monotonic()
    time.sleep(1.5)
    leader.kill()
    killed = time.monotonic()
    at, down = watch.event(15)
    assert down.event == "unhealthy"
    # Nobody knows when the old leader heard of it last: the whole time again, and no more.
    assert at >= last + 3
    assert at <= killed + ELECTION_S + 3 + LATE_S
    at, gone = watch.event(15)
    assert gone.event == "expired"
    assert at >= last + 6
    assert at <= killed + ELECTION_S + 6 + LATE_S
    watch.close()


def test_deregistering_waits_for_subscribers_of_all_members(registries: list[Registry]) -> None:
    registries[0]("Register", instance=instance("wait", ttl_s=30))
    until(lambda: all(each.status("wait", "wait-1") for each in registries))
    watches = [each.watch("wait", f"client-{n}") for n, each in enumerate(registries)]

    def acknowledge(registry: Registry, watch: Watch, id_: str) -> None:
        response = watch.responses.get(timeout=10)
        registry("Ack", subscriber_id=id_, service=named("wait"), revision=response.revision)

    threads = [
        threading.Thread(target=acknowledge, args=(registries[n], watches[n], f"client-{n}"))
        for n in (0, 1)
    ]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    gone = registries[1](
        "Deregister",
        name=pb.InstanceName(service="wait", id="wait-1"),
        wait=pb.WaitForSubscribers(timeout_ms=700),
    )
    for thread in threads:
        thread.join()
    told = gone.acknowledged
    assert not told.complete
    assert told.acknowledged == 2
    assert [each.id for each in told.laggards] == ["client-2"]
    assert 0.6 < time.monotonic() - began < 3
    for watch in watches:
        watch.close()


def test_without_a_quorum_everybody_reads_and_nobody_writes(
    cluster: Cluster, registries: list[Registry]
) -> None:
    registries[0]("Register", instance=instance("quorum", ttl_s=3, grace_s=60))
    until(lambda: all(each.status("quorum", "quorum-1") for each in registries))
    left, *gone = cluster.servers
    watch = registries[0].watch("quorum")
    for server in gone:
        server.kill()
    until(lambda: registries[0]("ListServices").header.no_leader)
    # Longer than its TTL: without a leader nobody falls silent.
    time.sleep(4)
    assert registries[0].status("quorum", "quorum-1") == "UP"
    name = pb.InstanceName(service="quorum", id="quorum-1")
    explained = registries[0]("Explain", name=name)
    assert explained.routable
    assert explained.header.no_leader
    response = watch.responses.get(timeout=5)
    assert response.is_progress
    assert response.header.no_leader
    watch.close()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        refused = [
            pool.submit(registries[0], "Register", instance=instance("quorum", 2)),
            pool.submit(registries[0], "Deregister", name=name),
        ]
        for call in refused:
            with pytest.raises(grpc.RpcError) as raised:
                call.result()
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "need a leader and a quorum" in (raised.value.details() or "")
    for server in gone:
        server.start()
    leader_of(cluster)
    # With a leader its silence counts again, from the beginning.
    until(lambda: registries[1].status("quorum", "quorum-1") == "DOWN")
    assert left.running


def test_instances_outlive_a_restart_of_the_whole_cluster(tmp_path: Path) -> None:
    with make_cluster(tmp_path) as cluster:
        (server,) = cluster.servers
        registry = Registry(server)
        registered = registry("Register", instance=instance("restart", ttl_s=3)).instance
        watch = registry.watch("restart")
        server.kill()
        server.start()
        until(lambda: registry.status("restart", "restart-1") == "UP")
        assert list(registry("Heartbeat", leases=[registered.lease]).ttl_s) == [3]
        again = registry("Register", instance=instance("restart", ttl_s=3))
        assert (again.created, again.instance.lease) == (False, registered.lease)
        watch.close()
        # An orderly stop tells those who watch at once.
        watch = registry.watch("restart")
        server.stop()
        responses = iter(lambda: watch.responses.get(timeout=5), None)
        error = next(each for each in responses if isinstance(each, grpc.RpcError))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        registry.channel.close()
