"""`snapshot save`, `status` and `restore`: the new cluster goes on from the backup."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import KVSTORE, ROOT, Cluster, Server, free_ports, make_cluster

pytestmark = pytest.mark.process


def kvstore(*argv: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "kvstore.cli.main", *argv],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of ten keys, one of them with a lease, at revision 11."""
    directory = tmp_path_factory.mktemp("old")
    with make_cluster(directory) as cluster:
        where = f"--endpoints={cluster.endpoints}"
        lease = kvstore(where, "lease", "grant", "3600").split()[1]
        for number in range(9):
            kvstore(where, "put", f"key{number}", f"value{number}")
        kvstore(where, "put", "leased", "x", f"--lease={lease}")
        path = directory / "backup.db"
        said = kvstore(where, "snapshot", "save", str(path))
        assert said == f"Snapshot saved at {path}\n"
    return path


def restored(directory: Path, backup: Path, size: int) -> Cluster:
    """Servers whose data directories were made from the backup."""
    ports = free_ports(3 * size)
    names = [f"new{i}" for i in range(size)]
    urls = [f"http://127.0.0.1:{ports[3 * i + 1]}" for i in range(size)]
    line = ",".join(f"{name}={url}" for name, url in zip(names, urls, strict=True))
    servers = []
    for i, name in enumerate(names):
        server = Server(KVSTORE, name, directory, *ports[3 * i : 3 * i + 3], cluster=line)
        kvstore(
            "snapshot",
            "restore",
            str(backup),
            f"--name={name}",
            f"--data-dir={server.data_dir}",
            f"--initial-cluster={line}",
            f"--initial-advertise-peer-urls={urls[i]}",
            "--initial-cluster-token=second",
        )
        server.extra = ("--initial-cluster-token=second",)
        servers.append(server)
    return Cluster(servers)


@pytest.mark.parametrize("size", [1, 3])
def test_a_cluster_made_from_a_backup_has_its_keys_and_goes_on(
    backup: Path, tmp_path: Path, size: int
) -> None:
    with restored(tmp_path, backup, size) as cluster:
        for server in cluster.servers:
            where = f"--endpoints={server.endpoint}"
            assert kvstore(where, "get", "key", "--prefix", "--count-only").strip() == "9"
        where = f"--endpoints={cluster.endpoints}"
        lease = kvstore(where, "lease", "list").split()[-1]
        assert "attached keys([leased])" in kvstore(where, "lease", "timetolive", lease, "--keys")
        members = kvstore(where, "member", "list").splitlines()
        assert sorted(line.split(", ")[2] for line in members) == [
            server.name for server in cluster.servers
        ]
        assert '"Revision" : 12' in kvstore(where, "put", "after", "1", "-w", "fields")
        cluster.servers[0].stop()
        cluster.servers[0].start()
        where = f"--endpoints={cluster.servers[0].endpoint}"
        assert kvstore(where, "get", "after", "--print-value-only") == "1\n"


def test_status_tells_what_is_in_a_backup(backup: Path) -> None:
    _, revision, keys, _ = kvstore("snapshot", "status", str(backup)).split(", ")
    assert (revision, keys) == ("11", "10")


def test_a_damaged_backup_is_refused_and_leaves_nothing(backup: Path, tmp_path: Path) -> None:
    data = bytearray(backup.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(data)
    target = tmp_path / "data"
    for argv in (("status", str(damaged)), ("restore", str(damaged), f"--data-dir={target}")):
        said = kvstore("snapshot", *argv, code=1)
        assert said.startswith(f"Error: {damaged} cannot be used: the SHA-256 does not match")
    assert not target.exists()


def test_a_directory_in_use_is_refused_and_left_alone(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    said = kvstore("snapshot", "restore", str(backup), f"--data-dir={tmp_path}", code=1)
    assert "exists and is not empty" in said
    assert (tmp_path / "precious").read_text() == "data"
