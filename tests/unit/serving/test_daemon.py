"""A whole server in this process, over a real member: start, ports, signals, exit codes."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from kvstore import daemon
from kvstore.metrics import Metrics
from kvstore.node.config import NodeConfig
from kvstore.node.errors import StopKind, StopReason
from kvstore.node.node import Node
from kvstore.pb import rpc_pb2
from kvstore.serving.config import build_config
from kvstore.serving.exits import ExitCode
from kvstore.serving.logging import JsonFormatter, LogWriter
from kvstore.serving.settings import read_settings
from kvstore.storage.errors import DiskFailed
from tests.unit.serving.lonely import lonely_node


class Log(logging.Handler):
    """Keeps records, and knows when the ready line came."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.ready = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if record.getMessage() == daemon.READY_LINE:
            self.ready.set()

    def field(self, message: str, name: str) -> Any:
        return next(vars(r)[name] for r in self.records if r.getMessage() == message)

    @property
    def text(self) -> str:
        return "\n".join(record.getMessage() for record in self.records)


@pytest.fixture
def log() -> Iterator[Log]:
    handler = Log()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


Visit = Callable[[Log], Awaitable[None]]


def run(
    log: Log,
    data_dir: Path,
    *flags: str,
    visit: Visit | None = None,
    make_node: daemon.MakeNode = lonely_node,
) -> int:
    """Runs a server until it ends; `visit` is called once it is ready."""
    argv = [
        f"--data-dir={data_dir}",
        "--listen-client-urls=http://127.0.0.1:0",
        "--listen-peer-urls=http://127.0.0.1:0",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--transport=grpcio",
        *flags,
    ]
    config = build_config(read_settings(argv, {}))
    log.ready = asyncio.Event()

    async def main() -> int:
        async def visiting() -> None:
            await log.ready.wait()
            try:
                if visit is not None:
                    await visit(log)
            except Exception:
                os.kill(os.getpid(), signal.SIGTERM)
                raise
            os.kill(os.getpid(), signal.SIGTERM)

        guest = asyncio.create_task(visiting())
        writer = LogWriter([], JsonFormatter())
        try:
            async with asyncio.timeout(20):
                code = await daemon.run(config, writer, make_node)
        finally:
            writer.stop()
            if not guest.done():
                guest.cancel()
        if guest.done() and not guest.cancelled():
            guest.result()
        return code

    return asyncio.run(main())


def address(log: Log) -> str:
    return str(log.field(daemon.READY_LINE, "addresses")[0])


async def put(log: Log, key: bytes, value: bytes) -> None:
    async with grpc.aio.insecure_channel(address(log)) as channel:
        call = channel.unary_unary("/etcdserverpb.KV/Put")
        await call(rpc_pb2.PutRequest(key=key, value=value).SerializeToString())


def test_a_server_answers_and_stops_when_told(log: Log, tmp_path: Path) -> None:
    async def visit(log: Log) -> None:
        await put(log, b"secret-key", b"secret-value")
        http = log.field(daemon.READY_LINE, "http")[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{http}/health") as answer:
                assert await answer.text() == '{"health":"true","reason":""}'
            async with session.get(f"http://{http}/version") as answer:
                assert '"etcdserver":"3.6.0"' in await answer.text()
            async with session.get(f"http://{http}/metrics") as answer:
                text = await answer.text()
        method = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"'
        assert f"grpc_server_started_total{{{method}}} 1.0" in text
        assert f'grpc_server_handled_total{{grpc_code="OK",{method}}} 1.0' in text
        missing = method.replace("Put", "DeleteRange")
        assert f"grpc_server_started_total{{{missing}}} 0.0" in text
        assert "etcd_server_has_leader 1.0" in text

    assert run(log, tmp_path / "d", visit=visit) == 0
    assert log.text.count(daemon.READY_LINE) == 1
    assert log.text.endswith("stopped")
    assert "secret" not in log.text
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700


def test_what_was_written_is_there_after_a_restart(log: Log, tmp_path: Path) -> None:
    async def write(log: Log) -> None:
        await put(log, b"k", b"v")

    async def read(log: Log) -> None:
        async with grpc.aio.insecure_channel(address(log)) as channel:
            call = channel.unary_unary("/etcdserverpb.KV/Range")
            body = await call(rpc_pb2.RangeRequest(key=b"k").SerializeToString())
        assert rpc_pb2.RangeResponse.FromString(body).kvs[0].value == b"v"

    assert run(log, tmp_path, visit=write) == 0
    log.records.clear()
    assert run(log, tmp_path, visit=read) == 0


def test_a_taken_client_port_is_found_before_the_data_directory_is_made(
    log: Log, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flag = f"--listen-client-urls=http://127.0.0.1:{port}"
        assert run(log, tmp_path / "d", flag) == ExitCode.FAILED
    assert f"cannot listen on http://127.0.0.1:{port}: the port is in use" in log.text
    assert "--listen-client-urls" in log.text
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("name", ["listen-client-http-urls", "listen-metrics-urls"])
def test_a_taken_http_port_is_named(log: Log, tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(log, tmp_path, f"--{name}=http://127.0.0.1:{port}") == ExitCode.FAILED
    assert f"cannot listen on http://127.0.0.1:{port}: the port is in use" in log.text
    assert f"--{name}" in log.text


def test_a_data_directory_that_is_a_file(log: Log, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    assert run(log, tmp_path / "f") == ExitCode.DATA_DIR
    assert "is a file" in log.text
    log.records.clear()
    assert run(log, tmp_path / "f" / "d") == ExitCode.DATA_DIR
    assert "cannot create the data directory" in log.text


def test_a_data_directory_in_use(log: Log, tmp_path: Path) -> None:
    async def visit(log: Log) -> None:
        config = build_config(read_settings([f"--data-dir={tmp_path}"], {}))
        with pytest.raises(Exception, match=str(os.getpid())) as caught:
            await lonely_node(config.node, Metrics()).start()
        assert daemon._startup_code(caught.value) is ExitCode.DATA_DIR

    assert run(log, tmp_path, visit=visit) == 0


def test_a_log_that_is_damaged(log: Log, tmp_path: Path) -> None:
    async def write(log: Log) -> None:
        for number in range(50):
            await put(log, b"k%d" % number, b"v" * 200)

    assert run(log, tmp_path, visit=write) == 0
    log.records.clear()
    segment = sorted((tmp_path / "member" / "wal").iterdir())[0]
    raw = bytearray(segment.read_bytes())
    raw[raw.index(b"k7")] ^= 1
    segment.write_bytes(raw)
    assert run(log, tmp_path) == ExitCode.CORRUPT
    assert segment.name in log.text


def test_a_directory_of_another_member(log: Log, tmp_path: Path) -> None:
    assert run(log, tmp_path) == 0
    log.records.clear()
    url = "http://127.0.0.1:9999"
    flags = (f"--initial-advertise-peer-urls={url}", f"--initial-cluster=default={url}")
    assert run(log, tmp_path, *flags) == ExitCode.OTHER_CLUSTER
    assert "belongs to member" in log.text


class Ends(Node):
    """A member that stops by itself right after its start."""

    reason = StopReason(StopKind.ASKED, "")

    async def start(self) -> None:
        await super().start()
        asyncio.get_running_loop().call_later(0.2, self._fail, self.reason)

    @staticmethod
    async def outlast(_log: Log) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (StopKind.REMOVED, ExitCode.STOPPED),
        (StopKind.DISK, ExitCode.DISK_FAILED),
        (StopKind.STORE, ExitCode.CORRUPT),
        (StopKind.BUG, ExitCode.FAILED),
    ],
)
def test_a_member_that_must_stop_says_why(
    log: Log, tmp_path: Path, kind: StopKind, code: ExitCode
) -> None:
    class ThisEnds(Ends):
        reason = StopReason(kind, "the sentence for the operator")

    from tests.unit.serving.lonely import NoNetwork

    def make(config: NodeConfig, metrics: Metrics) -> Node:
        return ThisEnds(config, metrics, network=NoNetwork())

    assert run(log, tmp_path, visit=Ends.outlast, make_node=make) == code
    assert "the sentence for the operator" in log.text


def test_a_member_without_a_quorum_serves_after_a_while_and_says_so(
    log: Log, tmp_path: Path
) -> None:
    other = "http://127.0.0.1:9998"
    cluster = f"--initial-cluster=default=http://localhost:2380,other={other}"

    async def visit(log: Log) -> None:
        http = log.field(daemon.READY_LINE, "http")[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{http}/health") as answer:
                assert (answer.status, await answer.text()) == (
                    503,
                    '{"health":"false","reason":"RAFT NO LEADER"}',
                )
            async with session.get(f"http://{http}/livez") as answer:
                assert answer.status == 200

    assert run(log, tmp_path, cluster, "--wait-cluster-ready-timeout=100ms", visit=visit) == 0
    assert "no leader after 0.1 s: serving anyway" in log.text


def test_an_unexpected_failure_is_logged_with_its_traceback(log: Log, tmp_path: Path) -> None:
    class Broken(Node):
        async def start(self) -> None:
            raise KeyError("a bug")

    from tests.unit.serving.lonely import NoNetwork

    def make(config: NodeConfig, metrics: Metrics) -> Node:
        return Broken(config, metrics, network=NoNetwork())

    assert run(log, tmp_path, make_node=make) == ExitCode.FAILED
    broken = [record for record in log.records if record.exc_info]
    assert len(broken) == 1


def test_a_disk_that_fails_at_the_end_is_no_orderly_stop(log: Log, tmp_path: Path) -> None:
    """The exit code was that of an unexpected failure."""

    class Unsynced(Node):
        async def stop(self) -> None:
            await super().stop()
            raise DiskFailed("fdatasync", "x.wal", "Input/output error", errno=errno.EIO)

    from tests.unit.serving.lonely import NoNetwork

    def make(config: NodeConfig, metrics: Metrics) -> Node:
        return Unsynced(config, metrics, network=NoNetwork())

    assert run(log, tmp_path, make_node=make) == ExitCode.DISK_FAILED
    assert "may not be on disk: fdatasync failed: Input/output error" in log.text


STUBBORN = """
import asyncio, logging, sys
from tests.unit.serving.lonely import NoNetwork
from kvstore import daemon
from kvstore.node.node import Node
from kvstore.serving.config import build_config
from kvstore.serving.logging import start_logging
from kvstore.serving.settings import read_settings

class Stubborn(Node):
    async def stop(self):
        print("cannot stop", flush=True)
        await asyncio.Event().wait()

config = build_config(read_settings(sys.argv[1:], {}))
log = start_logging(config.log)
make = lambda config, metrics: Stubborn(config, metrics, network=NoNetwork())
asyncio.run(daemon.run(config, log, make))
"""


def start(tmp_path: Path, *flags: str) -> subprocess.Popen[str]:
    here = Path(__file__)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            STUBBORN,
            f"--data-dir={tmp_path}",
            "--listen-client-urls=http://127.0.0.1:0",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--transport=grpcio",
            "--log-outputs=stdout",
            *flags,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(here.parents[3])},
    )
    wait_for(process, daemon.READY_LINE)
    return process


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"the server ended without saying {text!r}")


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        wait_for(process, "cannot stop")
        process.send_signal(signal.SIGTERM)
        wait_for(process, "ended at once by a second SIGTERM")
        assert process.wait(5) == 128 + signal.SIGTERM


def test_the_end_of_standard_input_is_a_request_to_stop_if_asked_for(tmp_path: Path) -> None:
    with start(tmp_path, "--stop-on-stdin-eof") as process:
        assert process.stdin is not None
        process.stdin.close()
        wait_for(process, "cannot stop")
        process.kill()
