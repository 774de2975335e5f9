"""Kills and power losses of a lonely member: what was acknowledged is there, files are whole."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from kvstore.pb import rpc_pb2
from tests.support.power import another_boot, scramble_store, store_path
from tests.support.rpc import Rpc
from tests.support.servers import KVSTORE, Server, make_cluster
from tests.support.traffic import Writers

KILLS = int(os.environ.get("KVSTORE_KILLS", "6"))

pytestmark = [pytest.mark.process, pytest.mark.timeout(60 + 6 * KILLS)]


def check(server: Server) -> subprocess.CompletedProcess[str]:
    """The offline check of the data directory."""
    return subprocess.run(
        [*KVSTORE[:-1], "check", "--data-dir", str(server.data_dir)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )


def assert_clean(server: Server) -> None:
    checked = check(server)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def pairs(server: Server) -> dict[str, str]:
    with Rpc(server.endpoint, timeout_s=20) as rpc:
        return {kv.key.decode(): kv.value.decode() for kv in rpc.range("\0", "\0").kvs}


@pytest.mark.slow
def test_a_lonely_member_killed_again_and_again(tmp_path: Path) -> None:
    chance = random.Random(3)
    with make_cluster(tmp_path) as cluster:
        server = cluster.servers[0]
        with Writers(cluster, count=6) as writers:
            for number in range(KILLS):
                writers.wait_success_after(time.monotonic())
                time.sleep(chance.random() * 0.4)
                server.kill()
                if number % 5 == 0:
                    assert_clean(server)
                server.start()
        found = pairs(server)
        lost = [key for key, value in writers.acked.items() if found.get(key) != value]
        assert len(writers.acked) > 20 * KILLS
        assert not lost, f"{len(lost)} of {len(writers.acked)} acknowledged writes are gone"
        print(f"\n{KILLS} kills, {len(writers.acked)} writes acknowledged, none lost")
        assert server.stop() == 0
        assert_clean(server)


def store(server: Server) -> Path:
    return store_path(server.data_dir)


def scramble(server: Server) -> None:
    scramble_store(server.data_dir)


def truncate(server: Server) -> None:
    os.truncate(store(server), 5000)


def delete(server: Server) -> None:
    store(server).unlink()


def delete_all(server: Server) -> None:
    shutil.rmtree(store(server).parent)


def zeros(server: Server) -> None:
    store(server).write_bytes(bytes(store(server).stat().st_size))


def nothing(_: Server) -> None:
    pass


SLOW_DAMAGES = [
    pytest.param(damage, marks=pytest.mark.slow) for damage in (truncate, delete, delete_all, zeros)
]


@pytest.mark.parametrize("damage", [nothing, scramble, *SLOW_DAMAGES])
def test_power_loss_rebuilds_the_store(tmp_path: Path, damage: Callable[[Server], None]) -> None:
    with make_cluster(tmp_path) as cluster:
        server = cluster.servers[0]
        with Rpc(server.endpoint) as rpc:
            for number in range(150):
                rpc.put(f"k{number % 40}", f"v{number}" * 50)
            rpc.delete("k1")
            before = rpc.hash_kv()
        server.kill()
        if damage is not delete_all:
            another_boot(server.data_dir)
        damage(server)
        server.start()
        with Rpc(server.endpoint) as rpc:
            after = rpc.hash_kv()
            assert (after.hash, after.header.revision) == (before.hash, before.header.revision)
            rpc.put("k0", "and on")
        server.kill()
        server.start()
        with Rpc(server.endpoint) as rpc:
            assert rpc.get("k0") == b"and on"
        assert server.stop() == 0
        assert_clean(server)


def test_power_loss_after_snapshots_and_compaction(tmp_path: Path) -> None:
    """The rebuilt store comes from a snapshot file and the log behind it."""
    with make_cluster(tmp_path, extra=("--snapshot-count=50",)) as cluster:
        server = cluster.servers[0]
        with Rpc(server.endpoint) as rpc:
            for number in range(75):
                answer = rpc.put(f"k{number % 10}", bytes(1_000_000))
            deadline = time.monotonic() + 10
            snapshots = server.data_dir / "member" / "snap"
            while not list(snapshots.glob("*.kvs")) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert list(snapshots.glob("*.kvs")), "no snapshot was made"
            compaction = rpc_pb2.CompactionRequest(revision=answer.header.revision - 5)
            rpc.call("KV", "Compact", compaction)
            for number in range(20):
                rpc.put(f"s{number}", "small")
            before = rpc.hash_kv()
        server.kill()
        another_boot(server.data_dir)
        scramble(server)
        server.start()
        with Rpc(server.endpoint) as rpc:
            after = rpc.hash_kv()
        assert (after.hash, after.compact_revision) == (before.hash, before.compact_revision)


def test_a_damaged_store_of_this_boot_ends_the_member_and_is_rebuilt(tmp_path: Path) -> None:
    """Bit rot: every value has a checksum; what does not fit is never served."""
    with make_cluster(tmp_path) as cluster:
        server = cluster.servers[0]
        with Rpc(server.endpoint) as rpc:
            for number in range(300):
                rpc.put(f"k{number}", f"v{number}" * 50)
            before = rpc.hash_kv().hash
        assert server.stop() == 0
        data = bytearray(store(server).read_bytes())
        at = data.rindex(b"v123v123v123")
        data[at] ^= 0x20
        # LMDB keeps old copies of pages: all of them.
        while (at := data.rfind(b"v123v123v123", 0, at)) >= 0:
            data[at] ^= 0x20
        store(server).write_bytes(data)
        checked = check(server)
        assert checked.returncode == 1, checked.stdout
        server.start()
        with Rpc(server.endpoint) as rpc, pytest.raises(grpc.RpcError):
            rpc.range("k", "l")
        assert server.wait(10) != 0
        assert "store.mdb" in server.log()
        server.start()
        with Rpc(server.endpoint) as rpc:
            assert rpc.hash_kv().hash == before
            assert rpc.get("k123") == b"v123" * 50
