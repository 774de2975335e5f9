"""One flipped bit anywhere in a member's LMDB file: noticed, harmless, or unlike the others.

Every kind of place in the file gets its turn: each table, branch, leaf and overflow pages, and of
each page its header, pointers, free space, keys and values. After each flip, a process of its own
reads everything that clients can read and members compare; then the member starts again and must
have, from snapshot and log, what was there before.

How damage shows: a record, by its checksum, which covers its key; a key that a search goes past,
by the records on both sides of where it should be; a lost table or revision, by what points to
it. Some flips make LMDB itself abort, fault, or go on for ever: that ends the process, or has it
ended, and serves nothing.

What a read cannot notice: whole records hidden without a gap that shows, as by a shorter list of
pointers in a page's header, or by a branch that leads to another sound page of the same table. Of
those, what is missing from the history makes the member's hash differ from the others'. What is
missing only from the index of keys, above the compact revision, does not; the long run counts
how often that is, and fails if it is more than a few in a thousand.

What is not repaired by itself: a file that makes LMDB crash does so at every start, because a
process that crashed is no reason to distrust the file. Moving the file away is (docs/operations).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.damaged_member import HASH, NOTICED, STATE_HASH, build
from tests.process.lmdb_pages import Region, regions
from tests.sim import counts
from tests.sim.prng import Prng

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
FLIPS = 130


class Campaign:
    """A sound data directory, and a program that reads damaged copies of it."""

    def __init__(self, directory: Path) -> None:
        self._sound = directory / "sound"
        self._copy = directory / "copy"
        build(self._sound)
        self._store = Path("member/db/store.mdb")
        self.content = (self._sound / self._store).read_bytes()
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.process.damaged_member"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        self.truth = self._ask("read", self._fresh())["reading"]
        assert NOTICED not in self.truth.values()
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        """What was served wrongly, and nothing noticed it."""

    def close(self) -> None:
        assert self._program.stdin is not None and self._program.stdout is not None
        self._program.stdin.close()
        self._program.wait()
        self._program.stdout.close()

    def flip(self, region: Region, at: int, bit: int) -> None:
        """One flip: what it does, and that the next start is as if it had not been."""
        copy = self._fresh()
        content = bytearray(self.content)
        content[at] ^= 1 << bit
        (copy / self._store).write_bytes(content)
        outcome = self._judge(self._ask("read", copy), f"{region.kind} {at - region.start}.{bit}")
        self.seen[outcome] += 1
        if outcome == "harmless":
            return
        if not (outcome.startswith("noticed") or outcome == "refused at the start"):
            # Nothing but the hash, or the crash, tells: an operator moves the file away.
            again = self._ask("restart", copy)
            self.seen["and again at the next start"] += again["outcome"] in ("crashed", "hung")
            (copy / self._store).unlink(missing_ok=True)
        repaired = self._ask("restart", copy)
        assert repaired["outcome"] == "read", (region, at, bit, outcome, repaired)
        assert repaired["reading"] == self.truth
        self.seen["repaired"] += 1

    def _judge(self, answer: dict[str, Any], where: str) -> str:
        if answer["outcome"] != "read":
            assert answer["outcome"] in ("refused", "crashed", "hung"), (where, answer)
            return {"refused": "refused at the start"}.get(answer["outcome"], answer["outcome"])
        reading = answer["reading"]
        differs = {name for name in self.truth if reading.get(name) != self.truth[name]}
        wrong = {name for name in differs if reading[name] != NOTICED} - {HASH, STATE_HASH}
        if not differs:
            return "harmless"
        if not wrong:
            return "noticed at a read" if NOTICED in reading.values() else "hash differs"
        if HASH in differs:
            return "hash differs"
        if NOTICED in reading.values():
            self.wrong.append(f"(noticed by other reads) {where}: {sorted(wrong)[:3]}")
            return "noticed at other reads only"
        self.wrong.append(f"{where}: {sorted(wrong)[:3]}")
        return "served as truth"

    def _fresh(self) -> Path:
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._sound, self._copy)
        return self._copy

    def _ask(self, what: str, directory: Path) -> dict[str, Any]:
        assert self._program.stdin is not None and self._program.stdout is not None
        order = {"do": what, "directory": str(directory)}
        self._program.stdin.write(json.dumps(order) + "\n")
        self._program.stdin.flush()
        answer: dict[str, Any] = json.loads(self._program.stdout.readline())
        return answer


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    campaign = Campaign(tmp_path)
    yield campaign
    campaign.close()


def run_flips(campaign: Campaign, flips: int, seed: int) -> None:
    """That many flips, the kinds of places in turn."""
    by_kind: dict[tuple[str, str, str], list[Region]] = defaultdict(list)
    for region in regions(campaign.content):
        by_kind[region.kind].append(region)
    kinds = sorted(by_kind)
    for page in ("branch", "leaf", "overflow", "meta", "unused"):
        assert any(kind[1] == page for kind in kinds), page
    prng = Prng(seed)
    for number in range(flips):
        region = prng.pick(by_kind[kinds[number % len(kinds)]])
        campaign.flip(region, region.start + prng.below(region.end - region.start), prng.below(8))
    print(flips, "flips in", len(kinds), "kinds of places:", dict(campaign.seen), campaign.wrong)
    counts.record("lmdb-flips", flips=flips, kinds=len(kinds), **campaign.seen)


def test_flips_all_over_the_file(campaign: Campaign) -> None:
    run_flips(campaign, FLIPS, seed=1)
    assert campaign.seen["served as truth"] == 0, campaign.wrong
    for outcome in ("harmless", "noticed at a read", "refused at the start", "repaired"):
        assert campaign.seen[outcome] > 5, campaign.seen


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_very_many_flips(campaign: Campaign) -> None:
    flips = int(os.environ.get("KVSTORE_LMDB_FLIPS", "3000"))
    run_flips(campaign, flips, seed=2)
    assert campaign.seen["served as truth"] == 0, campaign.wrong
