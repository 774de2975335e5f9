"""Damage to a real LMDB file: flipped bits all over it, and ends cut off.

LMDB has no checksums. Each record of ours has one, so a damaged record is noticed when it is
read; a damaged page of LMDB's own may be noticed by LMDB, kill the process, or hide records,
which only the comparison of HashKV among the members can show. What must not be: an answer that
is wrong while HashKV is right. And the next start of a member whose store was found damaged must
put the same state together from snapshot and log.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.machine.command import CommandKind
from kvstore.node.host import OsHost
from kvstore.pb import rpc_pb2
from tests.sim import counts
from tests.sim.prng import Prng
from tests.sim.solo import Solo, solo_config
from tests.support.servers import ROOT

pytestmark = pytest.mark.process

PAGE = 4096
FLIPS = 150
SLOW_FLIPS = int(os.environ.get("KVSTORE_STORE_FLIPS", "5000"))


def fill(data_dir: Path) -> None:
    """A member with leases, long keys, overflow pages, a compaction, free pages, a snapshot."""
    member = Solo(OsHost(), solo_config(data_dir, segment_bytes=1 << 16), lambda entry: None)
    member.lead()

    def write(kind: CommandKind, request: rpc_pb2.PutRequest) -> None:
        member.write(kind, request.SerializeToString(), lambda: None)
        member.settle()

    for lease in range(1, 6):
        write(CommandKind.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=lease, TTL=1000))
    for number in range(400):
        key = b"key/%03d" % (number * 11 % 120)
        value = b"%d " % number * (number * 37 % 200)
        write(CommandKind.PUT, rpc_pb2.PutRequest(key=key, value=value, lease=number % 6))
        if number % 40 == 0:
            key = b"long/%d/" % number + b"x" * (500 + number)
            write(CommandKind.PUT, rpc_pb2.PutRequest(key=key, value=b"y" * 6000))
        if number % 9 == 0:
            key = b"key/%03d" % (number * 5 % 120)
            write(CommandKind.DELETE_RANGE, rpc_pb2.DeleteRangeRequest(key=key))
        if number == 200:
            member.snapshot()
        if number == 300:
            write(CommandKind.COMPACT, rpc_pb2.CompactionRequest(revision=250))
    while not member.machine.swept:
        member.machine.sweep(100)
    member.stop()


class Victim:
    """A store that is damaged again and again, and the process that looks at it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        fill(self.data_dir)
        self.good = self.store(self.data_dir).read_bytes()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.damaged_store"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        self.truth = self.read(self.good)
        assert self.truth.startswith("done "), self.truth

    @staticmethod
    def store(data_dir: Path) -> Path:
        return data_dir / "member" / "db" / "store.mdb"

    def ask(self, command: str, path: Path) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command} {path}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def read(self, content: bytes) -> str:
        """What comes of reading, writing and reading a store with this content."""
        path = self.directory / "damaged.mdb"
        path.with_name("damaged.mdb-lock").unlink(missing_ok=True)
        path.write_bytes(content)
        return self.ask("read", path)

    def started(self, content: bytes) -> tuple[Path, str]:
        """A member that was stopped in order, and starts with this store."""
        data_dir = self.directory / "started"
        shutil.rmtree(data_dir, ignore_errors=True)
        shutil.copytree(self.data_dir, data_dir)
        self.store(data_dir).write_bytes(content)
        return data_dir, self.ask("start", data_dir)

    def judged(self, content: bytes) -> str:
        """One word for what became of the damage."""
        answer = self.read(content)
        if answer == self.truth:
            return "harmless"
        word, *digests = answer.split()
        if word != "done":
            return word
        truth = self.truth.split()[1:]
        # HashKV before and after writing stand at 0 and 2.
        return "compared" if digests[::2] != truth[::2] else "unnoticed"

    def flipped(self, number: int, prng: Prng) -> bytes:
        """One bit changed: each page in turn, its header, its pointers or its records."""
        page = number % (len(self.good) // PAGE)
        low, high = prng.pick(((0, 16), (16, 64), (64, PAGE)))
        damaged = bytearray(self.good)
        damaged[page * PAGE + prng.between(low, high - 1)] ^= 1 << prng.below(8)
        return bytes(damaged)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    victim = Victim(tmp_path_factory.mktemp("damage"))
    yield victim
    victim.process.communicate()
    assert victim.process.returncode == 0


def run_flips(victim: Victim, flips: int, seed: int) -> None:
    prng = Prng(seed)
    seen = Counter(victim.judged(victim.flipped(number, prng)) for number in range(flips))
    print(f"\n{flips} flips in {len(victim.good) // PAGE} pages: {dict(seen)}")
    counts.record("store-flips", flips=flips, **seen)
    assert seen["unnoticed"] == 0
    assert seen["raised"] == 0, "damage is an error with advice, and no bug"
    assert seen["hung"] == 0
    assert seen["refused"] > flips // 5
    assert seen["harmless"] > flips // 5
    assert seen["died"] + seen["compared"] < flips // 20


def test_flipped_bits_are_noticed_or_harmless(victim: Victim) -> None:
    run_flips(victim, FLIPS, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_flipped_bits_are_noticed_or_harmless(victim: Victim) -> None:
    run_flips(victim, SLOW_FLIPS, seed=2)


@pytest.mark.parametrize("left", [1, 1000, PAGE, 2 * PAGE, 2 * PAGE + 1, 50 * PAGE, -PAGE, -1])
def test_a_store_that_was_cut_short_is_rebuilt_and_kills_nobody(victim: Victim, left: int) -> None:
    content = victim.good[:left]
    assert victim.read(content).startswith("refused ")
    data_dir, answer = victim.started(content)
    hash_kv = victim.truth.split()[1]
    assert answer.split()[:2] == ["done", hash_kv]
    aside = victim.store(data_dir).with_name("store.mdb.aside")
    assert aside.read_bytes()[: len(content)] == content, "kept for who wants it"
    assert victim.ask("start", data_dir).split()[:2] == ["done", hash_kv]


def test_a_store_found_damaged_at_the_start_is_rebuilt(victim: Victim) -> None:
    """Lost pages: a start reads those that hold the tables' roots and the state's own record."""
    rebuilt = 0
    pages = len(victim.good) // PAGE
    for page in (*range(0, pages - 8, 8), *range(pages - 8, pages)):
        at = page * PAGE
        damaged = victim.good[:at] + bytes(PAGE) + victim.good[at + PAGE :]
        data_dir, answer = victim.started(damaged)
        if answer.split()[:2] == ["done", victim.truth.split()[1]]:
            rebuilt += victim.store(data_dir).with_name("store.mdb.aside").exists()
        else:
            # Found while it runs, which ends the process; it is set aside for the next start.
            assert answer.startswith(("refused ", "died ")), answer
    assert rebuilt > 1
