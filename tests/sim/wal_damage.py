"""A log of 4 KiB with everything known about it, and what the design says of it when damaged.

`Log.verdict` is written from the rules (torn: only an unfinished batch at the end, of which a
sector is missing or in which the file ends, with nothing that says it was synced; corrupt:
everything else), on what is known of how the log was made. It reads no batch head and computes
no checksum, so it cannot share a mistake with the code that does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from kvstore.storage.errors import WalCorrupt
from kvstore.storage.wal import Wal, WalIdentity
from raft.types import EMPTY_HARD_STATE, Entry, EntryKind, HardState
from tests.sim.disk import CrashPolicy, VirtualDisk
from tests.sim.prng import Prng

__all__ = (
    "DIRECTORY",
    "LOG_BYTES",
    "Log",
    "LongLog",
    "State",
    "Verdict",
    "judged",
    "kinds_of_log",
)

DIRECTORY: Final = Path("/wal")
LOG_BYTES: Final = 4096
SECTOR: Final = 512
_IDENTITY: Final = WalIdentity(0xC1, 0xA)


class State(NamedTuple):
    """What a log says; entry 1 is the first."""

    hard_state: HardState
    entries: tuple[Entry, ...]


class Verdict(NamedTuple):
    """`torn`: where the unfinished end begins; None: clean. `state` None: corrupt."""

    state: State | None
    torn: int | None = None


CORRUPT: Final = Verdict(None)


class Batch(NamedTuple):
    """Where a batch stands. From `used` to `end` it is zeros."""

    start: int
    used: int
    end: int
    synced: int
    """Everything before this byte was synced when it was written, and it says so."""


@dataclass
class Log:
    """A log that was written batch by batch; `states[n]` is what its first n batches say."""

    disk: VirtualDisk = field(default_factory=lambda: VirtualDisk(Prng(0)))
    states: list[State] = field(default_factory=lambda: [State(EMPTY_HARD_STATE, ())])
    batches: list[Batch] = field(default_factory=list)
    segment_bytes: int = LOG_BYTES
    synced: int = SECTOR

    def __post_init__(self) -> None:
        self.disk.session().make_dir(DIRECTORY)
        self.wal = Wal.create(
            self.disk.session(), DIRECTORY, _IDENTITY, segment_bytes=self.segment_bytes
        )

    @property
    def path(self) -> Path:
        """The newest segment's file."""
        return DIRECTORY / self.disk.session().list(DIRECTORY)[-1]

    def write(
        self, entries: list[Entry], hard_state: HardState | None = None, *, sync: bool
    ) -> None:
        """One batch; its entries replace those from their first index on."""
        self.wal.write(self.wal.encode(hard_state, entries), sync)
        old = self.states[-1]
        kept = old.entries[: entries[0].index - 1] if entries else old.entries
        self.states.append(State(hard_state or old.hard_state, (*kept, *entries)))
        self._measure()
        if sync:
            self.synced = self.batches[-1].end

    def close(self) -> None:
        """An orderly end, which notes that all is synced if there is room for it."""
        self.wal.close()
        before = self.batches[-1].end
        self.synced = before
        self._measure()
        if self.batches[-1].end > before:
            self.states.append(self.states[-1])

    def _measure(self) -> None:
        start = self.batches[-1].end if self.batches else SECTOR
        used = len(self.disk.content(self.path).rstrip(b"\0"))
        if used > start:
            end = -(-used // SECTOR) * SECTOR
            self.batches.append(Batch(start, used, end, self.synced))

    # ---- what the design says ----------------------------------------------------------------

    def flipped(self, at: int) -> Verdict:
        """The verdict over this log with one bit of the byte `at` changed."""
        end = self.batches[-1].end
        if at < end + SECTOR:
            return CORRUPT  # no sector of a batch has only one bit set, so none can vanish
        # Behind a sector that was never written stands something: a batch without its head.
        return Verdict(self.states[-1], torn=end)

    def lost(self, at: int) -> Verdict:
        """The verdict over this log with the sector `at` zero, which it was not."""
        if at < SECTOR:
            return CORRUPT
        number = next(n for n, batch in enumerate(self.batches) if batch.start <= at < batch.end)
        batch = self.batches[number]
        later = self.batches[number + 1 :]
        if any(each.synced > batch.start for each in later):
            return CORRUPT
        is_gone = not later and batch.end - batch.start == SECTOR
        return Verdict(self.states[number], torn=None if is_gone else batch.start)

    def cut(self, left: int, *, applied: int = 0) -> Verdict:
        """The verdict over the first `left` bytes of this log."""
        if left < SECTOR:
            return CORRUPT
        whole = sum(batch.used <= left for batch in self.batches)
        state = self.states[whole]
        if len(state.entries) < applied:
            return CORRUPT
        if whole < len(self.batches) and left > self.batches[whole].start:
            return Verdict(state, torn=self.batches[whole].start)
        return Verdict(state)


def judged(disk: VirtualDisk, *, applied: int = 0) -> Verdict:
    """What opening a log says."""
    try:
        _, recovered = Wal.open(
            disk.session(), DIRECTORY, keep_after=0, applied=applied, segment_bytes=LOG_BYTES
        )
    except WalCorrupt:
        return CORRUPT
    torn = None if recovered.torn is None else recovered.torn.offset
    return Verdict(State(recovered.hard_state, tuple(recovered.entries)), torn)


def some(first: int, last: int, term: int, size_bytes: int = 10) -> list[Entry]:
    """Entries that differ in every field."""
    return [
        Entry(index, term, EntryKind.NORMAL, (b"%d/%d " % (index, term) * size_bytes)[:size_bytes])
        for index in range(first, last + 1)
    ]


def kinds_of_log() -> dict[str, Log]:
    """Logs of 4 KiB in every state that matters."""
    closed = Log()
    closed.write(some(1, 1, 1), HardState(1, 2, 0), sync=True)
    closed.write(some(2, 3, 1, 300), sync=True)
    closed.write([], HardState(1, 2, 2), sync=True)
    closed.write(some(4, 6, 1, 200), HardState(1, 2, 4), sync=True)
    closed.close()

    unsynced = Log()  # two batches beyond the last sync, one of several sectors
    unsynced.write(some(1, 2, 1, 100), HardState(1, 2, 0), sync=True)
    unsynced.write(some(3, 3, 1, 20), sync=True)
    unsynced.write(some(4, 5, 1, 500), sync=False)
    unsynced.write(some(6, 6, 1), HardState(1, 2, 3), sync=False)

    replaced = Log()  # a new leader's entries took the place of some
    replaced.write(some(1, 5, 1, 60), HardState(1, 2, 2), sync=True)
    replaced.write(some(3, 4, 2, 250), HardState(2, 3, 2), sync=True)
    replaced.write(some(4, 4, 3, 30), HardState(3, 1, 3), sync=True)
    replaced.write(some(5, 7, 3, 100), sync=False)

    full = Log()  # to its last byte, with a value of zeros
    full.write(some(1, 1, 1, 700), HardState(1, 2, 0), sync=True)
    full.write([Entry(2, 1, EntryKind.NORMAL, bytes(1300))], sync=True)
    full.write(some(3, 3, 1, 400), sync=True)
    full.write(some(4, 4, 1, 300), HardState(1, 2, 3), sync=False)
    assert full.batches[-1].end == LOG_BYTES
    return {"closed": closed, "unsynced": unsynced, "replaced": replaced, "full": full}


class LongLog:
    """Several segments, entries replaced, torn ends erased; and all that ever stood in them."""

    def __init__(self) -> None:
        self.disk = VirtualDisk(Prng(5))
        self.disk.session().make_dir(DIRECTORY)
        self.states = [State(EMPTY_HARD_STATE, ())]
        self.unsynced: list[State] = []
        """With the entries of writes that a crash tore: a file of the past may hold them whole."""
        self.past: list[dict[Path, bytes]] = []
        """The files after every write."""
        wal = Wal.create(self.disk.session(), DIRECTORY, _IDENTITY, segment_bytes=LOG_BYTES)
        prng = Prng(11)
        for step in range(48):
            if step % 8 == 7:
                wal = self._crash_in_a_write(wal)
            old = self.states[-1]
            last, commit = len(old.entries), old.hard_state.commit
            first = last + 1 if prng.chance(3, 4) else max(last - 1, commit + 1)
            term = old.hard_state.term + (first <= last or step == 0)
            new = some(first, first + prng.below(3), term, prng.pick((10, 200, 700)))
            hard_state = HardState(term, 1, prng.between(commit, first - 1))
            wal.write(wal.encode(hard_state, new), True)
            self.states.append(State(hard_state, (*old.entries[: first - 1], *new)))
            self.past.append(self.files())
        self.applied = self.states[-1].hard_state.commit

    def files(self) -> dict[Path, bytes]:
        """What the segments hold."""
        names = self.disk.session().list(DIRECTORY)
        return {DIRECTORY / name: self.disk.content(DIRECTORY / name) for name in names}

    def _crash_in_a_write(self, wal: Wal) -> Wal:
        old = self.states[-1]
        torn = some(len(old.entries) + 1, len(old.entries) + 1, old.hard_state.term, 1300)
        wal.write(wal.encode(None, torn), False)
        self.unsynced.append(State(old.hard_state, (*old.entries, *torn)))
        self.past.append(self.files())
        self.disk.power_loss(CrashPolicy.ZERO_SECTOR)
        wal, recovered = Wal.open(
            self.disk.session(), DIRECTORY, keep_after=0, segment_bytes=LOG_BYTES
        )
        assert recovered.torn is not None
        assert State(recovered.hard_state, tuple(recovered.entries)) == old
        return wal
