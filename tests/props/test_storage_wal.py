"""The log against a model, with the machine stopping at any disk operation.

The model is the list of states that the log was in. After a crash the log must be in one of the
states since the last one that was acknowledged, and go on from there.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.storage.errors import WalCorrupt
from kvstore.storage.wal import Wal, WalIdentity, log_exists
from raft.types import EMPTY_HARD_STATE, Entry, HardState

from ..unit.storage.fake_disk import Crashed, FakeDisk

DIRECTORY = Path("/data/wal")
IDENTITY = WalIdentity(1, 2)
SEGMENT_BYTES = 16 * 1024


class State(NamedTuple):
    hard_state: HardState
    base: tuple[int, int]
    entries: tuple[Entry, ...]

    @property
    def last(self) -> int:
        return self.base[0] + len(self.entries)


class Run:
    """One log under random work; `possible[0]` is what is acknowledged."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = FakeDisk()
        self.possible = [State(EMPTY_HARD_STATE, (0, 0), ())]
        self.history = list(self.possible)
        """Every state that was written since the log was created or reset."""
        self.released = 0
        self.happened: Counter[str] = Counter()
        self.wal: Wal | None = None

    @property
    def state(self) -> State:
        return self.possible[-1]

    def work(self, steps: int) -> None:
        """Random work, with the machine stopping now and then."""
        for _ in range(steps):
            if self.random.random() < 0.25:
                self.disk.crash_at = self.disk.steps + self.random.randrange(
                    self.random.choice((2, 5, 12))
                )
            try:
                self.act()
            except Crashed:
                self.happened["crash"] += 1
                self.disk.crash(self.random.randrange)
                self.wal = None
        self.disk.crash_at = -1

    def act(self) -> None:
        if self.wal is None:
            self.open()
            return
        action = self.random.choices(
            ("append", "commit", "release", "reset", "close"), (12, 4, 2, 1, 1)
        )[0]
        getattr(self, action)(self.wal)
        self.happened[action] += 1

    def open(self) -> None:
        if not log_exists(self.disk, DIRECTORY):
            assert self.possible == [State(EMPTY_HARD_STATE, (0, 0), ())], "the log is lost"
            self.wal = Wal.create(self.disk, DIRECTORY, IDENTITY, segment_bytes=SEGMENT_BYTES)
            return
        wal, recovered = Wal.open(self.disk, DIRECTORY, keep_after=0, segment_bytes=SEGMENT_BYTES)
        self.happened["torn" if recovered.torn else "clean"] += 1
        assert recovered.identity == IDENTITY
        begin = recovered.base[0]
        matching = [
            state
            for state in self.possible
            if state.hard_state == recovered.hard_state
            and state.base[0] <= begin <= state.last
            and list(state.entries[begin - state.base[0] :]) == recovered.entries
            and (begin > state.base[0] or recovered.base == state.base)
        ]
        assert matching, (recovered, self.possible)
        assert begin <= max(self.released, matching[-1].base[0])
        self.possible = [matching[-1]]
        self.wal = wal

    def append(self, wal: Wal) -> None:
        state = self.state
        first = state.last + 1
        commit = state.hard_state.commit
        if first > commit + 1 and self.random.random() < 0.3:
            first = self.random.randint(commit + 1, state.last)
            self.happened["replace"] += 1
        count = self.random.randint(1, 4)
        term = state.hard_state.term + 1
        size = self.random.choice((0, 10, 700, 3000))
        filler = self.random.choice((b"\0", b"x"))
        entries = [Entry(first + i, term, 0, filler * size) for i in range(count)]
        hard_state = None
        if self.random.random() < 0.5:
            last = entries[-1].index
            hard_state = HardState(term, 1, self.random.randint(commit, last))
        kept = state.entries[: first - 1 - state.base[0]]
        self.write(
            wal,
            hard_state,
            entries,
            State(hard_state or state.hard_state, state.base, (*kept, *entries)),
        )

    def commit(self, wal: Wal) -> None:
        old = self.state.hard_state
        commit = self.random.randint(old.commit, self.state.last)
        hard_state = HardState(old.term, old.vote, commit)
        self.write(wal, hard_state, [], self.state._replace(hard_state=hard_state))

    def write(
        self, wal: Wal, hard_state: HardState | None, entries: list[Entry], after: State
    ) -> None:
        sync = self.random.random() < 0.6
        batch = wal.encode(hard_state, entries)
        self.possible.append(after)
        self.history.append(after)
        wal.write(batch, sync)
        if sync:
            self.possible = [after]

    def reset(self, wal: Wal) -> None:
        index = self.state.last + self.random.randint(0, 3)
        term = self.state.hard_state.term + 1
        hard_state = HardState(term, 1, index)
        after = State(hard_state, (index, term), ())
        self.possible.append(after)
        wal.reset(index, term, hard_state)
        self.possible = [after]
        self.history = [after]

    def release(self, wal: Wal) -> None:
        self.released = max(self.released, self.state.hard_state.commit)
        wal.release(self.state.hard_state.commit)

    def close(self, wal: Wal) -> None:
        wal.close()
        self.possible = [self.state]
        self.wal = None


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_what_was_acknowledged_survives_any_crash(seed: int) -> None:
    run = Run(seed)
    run.work(40)
    run.wal = None
    run.open()


def test_the_work_reaches_every_case() -> None:
    happened: Counter[str] = Counter()
    for seed in range(60):
        run = Run(seed)
        run.work(40)
        happened += run.happened
    for case in ("append", "commit", "release", "reset", "close", "replace"):
        assert happened[case] >= 10, (case, happened)
    assert happened["crash"] >= 100, happened
    assert happened["torn"] >= 10, happened
    assert happened["clean"] >= 100, happened


def grown(seed: int) -> Run:
    """A log at rest after random work without crashes."""
    run = Run(seed)
    run.open()
    for _ in range(15):
        if run.wal is None:
            run.open()
        assert run.wal is not None
        run.append(run.wal)
    assert run.wal is not None
    run.wal.close()
    return run


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_damage_is_never_served(seed: int, data: st.DataObject) -> None:
    run = grown(seed)
    disk = run.disk
    names = disk.list(DIRECTORY)
    path = DIRECTORY / data.draw(st.sampled_from(names))
    content = disk.content(path)
    before = bytes(content)
    kind = data.draw(st.sampled_from(("flip", "sector", "copy", "cut")))
    offset = data.draw(st.integers(0, len(content) - 1))
    sector = offset // 512 * 512
    if kind == "flip":
        content[offset] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "sector":
        content[sector : sector + 512] = bytes(512)
    elif kind == "copy":
        other = data.draw(st.integers(0, len(content) // 512 - 1)) * 512
        content[sector : sector + 512] = content[other : other + 512]
    else:
        disk.resize(path, offset)
    applied = run.state.hard_state.commit
    try:
        _, recovered = Wal.open(disk, DIRECTORY, keep_after=0, applied=applied)
    except WalCorrupt:
        assert bytes(disk.content(path)) != before
        return
    if kind == "cut":
        # Whatever was applied is there, and nothing that the log never said.
        assert path.name == names[-1]
        found = State(recovered.hard_state, recovered.base, tuple(recovered.entries))
        assert found in run.history
        assert found.last >= applied
        return
    # Either nothing that counts was hit, or the last, unacknowledged-looking mark.
    assert recovered.entries == list(run.state.entries)
    assert recovered.hard_state == run.state.hard_state


@pytest.mark.parametrize("seed", range(3))
def test_reset_is_whole_at_every_disk_operation(seed: int) -> None:
    for crash_after in range(40):
        run = grown(seed)
        run.open()
        assert run.wal is not None
        run.disk.crash_at = run.disk.steps + crash_after
        try:
            run.reset(run.wal)
        except Crashed:
            run.disk.crash(run.random.randrange)
            run.wal = None
            run.open()
            assert run.disk.list(DIRECTORY)[0].endswith(".wal")
        else:
            assert crash_after > 5
            return
    raise AssertionError("reset never came to its end")
