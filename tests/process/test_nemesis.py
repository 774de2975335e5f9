"""Real processes under a nemesis: kills, pauses, partitions, bad links, damage, replacement.

A few rounds of each run always. The campaign takes its counts from the environment:

    KVSTORE_ROUNDS_KILL=300 KVSTORE_ROUNDS_PAUSE=100 pytest -m slow tests/process/test_nemesis.py

Each round is traffic, a fault, and traffic again; then both linearizability checkers, every watch,
and the members' hashes are looked at. At the end the offline check reads every directory.
KVSTORE_SEED chooses who is struck, and when; the clock is real, so no run repeats exactly.
"""

from __future__ import annotations

import os
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.support import campaign
from tests.support.battlefield import mounted
from tests.support.damage import DAMAGES, REPLACEMENTS
from tests.support.nemesis import BAD_LINKS, DISKS, KILLS, PARTITIONS, PAUSES, Fault

pytestmark = [pytest.mark.process]

SEED = int(os.environ.get("KVSTORE_SEED", "1"))


def in_turn(faults: dict[str, Fault], count: int) -> list[tuple[str, Fault]]:
    return list(islice(cycle(faults.items()), count))


@pytest.mark.timeout(300)
def test_kills(tmp_path: Path) -> None:
    total = campaign.run("kill", in_turn(KILLS, 8), tmp_path, seed=SEED)
    assert total["rounds"] == 8
    assert total["kill"] >= 16


@pytest.mark.timeout(300)
def test_partitions_a_pause_and_damage(tmp_path: Path) -> None:
    rounds = in_turn(PARTITIONS, 3)
    rounds += [("pause leader", PAUSES["pause leader"])]
    rounds += [("flip in a log", DAMAGES["flip in a log"])]
    rounds += [("flipped bits", BAD_LINKS["flipped bits"])]
    total = campaign.run("partition", rounds, tmp_path, seed=SEED)
    assert total["rounds"] == len(rounds)
    assert total["one-way partition"] == 1
    for fired in ("swallowed", "pause", "member replaced", "flipped"):
        assert total[fired], f"{fired}: has not happened"


CAMPAIGNS = {
    "kill": (KILLS, 20),
    "pause": (PAUSES, 5),
    "partition": (PARTITIONS, 5),
    "damage": (DAMAGES, 3),
    "links": (BAD_LINKS, len(BAD_LINKS)),
    "replace": (REPLACEMENTS, len(REPLACEMENTS)),
}
"""The counts are those of every change; nightly runs ask for more."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_full_disks(tmp_path: Path) -> None:
    count = int(os.environ.get("KVSTORE_ROUNDS_DISK", "2"))
    small = tmp_path / "disk0" / "n1.data"
    small.mkdir(parents=True)
    with mounted(small, mib=400):
        total = campaign.run("disk", in_turn(DISKS, count), tmp_path, seed=SEED)
    assert total["disk full"] == total["rounds"] == count


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_campaign(tmp_path: Path, name: str) -> None:
    faults, usual = CAMPAIGNS[name]
    count = int(os.environ.get(f"KVSTORE_ROUNDS_{name.upper()}", usual))
    total = campaign.run(
        f"{name}.long",
        in_turn(faults, count),
        tmp_path,
        seed=SEED,
        size=lambda cluster: 3 if cluster % 2 else 5,
    )
    assert total["rounds"] == count
