"""Debian's etcd as a judge: one throw-away server on loopback, spoken to with our messages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import grpc
import pytest

from kvstore.pb import rpc_pb2

__all__ = ("Etcd", "missing", "running_etcd")

_METHODS = {
    "RangeRequest": ("KV/Range", "RangeResponse"),
    "PutRequest": ("KV/Put", "PutResponse"),
    "DeleteRangeRequest": ("KV/DeleteRange", "DeleteRangeResponse"),
    "TxnRequest": ("KV/Txn", "TxnResponse"),
    "CompactionRequest": ("KV/Compact", "CompactionResponse"),
    "LeaseGrantRequest": ("Lease/LeaseGrant", "LeaseGrantResponse"),
    "LeaseRevokeRequest": ("Lease/LeaseRevoke", "LeaseRevokeResponse"),
    "LeaseTimeToLiveRequest": ("Lease/LeaseTimeToLive", "LeaseTimeToLiveResponse"),
    "HashKVRequest": ("Maintenance/HashKV", "HashKVResponse"),
}


class Etcd:
    """Calls to the server."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = grpc.insecure_channel(address)

    def call(self, request: Any) -> Any:
        """The response message, or (code number, message) of the refusal."""
        path, answer = _METHODS[type(request).__name__]
        method = self._channel.unary_unary(
            f"/etcdserverpb.{path}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=getattr(rpc_pb2, answer).FromString,
        )
        try:
            return method(request, timeout=10, wait_for_ready=True)
        except grpc.RpcError as error:
            return error.code().value[0], error.details()

    def close(self) -> None:
        self._channel.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def missing(program: str) -> NoReturn:
    """Skips the test, or fails it where every tool must be there."""
    message = f"{program} is not installed (Debian: etcd-server, etcd-client)"
    if os.environ.get("KVSTORE_REQUIRE_ALL") == "1":
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def running_etcd() -> Iterator[Etcd]:
    """An etcd of one member with an empty store; the test is skipped where there is none."""
    program = shutil.which("etcd")
    if program is None:
        missing("etcd")
    client, peer = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
    # In memory where the system has that: nothing here depends on real fsyncs.
    parent = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(dir=parent) as directory:
        command = [program, "--data-dir", directory, "--name", "judge", "--log-level", "error"]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", f"judge={peer}"]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            server = Etcd(client.removeprefix("http://"))
            try:
                _wait(server)
                yield server
            finally:
                server.close()
                process.terminate()
                process.wait(10)


def _wait(server: Etcd) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not isinstance(server.call(rpc_pb2.RangeRequest(key=b"x")), tuple):
            return
        time.sleep(0.1)
    raise TimeoutError("etcd does not answer")
