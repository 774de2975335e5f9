"""What the tests of the log share."""

from __future__ import annotations

from pathlib import Path

from kvstore.storage.wal import Recovered, Wal, WalIdentity
from raft.types import Entry, EntryKind, HardState

from .fake_disk import FakeDisk

DIRECTORY = Path("/wal")
IDENTITY = WalIdentity(0xC1, 0xA)


def entries(first: int, last: int, term: int = 1, size_bytes: int = 10) -> list[Entry]:
    return [
        Entry(index, term, EntryKind.NORMAL, b"%d." % index * (size_bytes // 2))
        for index in range(first, last + 1)
    ]


def write(
    wal: Wal, new: list[Entry], hard_state: HardState | None = None, *, sync: bool = True
) -> None:
    wal.write(wal.encode(hard_state, new), sync)


def reopen(disk: FakeDisk, keep_after: int = 0) -> Recovered:
    wal, recovered = Wal.open(disk, DIRECTORY, keep_after=keep_after, segment_bytes=4096)
    wal.close()
    return recovered
