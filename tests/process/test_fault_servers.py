"""Whole servers on a real disk that die, fail, or lose power at known places."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from kvstore.faults import EXIT_CODE, VARIABLE
from kvstore.pb import rpc_pb2
from kvstore.serving.exits import ExitCode
from kvstore.storage.check import check_data_dir
from tests.process.fault_rounds import Forker, History, Pairs, forker
from tests.support.power import another_boot, scramble_store, store_path
from tests.support.rpc import Rpc
from tests.support.servers import Cluster, Server, make_cluster

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

MIB = 1 << 20


class Traffic:
    """Threads that put values which occur once to a few keys, and note what they are told."""

    def __init__(self, server: Server, history: History, *, size_bytes: int, threads: int) -> None:
        self._server = server
        self._history = history
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._numbers = itertools.count(len(history.asked))
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with Rpc(self._server.endpoint, timeout_s=5) as rpc:
            while not self._stopping.is_set():
                with self._lock:
                    name = str(next(self._numbers))
                    key = f"k{int(name) % 16:02}"
                    self._history.asked[name] = {key: name}
                try:
                    answer = rpc.put(key, f"{name} ".ljust(self._size_bytes, "v"))
                except grpc.RpcError:
                    return
                self._history.acked[name] = answer.header.revision


def pairs_of(rpc: Rpc) -> Pairs:
    found = rpc.range("k", "l").kvs
    return {kv.key.decode(): (kv.value.decode().partition(" ")[0], kv.mod_revision) for kv in found}


def assert_clean(server: Server) -> None:
    report = check_data_dir(server.data_dir)
    assert report.clean, report.findings


Hashed = tuple[int, int, int]


def hash_of(rpc: Rpc) -> Hashed:
    answer = rpc.hash_kv()
    return answer.hash, answer.compact_revision, answer.header.revision


@pytest.fixture(scope="module")
def jobs() -> Iterator[Forker]:
    with forker() as made:
        yield made


def assert_replays(jobs: Forker, server: Server, applied: int, hashed: Hashed) -> None:
    """The log and the snapshots of a stopped server alone lead to the same hash."""
    shutil.rmtree(store_path(server.data_dir).parent)
    replayed = jobs.run("replay", server.data_dir, seed=applied).word("replayed")
    assert (replayed[0], replayed[1], replayed[3]) == hashed


# ---- deaths -----------------------------------------------------------------------------------


def keep_writing(rpc: Rpc, server: Server) -> None:
    """The traffic comes by."""


def defragment(rpc: Rpc, server: Server) -> None:
    rpc.call("Maintenance", "Defragment", rpc_pb2.DefragmentRequest(), timeout_s=20)


def compact(rpc: Rpc, server: Server) -> None:
    request = rpc_pb2.CompactionRequest(revision=rpc.status().header.revision, physical=True)
    rpc.call("KV", "Compact", request)


Drive = Callable[[Rpc, Server], None]
KILLS: list[tuple[str, Drive, int]] = [
    ("wal.after_write=exit:60", keep_writing, 100),
    ("store.copy_piece=exit:1", defragment, 20_000),
    ("swap.after_rename=exit", defragment, 100),
    ("sweep.before_commit=exit", compact, 100),
    ("wal.before_sync=exit:77", keep_writing, 100),
    ("store.after_commit=exit:50", keep_writing, 100),
    ("apply.after=exit:40", keep_writing, 100),
    ("swap.before_rename=exit", defragment, 100),
    ("swap.reopened=exit", defragment, 100),
    # The log grows by more than 64 MiB, so a segment is cut and a snapshot made.
    ("wal.segment_named=exit", keep_writing, MIB),
    ("snapshot.after_sync=exit", keep_writing, MIB),
    ("snapshot.after_rename=exit", keep_writing, MIB),
]
"""What is armed, what brings the server there, and how large the values are."""


def kill_rounds(jobs: Forker, directory: Path, kills: list[tuple[str, Drive, int]]) -> None:
    history = History()
    with make_cluster(directory, extra=("--snapshot-count=20",)) as cluster:
        server = cluster.servers[0]
        for armed, drive, size_bytes in kills:
            assert server.stop() == 0
            server.variables = {VARIABLE: armed}
            server.start()
            enough = len(history.acked) + 12
            with Traffic(server, history, size_bytes=size_bytes, threads=3):
                die(server, drive, lambda enough=enough: len(history.acked) >= enough)
            assert len(history.acked) >= enough, "a round with few writes proves little"
            assert f"fault point: {armed}" in server.log(), armed
            assert_clean(server)
            server.variables = {}
            server.start()
            with Rpc(server.endpoint, timeout_s=20) as rpc:
                history.judge(pairs_of(rpc), rpc.status().header.revision)
        with Rpc(server.endpoint, timeout_s=20) as rpc:
            hashed, applied = hash_of(rpc), rpc.status().raftAppliedIndex
        assert server.stop() == 0
        assert_clean(server)
        assert_replays(jobs, server, applied, hashed)
    print(f"\n{len(kills)} kills, {len(history.acked)} writes acknowledged, none lost")


def die(server: Server, drive: Drive, warm: Callable[[], bool]) -> None:
    """Brings the server to the point once it is `warm`; returns when it is dead."""
    with Rpc(server.endpoint, timeout_s=20) as rpc:
        while server.running and not warm():
            time.sleep(0.01)
        try:
            drive(rpc, server)
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert server.wait(30) == EXIT_CODE


def test_servers_that_die_at_fault_points(jobs: Forker, tmp_path: Path) -> None:
    kill_rounds(jobs, tmp_path, KILLS[:4])


@pytest.mark.slow
def test_servers_that_die_at_more_fault_points(jobs: Forker, tmp_path: Path) -> None:
    kill_rounds(jobs, tmp_path, KILLS[4:])


# ---- failing disks ------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["eio", "enospc"])
def test_a_sync_that_fails_once_ends_the_server(jobs: Forker, tmp_path: Path, action: str) -> None:
    """A second sync would succeed, as it does after a real failure, with the data gone."""
    history = History()
    with make_cluster(tmp_path) as cluster:
        server = cluster.servers[0]
        assert server.stop() == 0
        server.variables = {VARIABLE: f"wal.before_sync={action}:40"}
        server.start()
        assert f"ARMED TO FAIL by {VARIABLE}" in server.log()
        with Traffic(server, history, size_bytes=100, threads=3):
            assert server.wait(30) == ExitCode.DISK_FAILED
        assert "Check the disk and its free space, then start the process again" in server.log()
        assert server.log().count("fault point: wal.before_sync") == 1
        assert len(history.acked) > 10
        assert_clean(server)
        server.variables = {}
        server.start()
        with Rpc(server.endpoint) as rpc:
            history.judge(pairs_of(rpc), rpc.status().header.revision)
            rpc.put("after", "1")
            hashed, applied = hash_of(rpc), rpc.status().raftAppliedIndex
        assert server.stop() == 0
        assert_replays(jobs, server, applied, hashed)


def test_a_point_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    server = make_cluster(tmp_path).servers[0]
    server.variables = {VARIABLE: "wal.after_writ=exit"}
    server.start(wait=False)
    assert server.wait(10) == ExitCode.USAGE
    assert "'wal.after_writ', which does not exist. There are: wal.before_write" in server.log()
    assert not server.data_dir.exists()


# ---- lost power ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_store_of_a_gigabyte_is_rebuilt_after_a_power_loss(tmp_path: Path) -> None:
    """Prints how long it took."""
    if shutil.disk_usage(tmp_path).free < 12 << 30:
        pytest.skip("needs 12 GiB of free disk")
    flags = ("--quota-backend-bytes=8589934592", "--snapshot-count=100")
    with make_cluster(tmp_path, extra=flags) as cluster:
        server = cluster.servers[0]
        began = time.monotonic()
        fill(cluster, total_bytes=1 << 30)
        wait_for_quiet_snapshots(server)
        with Rpc(server.endpoint, timeout_s=120) as rpc:
            for number in range(200):
                rpc.put(f"late/{number}", "behind the snapshot")
            size_bytes = rpc.status().dbSize
            hashed = hash_of(rpc)
        print(f"\n{size_bytes / MIB:.0f} MiB stored in {time.monotonic() - began:.0f} s")
        server.kill()
        plain_s = timed_start(server)
        server.kill()
        another_boot(server.data_dir)
        scramble_store(server.data_dir)
        drop_caches()
        rebuilt_s = timed_start(server)
        assert "the store was rebuilt from" in server.log()
        with Rpc(server.endpoint, timeout_s=120) as rpc:
            assert hash_of(rpc) == hashed
            rpc.put("after", "1")
        image = max((server.data_dir / "member" / "snap").glob("*.kvs")).stat().st_size
        print(
            f"ready {plain_s:.1f} s after kill -9; {rebuilt_s:.1f} s after a power loss, from a "
            f"snapshot of {image / MIB:.0f} MiB and the log behind it"
        )
        assert server.stop(60) == 0
        assert_clean(server)
    shutil.rmtree(tmp_path)  # pytest would keep it for three runs


def fill(cluster: Cluster, total_bytes: int) -> None:
    """Values of 20 KB in transactions of 50, by a few threads."""
    value, together = 20_000, 50
    rounds = total_bytes // (value * together)

    def work(first: int) -> None:
        with Rpc(cluster.servers[0].endpoint, timeout_s=60) as rpc:
            for number in range(first, rounds, 3):
                puts = [
                    rpc_pb2.RequestOp(
                        request_put=rpc_pb2.PutRequest(
                            key=b"big/%06d" % (number * together + part), value=os.urandom(value)
                        )
                    )
                    for part in range(together)
                ]
                rpc.call("KV", "Txn", rpc_pb2.TxnRequest(success=puts))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wait_for_quiet_snapshots(server: Server) -> None:
    """Until the snapshot that the growth asked for is made, and no other is being made."""
    directory = server.data_dir / "member" / "snap"
    deadline = time.monotonic() + 120
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 3:
        assert time.monotonic() < deadline, "no end of snapshots"
        if list(directory.glob("*.tmp")):
            quiet_since = time.monotonic()
        time.sleep(0.1)


def drop_caches() -> None:
    """As a machine that was off has none; only root can."""
    subprocess.run(["sync"], check=True)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError as error:
        print(f"the page cache stays: {error}")


def timed_start(server: Server) -> float:
    """Seconds from the start of the process until it answers that it is healthy."""
    began = time.monotonic()
    server.start(wait=False)
    server.wait_ready(300)
    return time.monotonic() - began
