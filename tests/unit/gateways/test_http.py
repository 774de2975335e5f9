"""The HTTP endpoints over a made-up member: bodies, codes and headers as etcd's."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from kvstore.errors import TIMEOUT, EtcdError
from kvstore.gateways.http.app import make_app
from kvstore.gateways.http.collectors import HealthCollector, NodeCollector, OsCollector
from kvstore.gateways.http.health import HealthChecks
from kvstore.gateways.http.server import HttpServer
from kvstore.metrics import Metrics
from kvstore.pb import rpc_pb2

NOSPACE, CORRUPT = rpc_pb2.AlarmType.NOSPACE, rpc_pb2.AlarmType.CORRUPT

STARRED = [
    "etcd_disk_backend_commit_duration_seconds_bucket",
    "etcd_disk_wal_fsync_duration_seconds_bucket",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_server_has_leader",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_server_quota_backend_bytes",
    "process_resident_memory_bytes",
]
"""What the official dashboard reads, but for gRPC calls (the API's tests) and labels by peer."""

STARRED_BY_PEER = [
    "etcd_network_peer_received_bytes_total",
    "etcd_network_peer_round_trip_time_seconds",
    "etcd_network_peer_sent_bytes_total",
    "etcd_network_peer_sent_failures_total",
]


@dataclass
class FakeStatus:
    version: str = "3.6.0"
    db_size: int = 1_000
    db_in_use: int = 600
    leader: int = 0xB
    raft_index: int = 42
    raft_term: int = 3
    applied_index: int = 41
    is_learner: bool = False
    storage_version: str = "3.6.0"
    quota: int = 2_000


@dataclass
class FakeWatches:
    streams: int = 1
    watchers: int = 5
    slow_watchers: int = 2
    pending: int = 7


@dataclass
class FakeNode:
    member_id: int = 0xA
    leader_id: int = 0xB
    is_leader: bool = False
    is_learner: bool = False
    revision: int = 99
    compact_revision: int = 50
    cluster_version: str = "3.6.0"
    pending_proposals: int = 4
    remote_members: Sequence[int] = (0xB, 0xC)
    connected_members: Sequence[int] = (0xB,)
    lease_count: int = 3
    active_alarms: list[tuple[int, int]] = field(default_factory=list)
    linear_error: EtcdError | None = None
    local_error: EtcdError | None = None
    silent: bool = False
    requests: list[Any] = field(default_factory=list)
    watches: FakeWatches = field(default_factory=FakeWatches)

    def range(self, request: Any, done: Callable[[Any, EtcdError | None], None]) -> None:
        self.requests.append(request)
        error = self.local_error if request.serializable else self.linear_error
        if not self.silent:
            done(None if error else b"", error)

    def alarms(self) -> list[tuple[int, int]]:
        return self.active_alarms

    def status(self) -> FakeStatus:
        return FakeStatus(leader=self.leader_id)


Ask = Callable[[str], Awaitable[tuple[int, str, Any]]]


def serve(node: FakeNode, test: Callable[[Ask, Metrics], Awaitable[None]], **options: Any) -> None:
    """Runs `test` against the endpoints on a real socket."""

    async def run() -> None:
        metrics = Metrics()
        for collector in (NodeCollector(node), HealthCollector(metrics), OsCollector()):
            metrics.registry.register(collector)
        checks = HealthChecks(node, metrics, timeout_s=0.05)
        server = HttpServer(make_app(node, metrics, checks, **options))
        await server.prepare()
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        await server.start([listener])
        async with aiohttp.ClientSession() as session:

            async def ask(
                path: str, method: str = "GET", headers: dict[str, str] | None = None
            ) -> tuple[int, str, Any]:
                url = f"http://127.0.0.1:{port}{path}"
                async with session.request(method, url, headers=headers) as answer:
                    return answer.status, await answer.text(), answer.headers

            await test(ask, metrics)
        await server.stop()

    asyncio.run(run())


def get(node: FakeNode, path: str, **request: Any) -> tuple[int, str, Any]:
    answers = []

    async def test(ask: Any, _metrics: Metrics) -> None:
        answers.append(await ask(path, **request))

    serve(node, test)
    return answers[0]


def test_a_well_member_is_healthy() -> None:
    node = FakeNode()
    status, body, _ = get(node, "/health")
    assert (status, body) == (200, '{"health":"true","reason":""}')
    assert [r.serializable for r in node.requests] == [False]


@pytest.mark.parametrize(
    ("node", "path", "status", "reason"),
    [
        (FakeNode(active_alarms=[(1, NOSPACE)]), "/health", 503, "ALARM NOSPACE"),
        (FakeNode(active_alarms=[(1, CORRUPT)]), "/health", 503, "ALARM CORRUPT"),
        (FakeNode(active_alarms=[(1, NOSPACE)]), "/health?exclude=NOSPACE", 200, ""),
        (
            FakeNode(active_alarms=[(1, NOSPACE), (2, CORRUPT)]),
            "/health?exclude=NOSPACE",
            503,
            "ALARM CORRUPT",
        ),
        (
            FakeNode(active_alarms=[(1, NOSPACE), (2, CORRUPT)]),
            "/health?exclude=NOSPACE&exclude=CORRUPT",
            200,
            "",
        ),
        (FakeNode(leader_id=0), "/health", 503, "RAFT NO LEADER"),
        (FakeNode(leader_id=0, linear_error=TIMEOUT), "/health?serializable=true", 200, ""),
        (
            FakeNode(linear_error=TIMEOUT),
            "/health",
            503,
            "RANGE ERROR:etcdserver: request timed out",
        ),
        (FakeNode(silent=True), "/health", 503, "RANGE ERROR:context deadline exceeded"),
        (FakeNode(leader_id=0, active_alarms=[(1, CORRUPT)]), "/health", 503, "ALARM CORRUPT"),
    ],
)
def test_health_and_its_reasons(node: FakeNode, path: str, status: int, reason: str) -> None:
    health = "true" if status == 200 else "false"
    answer = get(node, path)
    assert answer[:2] == (status, f'{{"health":"{health}","reason":"{reason}"}}')


def test_livez_and_readyz_of_a_well_member() -> None:
    status, body, headers = get(FakeNode(), "/livez")
    assert (status, body) == (200, "ok\n")
    assert headers["Content-Type"].startswith("text/plain")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert get(FakeNode(), "/readyz?verbose")[1] == (
        "[+]data_corruption ok\n[+]serializable_read ok\n"
        "[+]linearizable_read ok\n[+]non_learner ok\nok\n"
    )


@pytest.mark.parametrize(
    ("node", "path", "status", "body"),
    [
        (FakeNode(linear_error=TIMEOUT, leader_id=0), "/livez", 200, "ok\n"),
        (
            FakeNode(local_error=TIMEOUT),
            "/livez",
            503,
            "[-]serializable_read failed: etcdserver: request timed out\n",
        ),
        (FakeNode(active_alarms=[(1, NOSPACE)]), "/readyz", 200, "ok\n"),
        (
            FakeNode(active_alarms=[(1, CORRUPT)]),
            "/readyz",
            503,
            (
                "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n"
                "[+]linearizable_read ok\n[+]non_learner ok\n"
            ),
        ),
        (
            FakeNode(active_alarms=[(1, CORRUPT)]),
            "/readyz?exclude=data_corruption&verbose",
            200,
            (
                "[+]data_corruption excluded: ok\n[+]serializable_read ok\n"
                "[+]linearizable_read ok\n[+]non_learner ok\nok\n"
            ),
        ),
        (
            FakeNode(is_learner=True),
            "/readyz/non_learner",
            503,
            "[-]non_learner failed: not supported for learner\n",
        ),
        (FakeNode(is_learner=True), "/readyz/linearizable_read", 200, "ok\n"),
        (FakeNode(), "/livez/serializable_read", 200, "ok\n"),
    ],
)
def test_the_checks_one_by_one(node: FakeNode, path: str, status: int, body: str) -> None:
    assert get(node, path)[:2] == (status, body)


def test_a_check_that_does_not_exist_is_not_found() -> None:
    assert get(FakeNode(), "/livez/linearizable_read")[0] == 404
    assert get(FakeNode(), "/readyz/nothing")[0] == 404


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/metrics", "/version"])
@pytest.mark.parametrize("method", ["POST", "DELETE", "HEAD"])
def test_other_methods_than_get_are_answered_with_allow(path: str, method: str) -> None:
    status, _, headers = get(FakeNode(), path, method=method)
    assert (status, headers["Allow"]) == (405, "GET")


def test_the_version_and_a_cluster_that_has_not_decided() -> None:
    assert get(FakeNode(), "/version")[1] == (
        '{"etcdserver":"3.6.0","etcdcluster":"3.6.0","storage":"3.6.0"}'
    )
    assert '"etcdcluster":"not_decided"' in get(FakeNode(cluster_version=""), "/version")[1]


def test_a_listener_for_measurements_has_no_version() -> None:
    async def test(ask: Any, _metrics: Metrics) -> None:
        assert (await ask("/version"))[0] == 404
        assert (await ask("/metrics"))[0] == 200

    serve(FakeNode(), test, with_version=False)


def test_hosts_that_are_not_listed_are_misdirected() -> None:
    async def test(ask: Any, _metrics: Metrics) -> None:
        for host, status in (
            ("kv.example", 200),
            ("kv.example:2381", 200),
            ("[::1]:2381", 200),
            ("evil.example", 421),
            ("kv.example.evil", 421),
        ):
            assert (await ask("/version", headers={"Host": host}))[0] == status, host

    serve(FakeNode(), test, hosts=("kv.example", "::1"))


def test_pages_may_call_as_cors_says() -> None:
    async def test(ask: Any, _metrics: Metrics) -> None:
        _, _, headers = await ask("/version", headers={"Origin": "https://a.example"})
        assert headers["Access-Control-Allow-Origin"] == "https://a.example"
        _, _, headers = await ask("/version", headers={"Origin": "https://b.example"})
        assert "Access-Control-Allow-Origin" not in headers
        status, _, headers = await ask("/nowhere", headers={"Origin": "https://a.example"})
        assert (status, headers["Access-Control-Allow-Origin"]) == (404, "https://a.example")

    serve(FakeNode(), test, origins=("https://a.example",))
    status, body, headers = get(FakeNode(), "/health", method="OPTIONS")
    assert (status, body) == (200, "")
    assert headers["Access-Control-Allow-Methods"] == "POST, GET, OPTIONS, PUT, DELETE"
    assert headers["Access-Control-Allow-Origin"] == "*"


def sample(text: str, name: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith(name + " ")]
    assert len(lines) == 1, (name, lines)
    return float(lines[0].split()[-1])


def test_metrics_have_the_starred_names_and_true_values() -> None:
    text = get(FakeNode(active_alarms=[(10, NOSPACE)]), "/metrics")[1]
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[:1] != "#"}
    assert [name for name in STARRED if name not in names] == []
    types = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert [name for name in STARRED_BY_PEER if name not in types] == []
    for name, value in (
        ("etcd_server_has_leader", 1),
        ("etcd_server_is_leader", 0),
        ('etcd_server_id{server_id="a"}', 1),
        ('etcd_server_version{server_version="3.6.0"}', 1),
        ('etcd_cluster_version{cluster_version="3.6"}', 1),
        ("etcd_server_proposals_committed_total", 42),
        ("etcd_server_proposals_applied_total", 41),
        ("etcd_server_proposals_pending", 4),
        ("etcd_server_quota_backend_bytes", 2000),
        ("etcd_mvcc_db_total_size_in_bytes", 1000),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", 600),
        ("etcd_debugging_mvcc_current_revision", 99),
        ("etcd_debugging_mvcc_compact_revision", 50),
        ("etcd_debugging_mvcc_watcher_total", 5),
        ("etcd_debugging_mvcc_slow_watcher_total", 2),
        ('etcd_debugging_server_alarms{alarm_type="NOSPACE",server_id="a"}', 1),
        ('etcd_network_known_peers{Local="a",Remote="b"}', 1),
        ('etcd_network_known_peers{Local="a",Remote="c"}', 1),
        ('etcd_network_active_peers{Local="a",Remote="b"}', 1),
    ):
        assert sample(text, name) == value, name
    assert sample(text, "os_fd_limit") >= sample(text, "os_fd_used") > 2
    assert "_created" not in text


def test_health_checks_are_counted() -> None:
    async def test(ask: Any, _metrics: Metrics) -> None:
        await ask("/health")
        await ask("/health?exclude=NOSPACE")
        await ask("/readyz/linearizable_read")
        text = (await ask("/metrics"))[1]
        assert sample(text, "etcd_server_health_success") == 2
        assert sample(text, "etcd_server_health_failures") == 0
        labels = 'name="linearizable_read",status="success",type="readyz"'
        assert sample(text, f"etcd_server_healthchecks_total{{{labels}}}") == 1

    serve(FakeNode(), test)


def test_an_ill_that_lasts_is_logged_once_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = FakeNode(leader_id=0)

    async def test(ask: Any, _metrics: Metrics) -> None:
        for leader in (0, 0, 0xB, 0xB, 0):
            node.leader_id = leader
            await ask("/health")

    caplog.set_level(logging.INFO, "kvstore")
    serve(node, test)
    assert caplog.messages == [
        "the health check fails: RAFT NO LEADER",
        "the health check is well again",
        "the health check fails: RAFT NO LEADER",
    ]
