"""The real command as a process: ready, answering, stopping, refusing with its exit codes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from kvstore.pb import rpc_pb2

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
READY = "ready to serve client requests"


def free_ports(count: int) -> list[int]:
    """Ports that nobody had a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def kvstore(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kvstore.cli.main", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )


def serve_flags(data_dir: Path, client: int, peer: int, http: int) -> list[str]:
    return [
        "serve",
        f"--data-dir={data_dir}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-client-http-urls=http://127.0.0.1:{http}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
    ]


@contextmanager
def server(data_dir: Path, ports: list[int], *flags: str) -> Iterator[subprocess.Popen[str]]:
    process = kvstore(*serve_flags(data_dir, *ports), *flags)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if READY in line:
                break
        else:
            raise AssertionError("the server ended before it was ready")
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("transport", ["grpcio", "native", "http2"])
def test_it_serves_stops_and_goes_on_where_it_was(tmp_path: Path, transport: str) -> None:
    if transport == "native":
        pytest.importorskip("pygrpc_native")
    ports = free_ports(3)
    for turn in range(2):
        with server(tmp_path, ports, f"--transport={transport}") as process:
            with grpc.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
                put = channel.unary_unary("/etcdserverpb.KV/Put")
                body = put(rpc_pb2.PutRequest(key=b"k").SerializeToString(), timeout=10)
                assert rpc_pb2.PutResponse.FromString(body).header.revision == 2 + turn
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[2]}/readyz") as answer:
                assert answer.read() == b"ok\n"
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=15)
        assert process.returncode == 0
        assert json.loads(output.splitlines()[-1])["msg"] == "stopped"


def test_refusals_have_their_exit_codes_and_a_sentence(tmp_path: Path) -> None:
    ports = free_ports(3)
    with server(tmp_path / "a", ports):
        client, peer, http = free_ports(3)
        for directory, these, code, said in (
            ("b", (ports[0], peer, http), 1, "--listen-client-urls"),
            ("b", (client, ports[1], http), 1, f"127.0.0.1:{ports[1]}"),
            ("b", (client, peer, ports[2]), 1, "--listen-client-http-urls"),
            ("a", (client, peer, http), 3, "is in use by process"),
        ):
            process = kvstore(*serve_flags(tmp_path / directory, *these))
            output, _ = process.communicate(timeout=20)
            assert (process.returncode, said in output) == (code, True), output
            assert "Traceback" not in output


def test_a_local_cluster_comes_up_and_leaves_nothing_behind(tmp_path: Path) -> None:
    base = 20_100
    process = kvstore("local", "--nodes=3", f"--data={tmp_path}", f"--base-port={base}", "--once")
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 0, output
    assert "3 members are ready" in output
    assert "serving anyway" not in output, "no leader was elected"
    assert output.rstrip().endswith("all stopped")
    for name in ("node1", "node2", "node3"):
        check = kvstore("check", f"--data-dir={tmp_path / name}")
        checked, _ = check.communicate(timeout=20)
        assert (check.returncode, checked.splitlines()[-1]) == (0, "clean")
