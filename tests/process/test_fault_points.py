"""Members that die at armed fault points: what was acknowledged is there, and nothing else.

Most rounds are lived by members without front doors, in processes forked for them (`fault_child`):
they cost a tenth of a second. Each takes a directory of a certain past, lives in it until the armed
point ends it, and is compared: the offline check is clean before and after, every acknowledged
write is there, nothing that nobody wrote, the revision has not gone back, and log and snapshots
alone lead to the same hashes.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kvstore import faults
from tests.process.fault_rounds import Forker, History, Referee, forker
from tests.support.power import another_boot, log_end, newest_segment, scramble_store, tear_log
from tests.support.servers import free_ports

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

BETWEEN_MEMBERS = (
    "install.",
    "peer.",
    "transfer.",
    "wal.before_reset",
    "wal.reset",
    "wal.after_reset",
)


@pytest.fixture(scope="module")
def jobs() -> Iterator[Forker]:
    with forker() as made:
        yield made


@dataclass
class Past:
    """A directory to begin rounds with, what was said in it, and what a life in it passes."""

    directory: Path
    history: History
    passages: dict[str, int]

    def copy(self, target: Path) -> History:
        shutil.copytree(self.directory, target)
        return self.history.copy()


Damage = Callable[[Path], None]
Pasts = Callable[[Damage], Past]


def nothing(_: Path) -> None:
    """A member that never was: it begins."""


def lived(_: Path) -> None:
    """Stopped in order."""


def lost_power(data_dir: Path) -> None:
    """The store cannot be believed: it is built anew."""
    another_boot(data_dir)
    scramble_store(data_dir)


def torn(data_dir: Path) -> None:
    """Half of the last write reached the disk."""
    tear_log(data_dir)


def cut_short(data_dir: Path) -> None:
    """The zeros at the end of the last segment are missing."""
    os.truncate(newest_segment(data_dir), log_end(data_dir))


PASTS: dict[Damage, tuple[str | None, str]] = {
    nothing: (None, "bootstrap.done"),
    lived: ("", "recovery.store_opened"),
    lost_power: ("apply.answered=exit:20", "recovery.rebuilt"),
    torn: ("wal.before_sync=exit:22", "wal.tail_erased"),
    cut_short: ("apply.after=exit:5", "wal.refilled"),
}
"""What is done to the files: where the life before ends (None: there was none), and a point that
the next start then passes."""


def make_past(jobs: Forker, where: Path, damage: Damage) -> Past:
    """A few tries: where nothing but a hard state was written last, nothing can be torn in two."""
    ending, sign = PASTS[damage]
    directory, trial = where / damage.__name__, where / "trial"
    for seed in range(1000, 1020):
        directory.mkdir()
        history = History()
        if ending is not None:
            before = jobs.run("live", directory, faults=ending, seed=seed)
            assert before.code == (faults.EXIT_CODE if ending else 0), before.said[-2:]
            history.add(before.said)
            damage(directory / "a")
        shutil.copytree(directory, trial)
        passed = jobs.run("live", trial, seed=2000)
        assert passed.code == 0, passed.said[-2:]
        shutil.rmtree(trial)
        passages: dict[str, int] = passed.word("passed")
        if sign in passages:
            return Past(directory, history, passages)
        shutil.rmtree(directory)
    raise AssertionError(f"{damage.__name__} never led to {sign}")


def rounds(past: Past, per_point: int, chance: random.Random) -> Iterator[tuple[str, int]]:
    """Points and passages: the first, and others by chance."""
    for name, count in past.passages.items():
        others = range(2, max(2, count))  # The last one may not come again: batches vary.
        chosen = chance.sample(others, min(per_point - 1, len(others)))
        yield from ((name, passage) for passage in (1, *chosen))


def kill_and_compare(jobs: Forker, past: Past, where: Path, armed: str, seed: int) -> bool:
    """One round; False if the point was not passed so often."""
    directory = where / "round"
    history = past.copy(directory)
    died = jobs.run("live", directory, faults=armed, seed=seed)
    assert died.killed or died.code == 0, (armed, died.said[-2:])
    history.add(died.said)
    Referee(jobs).settle(directory, history, seed)
    shutil.rmtree(directory)
    return died.killed


def campaign(
    jobs: Forker, where: Path, per_point: dict[Damage, int], again: Collection[Damage]
) -> Counter[str]:
    """Kills at every point that lives after each of the pasts pass; counts them by point.

    After those not in `again`, only at points that no earlier past has led to.
    """
    began = time.monotonic()
    kills: Counter[str] = Counter()
    seeds = itertools.count(1)
    chance = random.Random(7)
    for damage, each in per_point.items():
        past = make_past(jobs, where, damage)
        before = set(kills)
        for name, passage in rounds(past, each, chance):
            if name in before and damage not in again:
                continue
            armed = f"{name}=exit:{passage}"
            try:
                kills[name] += kill_and_compare(jobs, past, where, armed, next(seeds))
            except AssertionError as error:
                raise AssertionError(f"{armed} after {damage.__name__}: {error}") from error
    print(f"\n{kills.total()} kills at {len(+kills)} points, {time.monotonic() - began:.1f} s")
    return +kills


def lonely_points() -> set[str]:
    return {name for name in faults.POINTS if not name.startswith(BETWEEN_MEMBERS)}


def test_a_kill_at_each_point_of_a_lonely_member(jobs: Forker, tmp_path: Path) -> None:
    pasts = dict.fromkeys((lived, nothing, lost_power, torn, cut_short), 1)
    kills = campaign(jobs, tmp_path, pasts, again=(nothing,))
    assert set(kills) == lonely_points()


@pytest.mark.slow
def test_kills_at_all_points_after_all_pasts(jobs: Forker, tmp_path: Path) -> None:
    pasts = {nothing: 1, lived: 3, lost_power: 1, torn: 1, cut_short: 1}
    kills = campaign(jobs, tmp_path, pasts, again=PASTS)
    assert set(kills) == lonely_points()
    assert kills.total() >= 200


@dataclass
class Joining:
    """The beginning of a round with two members: nothing but the ports they will have."""

    jobs: Forker
    where: Path

    def begin(self) -> Path:
        self.where.mkdir()
        one, two = free_ports(2)
        (self.where / "ports").write_text(json.dumps({"a": one, "b": two}))
        return self.where

    def passages(self) -> dict[str, int]:
        outcome = self.jobs.run("join", self.begin(), seed=1)
        assert outcome.code == 0, outcome.said[-2:]
        shutil.rmtree(self.where)
        counts: dict[str, int] = outcome.word("passed")
        return counts

    def round(self, armed: str, seed: int) -> bool:
        directory = self.begin()
        died = self.jobs.run("join", directory, faults=armed, seed=seed)
        assert died.killed or died.code == 0, (armed, died.said[-2:])
        history = History()
        history.add(died.said)
        Referee(self.jobs).settle(directory, history, seed, "settle both")
        shutil.rmtree(directory)
        return died.killed


def kills_while_joining(jobs: Forker, where: Path, wanted: Callable[[str], bool]) -> set[str]:
    """Both members die at once; the state of the second was on its way as a snapshot."""
    joining = Joining(jobs, where)
    kills, killed = 0, set()
    for seed, (name, count) in enumerate(joining.passages().items(), start=50):
        if not wanted(name):
            continue
        for passage in {1, max(1, count * 2 // 3)}:
            armed = f"{name}=exit:{passage}"
            try:
                if joining.round(armed, seed):
                    killed.add(name)
                    kills += 1
            except AssertionError as error:
                raise AssertionError(f"{armed}: {error}") from error
    print(f"\n{kills} kills at {len(killed)} points while a member joins")
    return killed


def test_kills_between_members(jobs: Forker, tmp_path: Path) -> None:
    def only_there(name: str) -> bool:
        return name.startswith(BETWEEN_MEMBERS)

    killed = kills_while_joining(jobs, tmp_path / "join", only_there)
    assert killed == {name for name in faults.POINTS if only_there(name)}


@pytest.mark.slow
def test_kills_at_all_points_while_a_member_joins(jobs: Forker, tmp_path: Path) -> None:
    killed = kills_while_joining(jobs, tmp_path / "join", lambda name: True)
    assert len(killed) > 50


# ---- a failing disk -------------------------------------------------------------------------


def what_became(jobs: Forker, past: Past, where: Path, armed: str) -> tuple[str, str, int]:
    """How a life ended in which something failed: (word, sentence, how often the point was passed).

    Whatever it was, the next life, on a sound disk, finds all that was acknowledged.
    """
    directory = where / "round"
    history = past.copy(directory)
    outcome = jobs.run("live", directory, faults=armed, seed=77)
    assert outcome.code == 0, (armed, outcome.said[-2:])
    words = [each for each in outcome.said if each[0] in (ENDED, REFUSED, UNSTARTED, UNSTOPPED)]
    # An operator's request may have been refused on the way to the end.
    words.sort(key=lambda each: each[0] != ENDED)
    end = next((at for at, each in enumerate(outcome.said) if each[0] == ENDED), None)
    if end is not None:
        late = [each for each in outcome.said[end:] if each[0] == "ack"]
        assert not late, "acknowledged after the end"
    history.add(outcome.said)
    Referee(jobs).settle(directory, history, 78)
    shutil.rmtree(directory)
    name = armed.partition("=")[0]
    return words[0][0], str(words[0][-1]), outcome.word("passed")[name]


ENDED, REFUSED = "ended by itself", "refused"
UNSTARTED, UNSTOPPED = "did not start", "did not stop in order"
EXPECTED: dict[str, tuple[Damage, str]] = {
    **dict.fromkeys(("wal.before_write", "wal.after_write", "wal.before_sync"), (lived, ENDED)),
    **dict.fromkeys(
        ("wal.after_sync", "wal.before_segment", "wal.segment_written"), (lived, ENDED)
    ),
    **dict.fromkeys(("wal.segment_named", "wal.after_segment"), (lived, ENDED)),
    **dict.fromkeys(("wal.before_release", "wal.segment_removed"), (lived, ENDED)),
    **dict.fromkeys(("store.before_commit", "store.after_commit"), (lived, ENDED)),
    **dict.fromkeys(("swap.before_rename", "swap.after_rename"), (lived, ENDED)),
    **dict.fromkeys(("swap.after_dir_sync", "swap.reopened"), (lived, ENDED)),
    **dict.fromkeys(("snapshot.begun", "snapshot.before_sync"), (lived, REFUSED)),
    **dict.fromkeys(("snapshot.after_sync", "snapshot.after_rename"), (lived, REFUSED)),
    **dict.fromkeys(
        ("store.before_copy", "store.copy_piece", "store.after_copy"), (lived, REFUSED)
    ),
    **dict.fromkeys(("wal.closed", "store.before_final_sync"), (lived, UNSTOPPED)),
    **dict.fromkeys(("store.before_mark", "recovery.log_opened"), (lived, UNSTARTED)),
    **dict.fromkeys(("rebuild.before", "rebuild.piece", "rebuild.after"), (lost_power, UNSTARTED)),
    **dict.fromkeys(("store.set_aside", "recovery.rebuilt"), (lost_power, UNSTARTED)),
    "wal.tail_erased": (torn, UNSTARTED),
    "wal.refilled": (cut_short, UNSTARTED),
    **dict.fromkeys(("bootstrap.marked", "bootstrap.store_made"), (nothing, UNSTARTED)),
    **dict.fromkeys(("bootstrap.log_created", "snapshot.read_back"), (nothing, UNSTARTED)),
}
"""What a member must do when an operation there fails."""


@pytest.fixture(scope="module")
def pasts(jobs: Forker, tmp_path_factory: pytest.TempPathFactory) -> Pasts:
    where = tmp_path_factory.mktemp("pasts")
    made: dict[Damage, Past] = {}

    def past(damage: Damage) -> Past:
        if damage not in made:
            made[damage] = make_past(jobs, where, damage)
        return made[damage]

    return past


@pytest.mark.parametrize("action", ["eio", "enospc"])
@pytest.mark.parametrize("name", EXPECTED)
def test_an_operation_that_fails(
    jobs: Forker, pasts: Pasts, tmp_path: Path, name: str, action: str
) -> None:
    """It fails once, so that whoever tried again would succeed, and believe it."""
    damage, expected = EXPECTED[name]
    word, sentence, passed = what_became(jobs, pasts(damage), tmp_path, f"{name}={action}:1")
    assert word == expected, sentence
    assert os.strerror(errno.EIO if action == "eio" else errno.ENOSPC) in sentence
    assert "start the process again" in sentence or "Free disk space" in sentence
    assert "Replace this member" not in sentence
    if word != REFUSED:
        assert passed == 1, "it was tried again"
