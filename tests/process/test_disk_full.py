"""A full disk and a full quota: refused, or ended with a sentence; nothing acknowledged is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.pb import rpc_pb2
from tests.support.battlefield import mounted
from tests.support.rpc import Rpc
from tests.support.servers import KVSTORE, Server, make_cluster
from tests.support.traffic import disarm_all
from tests.unit.api.client import Client, op_delete, op_put, op_range

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

DISK_MIB = 400
KEEP_FREE_MIB = 256
"""Under this the alarm is raised."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "disk"
    directory.mkdir()
    with mounted(directory, mib=DISK_MIB):
        yield directory


def take(directory: Path, leave_bytes: int) -> Path:
    """Occupies the disk up to `leave_bytes`; the file that does it."""
    ballast = directory / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(directory).free - leave_bytes)
    return ballast


def refusal(rpc: Rpc, key: str = "more") -> EtcdError | None:
    try:
        rpc.put(key, "x")
    except grpc.RpcError as error:
        return errors.lookup(error.code().value[0], error.details() or "")
    return None


def answers(rpc: Rpc) -> bool:
    try:
        rpc.get("any")
    except grpc.RpcError:
        return False
    return True


def alarms(rpc: Rpc) -> int:
    return len(rpc.call("Maintenance", "Alarm", rpc_pb2.AlarmRequest()).alarms)


def assert_clean(server: Server) -> None:
    """The offline check has nothing to say."""
    checked = subprocess.run(
        [*KVSTORE[:-1], "check", "--data-dir", str(server.data_dir)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_low_space_raises_the_alarm_before_anything_fails(small_disk: Path) -> None:
    with make_cluster(small_disk) as cluster, Rpc(cluster.servers[0].endpoint) as rpc:
        rpc.put("before", "1")
        ballast = take(small_disk, (KEEP_FREE_MIB - 20) << 20)
        deadline = time.monotonic() + 12
        while (refused := refusal(rpc)) is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert refused == errors.NO_SPACE
        assert alarms(rpc) == 1
        assert rpc.get("before") == b"1"
        rpc.delete("more")
        ballast.unlink()
        disarm_all(rpc)
        rpc.put("after", "1")


def test_a_disk_that_is_full_at_once_loses_nothing_acknowledged(small_disk: Path) -> None:
    with make_cluster(small_disk) as cluster:
        server = cluster.servers[0]
        acked = {}
        value = "v" * 4000
        with Rpc(server.endpoint, timeout_s=3) as rpc:
            for number in range(200):
                rpc.put(f"k{number:05}", value)
                acked[f"k{number:05}"] = value
            ballast = take(small_disk, 3 << 20)
            # Faster than the periodic look at the free space.
            failed = None
            for number in range(200, 20_000):
                try:
                    rpc.put(f"k{number:05}", value)
                except grpc.RpcError as error:
                    failed = error
                    break
                acked[f"k{number:05}"] = value
            assert failed is not None, "the disk never became full"
            if server.running:
                try:
                    server.wait(2)
                except subprocess.TimeoutExpired:
                    pytest.fail("neither refused nor ended")
        log = server.log()
        code = server.wait(1)
        ending = [line for line in log.splitlines() if '"error"' in line or "critical" in line]
        print(f"{len(acked)} writes; exit code {code}; {ending[-1][:600] if ending else ''}")
        if errors.lookup(failed.code().value[0], failed.details() or "") != errors.NO_SPACE:
            assert code not in (0, -9)
            assert "space" in log[-6000:].lower(), log[-3000:]
        ballast.unlink()
        assert_clean(server)
        server.start()
        with Rpc(server.endpoint) as rpc:
            found = {kv.key.decode(): kv.value.decode() for kv in rpc.range("k", "l").kvs}
            lost = [key for key in acked if found.get(key) != acked[key]]
            assert not lost, f"{len(lost)} of {len(acked)} are gone"
            disarm_all(rpc)
            rpc.put("after", "1")


def test_the_log_cannot_get_its_next_segment(small_disk: Path) -> None:
    """The disk has room for the store, but not for 64 MiB more of log."""
    with make_cluster(small_disk) as cluster:
        server = cluster.servers[0]
        client_value = bytes(1_000_000)
        acked = []
        with Rpc(server.endpoint, timeout_s=5) as rpc:
            rpc.put("first", "1")
            ballast = take(small_disk, 100 << 20)
            for number in range(90):
                try:
                    rpc.put(f"big/{number % 4}", client_value)
                except grpc.RpcError as error:
                    print(number, error.details())
                    break
                acked.append(number)
        time.sleep(0.5)
        if server.running:
            server.kill()
        else:
            assert "space" in server.log()[-6000:].lower(), server.log()[-3000:]
        print(len(acked), "large writes acknowledged;", server.log().splitlines()[-1][:500])
        ballast.unlink()
        server.start()
        with Rpc(server.endpoint) as rpc:
            assert rpc.get("first") == b"1"
            count = min(len(acked), 4)
            assert rpc.range("big/", "big0", count_only=True).count >= count


def test_the_quota_refuses_and_lets_go_again(tmp_path: Path) -> None:
    quota = 8 << 20
    flags = (f"--quota-backend-bytes={quota}",)
    with make_cluster(tmp_path, size=3, extra=flags) as cluster:
        callers = [Rpc(server.endpoint) for server in cluster.servers]
        rpc = callers[0]
        client = Client(rpc.channel)
        value = b"q" * 60_000
        stored = 0
        for stored in range(1000):
            try:
                callers[stored % 3].put(f"q/{stored:04}", value)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert error.details() == errors.NO_SPACE.message
                break
        assert 60 < stored < 160, stored
        # Everything that adds is refused, at every member; what only reads or frees is not.
        wait_for_alarm(rpc)
        for caller in callers:
            caller.get("q/0000")  # linearizable: it knows of the alarm
            assert refusal(caller) == errors.NO_SPACE
        for call in (
            lambda: client.grant(10),
            lambda: client.txn(success=[op_put(b"x", b"y")]),
        ):
            with pytest.raises(grpc.RpcError) as raised:
                call()
            assert raised.value.details() == errors.NO_SPACE.message
        client.txn(success=[op_range(b"q/0000"), op_delete(b"q/0000")])
        assert rpc.range("q/", "q0", count_only=True).count == stored - 1
        assert any(alarm.alarm == 1 for alarm in rpc.call(
            "Maintenance", "Alarm", rpc_pb2.AlarmRequest()
        ).alarms)  # fmt: skip
        # etcd's way back: delete, compact, defragment, disarm.
        revision = rpc.delete("q/", "q0").header.revision
        client._rpc(
            "KV", "Compact", rpc_pb2.CompactionRequest(revision=revision, physical=True),
            "CompactionResponse",
        )  # fmt: skip
        # Whoever was asked has waited for its own store; the others are about as far.
        assert rpc.status().dbSizeInUse < quota // 8
        time.sleep(1)
        for caller in callers:
            caller.call("Maintenance", "Defragment", rpc_pb2.DefragmentRequest(), timeout_s=20)
            assert caller.status().dbSize < quota // 2
        disarm_all(rpc)
        assert alarms(rpc) == 0
        for caller in callers:
            caller.put("q/again", value)
            caller.close()


def test_a_disarmed_alarm_comes_back_while_the_quota_is_full(tmp_path: Path) -> None:
    with make_cluster(tmp_path, extra=(f"--quota-backend-bytes={2 << 20}",)) as cluster:
        server = cluster.servers[0]
        with Rpc(server.endpoint) as rpc:
            for number in range(200):
                if refusal_of_large(rpc, number):
                    break
            wait_for_alarm(rpc)
            assert refusal(rpc) == errors.NO_SPACE
            disarm_all(rpc)
            assert refusal_of_large(rpc, 999)
            wait_for_alarm(rpc)
            server.kill()
            server.start(wait=False)  # not healthy while there is an alarm, as etcd
            deadline = time.monotonic() + 15
            while not answers(rpc) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert refusal(rpc) == errors.NO_SPACE, "the alarm outlives a restart"


def wait_for_alarm(rpc: Rpc) -> None:
    """It goes through the log after the first refusal."""
    deadline = time.monotonic() + 5
    while not alarms(rpc) and time.monotonic() < deadline:
        time.sleep(0.01)


def refusal_of_large(rpc: Rpc, number: int) -> bool:
    try:
        rpc.put(f"l/{number}", "x" * 100_000)
    except grpc.RpcError as error:
        return error.details() == errors.NO_SPACE.message
    return False
