"""Every flipped bit and every truncation of a 4 KiB log gets the verdict that the design gives.

And more faults at once, of every kind that disks have (`slow`; `KVSTORE_WAL_FAULTS` says how
many): what a damaged log serves is never anything but a state that it was really in, and never
one without what the member has applied.

What no reader can notice, and no test here demands: the last batches of a log, lost as a whole.
A file cut between two batches, or all sectors of the last ones back to zeros, is a shorter log in
perfect order. What this member applied is held against it (`applied`), and the others' copies of
what it acknowledged.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.sim import counts
from tests.sim.disk import VirtualDisk
from tests.sim.prng import Prng
from tests.sim.wal_damage import LOG_BYTES, LongLog, judged, kinds_of_log

KINDS = tuple(kinds_of_log())

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_gets_the_right_verdict(kind: str) -> None:
    log = kinds_of_log()[kind]
    disk, path = log.disk, log.path
    whole = disk.content(path)
    assert len(whole) == LOG_BYTES
    seen: Counter[str] = Counter()
    for bit in range(LOG_BYTES * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        content = bytes(damaged)
        disk.replace(path, content)
        verdict = judged(disk)
        assert verdict == log.flipped(bit // 8), bit
        if verdict.state is None:
            assert disk.content(path) == content, "a refusal changes nothing"
        else:
            assert disk.content(path) == whole, "the unfinished end was cut"
        seen["corrupt" if verdict.state is None else "torn"] += 1
    assert seen["corrupt"] == min(log.batches[-1].end + 512, LOG_BYTES) * 8
    counts.record(f"wal-flips-{kind}", flips=LOG_BYTES * 8, **seen)


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_gets_the_right_verdict(kind: str) -> None:
    log = kinds_of_log()[kind]
    disk, path = log.disk, log.path
    whole = disk.content(path)
    applied = log.states[-1].hard_state.commit
    seen: Counter[str] = Counter()
    for left in range(LOG_BYTES + 1):
        for known in (0, applied):
            disk.replace(path, whole[:left])
            verdict = judged(disk, applied=known)
            assert verdict == log.cut(left, applied=known), (left, known)
            if verdict.state is None:
                seen["corrupt"] += 1
                assert disk.content(path) == whole[:left], "a refusal changes nothing"
                continue
            seen["clean" if verdict.torn is None else "torn"] += 1
            end = log.batches[log.states.index(verdict.state) - 1].end if verdict.state[1] else 512
            assert disk.content(path)[:end] == whole[:end]
            assert len(disk.content(path)) == LOG_BYTES
    assert min(seen[verdict] for verdict in ("clean", "torn", "corrupt")) > 100
    counts.record(f"wal-truncations-{kind}", truncations=2 * (LOG_BYTES + 1), **seen)


@pytest.mark.parametrize("kind", KINDS)
def test_every_lost_sector_gets_the_right_verdict(kind: str) -> None:
    log = kinds_of_log()[kind]
    whole = log.disk.content(log.path)
    torn = 0
    for sector in range(0, LOG_BYTES, 512):
        content = whole[:sector] + bytes(512) + whole[sector + 512 :]
        if content == whole:
            continue  # it was zeros before
        log.disk.replace(log.path, content)
        verdict = judged(log.disk)
        assert verdict == log.lost(sector), sector
        torn += verdict.torn is not None
    assert torn == (3 if kind == "unsynced" else 0)  # the sectors of the batch of three


# ---- many faults at once ----------------------------------------------------------------------


def damage(log: LongLog, prng: Prng) -> Counter[str]:
    """One to four faults of any kind; what really changed something."""
    disk = log.disk
    paths = list(log.past[-1])
    for _ in range(1 + min(prng.below(4), prng.below(4))):
        # The newest segments are where the verdict is not simply "corrupt".
        path = paths[-1 if prng.chance(3, 4) else prng.below(len(paths))]
        size = len(disk.content(path))
        sector = prng.below(LOG_BYTES // 512)
        kind = prng.weighted(
            ((3, "flip"), (3, "zero"), (3, "stale"), (3, "misdirect"), (1, "cut"), (1, "old"))
        )
        if kind == "flip":
            disk.flip_bit(path, prng.below(LOG_BYTES * 8))
        elif kind == "zero":
            disk.zero_sector(path, sector)
        elif kind == "stale":
            old = prng.pick(log.past).get(path, bytes(LOG_BYTES))
            put(disk, path, sector, old[sector * 512 : sector * 512 + 512], "sector stale")
        elif kind == "misdirect":
            disk.misdirect(path, sector, prng.pick(paths), prng.below(LOG_BYTES // 512))
        elif kind == "cut":
            disk.replace(path, disk.content(path)[: prng.below(size + 1)])
            disk.fired["file cut"] += 1
        elif path in (past := prng.pick(log.past)):
            disk.replace(path, past[path])
            disk.fired["file of the past"] += 1
    fired = Counter(disk.fired)
    disk.fired.clear()
    return fired


def put(disk: VirtualDisk, path: Path, sector: int, data: bytes, kind: str) -> None:
    content = disk.content(path)
    changed = content[: sector * 512] + data + content[sector * 512 + 512 :]
    if sector * 512 < len(content) and changed != content:
        disk.replace(path, changed[: len(content)])
        disk.fired[kind] += 1


def run_faults(rounds: int, seed: int) -> Counter[str]:
    """That many damaged logs; what happened."""
    log, prng = LongLog(), Prng(seed)
    good = log.past[-1]
    known = {*log.states, *log.unsynced}
    log.disk.fired.clear()
    seen: Counter[str] = Counter()
    for _ in range(rounds):
        fired = damage(log, prng)
        changed = [path for path in good if log.disk.content(path) != good[path]]
        # A member knows what it applied; one that rebuilds its store knows only the log's commit.
        applied = log.applied if prng.chance(1, 2) else 0
        verdict = judged(log.disk, applied=applied)
        seen.update(fired)
        seen["faults"] += fired.total()
        if verdict.state is None:
            assert changed, "a sound log was refused"
            seen["refused"] += 1
        else:
            assert verdict.state in known, "what is served was once the log"
            assert len(verdict.state.entries) >= applied
            assert len(verdict.state.entries) >= verdict.state.hard_state.commit
            is_whole = verdict.state == log.states[-1]
            seen["whole" if is_whole else "shorter"] += 1
        for path in log.files():
            if path in good:
                log.disk.replace(path, good[path])
    return seen


def test_many_faults_at_once_never_serve_what_was_not_the_log() -> None:
    seen = run_faults(3000, seed=1)
    kinds = ("bit flipped", "sector zeroed", "sector stale", "write misdirected", "file cut")
    for kind in (*kinds, "file of the past", "refused", "whole", "shorter"):
        assert seen[kind] > 20, (kind, seen)
    counts.record("wal-faults", rounds=3000, **seen)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_very_many_faults() -> None:
    rounds = int(os.environ.get("KVSTORE_WAL_FAULTS", "100000"))
    seen = run_faults(rounds, seed=2)
    print(rounds, dict(seen))
    counts.record("wal-faults", rounds=rounds, **seen)
