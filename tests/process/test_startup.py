"""Starting wrong: each mistake gets a sentence and an exit code, and nothing is lost."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.rpc import Rpc
from tests.support.servers import KVSTORE, Server, free_ports, make_cluster

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


def ends_with(server: Server, *patterns: str) -> int:
    """Starts a server that must end by itself; its log must say all of this; the exit code."""
    server.start(wait=False)
    code = server.wait(20)
    log = server.log()
    for pattern in patterns:
        assert re.search(pattern, log, flags=re.I), f"{pattern!r} is not in:\n{log[-3000:]}"
    assert "Traceback" not in log, log[-3000:]
    return code


def test_used_client_port(tmp_path: Path) -> None:
    with make_cluster(tmp_path) as cluster:
        running = cluster.servers[0]
        _, peer, http = free_ports(3)
        second = replace(
            running, name="other", peer_port=peer, http_port=http, process=None,
            cluster=f"other=http://127.0.0.1:{peer}",
        )  # fmt: skip
        assert ends_with(second, rf"{running.client_port}.*(in use|listens there)") == 1
        with Rpc(running.endpoint) as rpc:
            rpc.put("still", "alive")


def test_used_peer_port(tmp_path: Path) -> None:
    with make_cluster(tmp_path) as cluster:
        running = cluster.servers[0]
        client, _, http = free_ports(3)
        second = replace(
            running, name="other", client_port=client, http_port=http, process=None,
            cluster=f"other=http://127.0.0.1:{running.peer_port}",
        )  # fmt: skip
        assert ends_with(second, rf"{running.peer_port}.*(in use|used|listens there already)") == 1


def test_data_directory_in_use(tmp_path: Path) -> None:
    with make_cluster(tmp_path) as cluster:
        running = cluster.servers[0]
        assert running.process is not None
        client, peer, http = free_ports(3)
        second = replace(
            running, client_port=client, peer_port=peer, http_port=http, process=None,
            cluster=f"n1=http://127.0.0.1:{peer}",
        )  # fmt: skip
        assert ends_with(second, rf"in use.*{running.process.pid}|{running.process.pid}.*in use")
        with Rpc(running.endpoint) as rpc:
            rpc.put("still", "alive")


def test_restart_keeps_what_was_written(tmp_path: Path) -> None:
    with make_cluster(tmp_path) as cluster:
        server = cluster.servers[0]
        with Rpc(server.endpoint) as rpc:
            for number in range(50):
                rpc.put(f"k{number}", f"v{number}")
            server.kill()
            server.start()
            assert rpc.get("k49") == b"v49"
            assert server.stop() == 0
            server.start()
            assert rpc.range("k", "l", count_only=True).count == 50
            assert rpc.put("k0", "again").header.revision == 52


def test_sigterm_hands_leadership_over(tmp_path: Path) -> None:
    with make_cluster(tmp_path, size=3) as cluster:
        from tests.support.traffic import leader_of

        leader = leader_of(cluster)
        began = time.monotonic()
        assert leader.stop() == 0
        leader_of(cluster)
        took = time.monotonic() - began
        # An election by timeout would need a second at the least, after the process has gone.
        assert took < 3
        follower = next(s for s in cluster.servers if s.running)
        with Rpc(follower.endpoint) as rpc:
            rpc.put("after", "handover")


def test_damaged_log_is_refused_and_never_cut(tmp_path: Path) -> None:
    with make_cluster(tmp_path) as cluster:
        server = cluster.servers[0]
        with Rpc(server.endpoint) as rpc:
            for number in range(200):
                rpc.put(f"k{number}", "v" * 100)
        server.kill()
        segments = sorted((server.data_dir / "member" / "wal").iterdir())
        segment = max(segments, key=lambda p: len(p.read_bytes().rstrip(b"\0")))
        content = bytearray(segment.read_bytes())
        middle = len(content.rstrip(b"\0")) // 2
        content[middle] ^= 0x10
        segment.write_bytes(content)
        assert ends_with(server, r"corrupt|damaged", segment.name, r"replace|member") != 0
        assert segment.read_bytes() == bytes(content), "a damaged log must not be touched"
        checked = subprocess.run(
            [*KVSTORE[:-1], "check", "--data-dir", str(server.data_dir)],
            capture_output=True,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        assert checked.returncode == 1, checked.stdout + checked.stderr
        assert segment.name in checked.stdout + checked.stderr


def test_lost_database_file_is_rebuilt(tmp_path: Path) -> None:
    with make_cluster(tmp_path) as cluster:
        server = cluster.servers[0]
        with Rpc(server.endpoint) as rpc:
            for number in range(300):
                rpc.put(f"k{number}", f"v{number}")
            before = rpc.hash_kv().hash
        server.kill()
        shutil.rmtree(server.data_dir / "member" / "db")
        server.start()
        with Rpc(server.endpoint) as rpc:
            assert rpc.hash_kv().hash == before
            assert rpc.get("k299") == b"v299"
