"""The same random history given to the machine and to a real etcd must be answered alike.

Every response (its header's revision included), every refusal and HashKV at every readable
revision are compared. Known differences between etcd 3.4, which Debian has, and 3.6, which we
follow, are kept out of the traffic and named where that is done.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kvstore.errors import EtcdError
from kvstore.machine import Machine, run
from kvstore.machine.wire import bytes_field, int_field
from kvstore.pb.rpc_pb2 import (
    HashKVRequest,
    RangeRequest,
    TxnRequest,
)
from kvstore.storage.memory_store import MemoryStore
from tests.unit.machine.etcd import Etcd, missing, running_etcd
from tests.unit.machine.kit import Bench
from tests.unit.machine.traffic import Traffic

pytestmark = pytest.mark.compat

GOLDEN = Path(__file__).parents[1] / "golden" / "machine"


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with running_etcd() as server:
        yield server


class Pair:
    """The judge and the machine, fed alike."""

    def __init__(self, etcd: Etcd) -> None:
        self.etcd = etcd
        self.bench = Bench(MemoryStore(Machine.TABLES))

    def both(self, request: Any) -> Any:
        """Asks both and compares; the answer."""
        theirs = self.etcd.call(request)
        if isinstance(theirs, tuple) and "duplicate key given" in theirs[1]:
            # Refused before Raft: not the machine's business.
            return theirs
        revision, ours = self._ours(request)
        if isinstance(theirs, tuple):
            assert isinstance(ours, EtcdError), (request, theirs, ours)
            assert (int(ours.code), ours.message) == theirs, request
            return theirs
        assert isinstance(ours, bytes), (request, theirs, ours)
        header = bytes_field(1, int_field(3, revision))
        for field in ("cluster_id", "member_id", "raft_term"):
            theirs.header.ClearField(field)
        assert type(theirs).FromString(header + ours) == theirs, request
        assert header + ours == theirs.SerializeToString(), request
        return theirs

    def _ours(self, request: Any) -> tuple[int, bytes | EtcdError]:
        bench = self.bench
        if isinstance(request, RangeRequest) or _only_reads(request):
            with bench.machine.view() as view:
                try:
                    if isinstance(request, RangeRequest):
                        return view.revision, run(view.range(request)).body
                    return view.revision, run(view.read_txn(request))
                except EtcdError as error:
                    return view.revision, error
        result = bench.apply(request)
        return result.revision, result.error or result.body

    def compare_hashes(self) -> None:
        """HashKV at the newest and at every readable revision of late."""
        machine = self.bench.machine
        # etcd 3.4 refuses the compact revision itself, 3.6 answers it.
        lowest = max(machine.compact_revision + 1, machine.revision - 12, 1)
        for revision in (0, *range(lowest, machine.revision + 1)):
            theirs = self.etcd.call(HashKVRequest(revision=revision))
            assert self.bench.hash_kv(revision) == theirs.hash, revision
            assert machine.compact_revision == theirs.compact_revision


def _only_reads(request: Any) -> bool:
    return isinstance(request, TxnRequest) and all(
        op.WhichOneof("request") == "request_range" for op in (*request.success, *request.failure)
    )


@pytest.fixture(scope="module")
def pair(etcd: Etcd) -> Pair:
    return Pair(etcd)


@pytest.mark.parametrize("seed", range(12))
def test_random_history_is_answered_as_etcd_answers_it(pair: Pair, seed: int) -> None:
    traffic = Traffic(seed, lambda: pair.bench.machine.revision)
    for step in range(200):
        pair.both(traffic.request())
        if step % 40 == 39:
            pair.compare_hashes()
        if step % 3 == 0:
            pair.bench.machine.sweep(traffic.random.randint(1, 5))
    pair.compare_hashes()


def test_etcdctl_tells_the_hashes_of_the_golden_trace() -> None:
    """The figures in that trace are etcd's own, as its command line prints them."""
    trace = GOLDEN / "mvcc" / "hash_is_that_of_etcd_for_the_same_history.txt"
    etcdctl = shutil.which("etcdctl")
    if etcdctl is None:
        missing("etcdctl")
    compared = 0
    with running_etcd() as server:

        def ctl(*words: str) -> str:
            command = [etcdctl, "--endpoints", server.address, *words]
            environment = {**os.environ, "ETCDCTL_API": "3"}
            done = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            )
            return done.stdout

        lines = trace.read_text().splitlines()
        for line, following in pairwise(lines):
            match line.removeprefix("> ").split():
                case ["put", key, value]:
                    ctl("put", key, value)
                case ["delete", key]:
                    ctl("del", key)
                case ["compact", revision]:
                    ctl("compact", "--physical", revision)
                case ["hash"]:
                    told = json.loads(ctl("endpoint", "hashkv", "-w", "json"))[0]["HashKV"]
                    assert following.split()[0] == f"{told['hash']:08x}", following
                    assert following.endswith(f"compact {told['compact_revision']}")
                    compared += 1
    assert compared == 6
