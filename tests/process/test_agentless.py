"""Agentless checks of real members: through the API, and after kill -9 of the one that checks."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.client.errors import KvError
from kvstore.client.registry import Check, Health, HttpCheck, Instance, Selection, Status
from kvstore.registry.names import CHECKERS_PREFIX, InstanceName, checker_of_key
from kvstore.registry.sharding import responsible
from tests.support.agents import await_that
from tests.support.servers import make_cluster

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

ALL = Selection(health=Health.ALL)


class Service(http.server.ThreadingHTTPServer):
    """Answers with `status`; notes when it was asked."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[float] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.asked.append(time.monotonic())
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:
        """Not in the tests' output."""


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_the_member_that_checks_dies(
    tmp_path: Path, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ("--enable-agentless-checks",)
    with make_cluster(tmp_path, size=3, extra=extra) as cluster:
        client = Client(cluster.endpoints)
        with client:
            await_that(
                lambda: len(client.get_prefix(CHECKERS_PREFIX).kvs) == 3, "all members take part"
            )
            keys = client.get_prefix(CHECKERS_PREFIX).kvs
            members = {checker_of_key(each.key): each.value.decode() for each in keys}
            wanted = Instance(
                service="legacy",
                id="legacy-1",
                address="127.0.0.1",
                ports={"http": service.server_port},
                ttl_s=9,
                checks=(Check(HttpCheck("/"), interval_s=1.0, unhealthy_after=2),),
            )
            client.registry.register_instance(wanted)
            await_that(lambda: len(service.asked) >= 2, "it is checked")
            name = InstanceName("default", "legacy", "legacy-1")
            owner = members[responsible(name, members)]
            (victim,) = [each for each in cluster.servers if each.name == owner]
            victim.kill()
            killed = time.monotonic()
            await_that(
                lambda: service.asked[-1] > killed + 1.5, "another member goes on", timeout_s=30.0
            )
            first = next(at for at in service.asked if at > killed + 0.1)
            with capsys.disabled():
                print(f"\n  killed the member that checked: {first - killed:.1f} s until the next")
            (instance,) = client.registry.get_instances("legacy", selection=ALL)
            assert instance.status is Status.UP
            history = client.registry.history("legacy", id="legacy-1")
            assert "unhealthy" not in [each.event.event for each in history.events]
            service.status = 500
            await_that(
                lambda: (
                    [
                        each.reason.text
                        for each in client.registry.get_instances("legacy", selection=ALL)
                        if each.status is Status.DOWN
                    ]
                    == ["http: HTTP 500 Internal Server Error"]
                ),
                "what the other member finds is written down",
            )
            (instance,) = client.registry.get_instances("legacy", selection=ALL)
            assert instance.checks[0].probe == HttpCheck("/", "GET")


def test_a_cluster_that_runs_no_checks_refuses_them(tmp_path: Path) -> None:
    with make_cluster(tmp_path) as cluster, Client(cluster.endpoints) as client:
        wanted = Instance(service="a", address="h", ports={"x": 1}, checks=(Check(HttpCheck("/")),))
        with pytest.raises(KvError, match="--enable-agentless-checks"):
            client.registry.register_instance(wanted)
        assert not client.registry.get_instances("a", selection=ALL).instances


def test_only_the_networks_that_were_named_are_checked(tmp_path: Path, service: Service) -> None:
    extra = ("--enable-agentless-checks", "--check-allow-cidr=10.0.0.0/8")
    with make_cluster(tmp_path, extra=extra) as cluster, Client(cluster.endpoints) as client:
        wanted = Instance(
            service="legacy",
            address="127.0.0.1",
            ports={"http": service.server_port},
            checks=(Check(HttpCheck("/"), interval_s=1.0, unhealthy_after=1),),
        )
        client.registry.register_instance(wanted)

        def found() -> bool:
            (instance,) = client.registry.get_instances("legacy", selection=ALL)
            outside = "lies outside of the networks that checks may reach"
            return instance.status is Status.DOWN and outside in instance.reason.text

        await_that(found, "the refusal is written down")
        assert not service.asked
