"""Other stores: what they are asked, how they are set up."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.clients.worker import Task
from benchmarks.peers import zookeeper
from benchmarks.peers.__main__ import PEERS, loads_of
from benchmarks.peers.worker import LOADS, PeerTask


def test_a_store_is_asked_only_for_what_it_has() -> None:
    assert loads_of("zookeeper", list(LOADS)) == list(LOADS)
    assert loads_of("pysyncobj", list(LOADS)) == [
        "put", "put-pipelined", "get-local", "get-local-pipelined",
    ]  # fmt: skip
    assert PEERS == ("zookeeper", "pysyncobj")


def test_zookeeper_syncs_and_members_know_each_other() -> None:
    alone = zookeeper.configuration(Path("/data"), 2181, [(1, 2)])
    assert "forceSync=yes" in alone.splitlines()
    assert "dataDir=/data" in alone.splitlines()
    assert "server." not in alone
    three = zookeeper.configuration(Path("/data"), 2181, [(1, 2), (3, 4), (5, 6)])
    assert three.splitlines()[-3:] == [
        "server.1=127.0.0.1:1:2", "server.2=127.0.0.1:3:4", "server.3=127.0.0.1:5:6",
    ]  # fmt: skip


def test_without_its_jar_the_command_that_installs_it_is_told(tmp_path: Path) -> None:
    assert zookeeper.missing(tmp_path).endswith("apt-get install zookeeper")


def test_a_task_travels_as_json() -> None:
    task = PeerTask("pysyncobj", Task("", "put", 1, 8, 1.0, 0.1, 10, 100), (1, 2), "/j", serve=True)
    assert PeerTask.loads(json.dumps(asdict(task))) == task
