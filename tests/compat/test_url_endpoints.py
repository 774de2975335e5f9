"""Debian's etcdctl with endpoints given as URLs: its connections then name a URL as authority."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.servers import Server, make_cluster
from tests.support.tools import require

pytestmark = [pytest.mark.compat, pytest.mark.timeout(120)]


def etcdctl(endpoint: str, *arguments: str) -> str:
    done = subprocess.run(
        [require("etcdctl"), f"--endpoints=http://{endpoint}", "--dial-timeout=2s", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={"ETCDCTL_API": "3"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def leader_of(servers: list[Server]) -> tuple[Server, int, list[int]]:
    """The leading server, its id, and the ids of the others."""
    found: tuple[Server, int] | None = None
    others = []
    for server in servers:
        status = json.loads(etcdctl(server.endpoint, "endpoint", "status", "-w", "json"))[0]
        member = status["Status"]["header"]["member_id"]
        if status["Status"]["leader"] == member:
            found = server, member
        else:
            others.append(member)
    assert found is not None
    return *found, others


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_every_maintenance_command(transport: str, tmp_path: Path) -> None:
    with make_cluster(tmp_path, size=3, extra=(f"--transport={transport}",)) as cluster:
        leader, _, others = leader_of(cluster.servers)
        endpoint = leader.endpoint
        assert etcdctl(endpoint, "put", "k", "v") == "OK\n"
        assert etcdctl(endpoint, "get", "k") == "k\nv\n"
        assert f"http://{endpoint}, " in etcdctl(endpoint, "endpoint", "status")
        assert f"http://{endpoint}, " in etcdctl(endpoint, "endpoint", "hashkv")
        assert "Finished defragmenting" in etcdctl(endpoint, "defrag")
        assert etcdctl(endpoint, "alarm", "list") == ""
        assert etcdctl(endpoint, "member", "list").count("started") == 3
        target = f"{others[0]:x}"
        assert target in etcdctl(endpoint, "move-leader", target)
        assert leader_of(cluster.servers)[1] == others[0]


def test_the_client_port_answers_http_too(tmp_path: Path) -> None:
    with make_cluster(tmp_path, extra=("--transport=http2",)) as cluster:
        endpoint = cluster.servers[0].endpoint
        etcdctl(endpoint, "put", "k", "v")
        for path, text in (
            ("health", '"health":"true"'),
            ("version", "etcdserver"),
            ("metrics", "etcd_server_has_leader 1"),
        ):
            with urllib.request.urlopen(f"http://{endpoint}/{path}", timeout=5) as answer:
                assert text in answer.read().decode()


def test_http_moves_away_from_the_client_port_when_told_so(tmp_path: Path) -> None:
    port = "--listen-client-http-urls=http://127.0.0.1:0"
    with make_cluster(tmp_path, extra=("--transport=http2", port)) as cluster:
        endpoint = cluster.servers[0].endpoint
        etcdctl(endpoint, "put", "k", "v")
        with pytest.raises(urllib.error.HTTPError, match="505"):
            urllib.request.urlopen(f"http://{endpoint}/health", timeout=5)
