"""The write-ahead log: what a member promised, in files that tell damage from interruption.

Rules: `encode` runs on the loop and does no I/O; `write`, `release`, `reset` and `close` run in
one thread at a time, batches in the order in which they were encoded. After any failure the log
refuses everything: what the disk holds is then known only by reading it again (`open`).

Not here: which entries are needed (the caller says `release`), snapshots, and the decision to
end the process. The bytes are in wal_format, reading and the verdicts in wal_scan, the files in
wal_writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgpack

from kvstore.storage.disk import Disk, make_directory
from kvstore.storage.errors import DiskFailed, WalExists
from kvstore.storage.fault_points import disk_point
from kvstore.storage.limits import SEGMENT_BYTES
from kvstore.storage.size_marks import SizeMarks
from kvstore.storage.wal_format import (
    HEAD,
    HEADER_BYTES,
    RecordKind,
    SegmentHeader,
    build_record,
    padded,
    parse_name,
)
from kvstore.storage.wal_scan import TornTail, WalIdentity, scan_log
from kvstore.storage.wal_writer import SegmentWriter
from raft.types import EMPTY_HARD_STATE, Entry, HardState

__all__ = ("Recovered", "Wal", "WalBatch", "WalIdentity", "log_exists")


class WalBatch(NamedTuple):
    """Records ready to be written, and the state of the log before them."""

    records: bytes
    previous_crc: int
    crc: int
    last_before: tuple[int, int]
    """Index and term of the entry before."""
    hard_state_before: HardState


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a log held when it was opened."""

    identity: WalIdentity
    hard_state: HardState
    base: tuple[int, int]
    """Index and term of the entry before the first of `entries`: `keep_after` itself, if the log
    holds it; a later one if the log begins later; the log's last if it ends before."""
    entries: list[Entry]
    torn: TornTail | None
    """An unfinished last write that was cut off; worth a line in the server's log."""
    refilled_bytes: int
    """How much shorter than it was made the last segment was found; it has its size again."""
    batches: int
    bytes_read: int


def log_exists(disk: Disk, directory: Path) -> bool:
    """Whether there is a log to open (a creation that a crash interrupted does not count)."""
    return any(parse_name(name) is not None for name in disk.list(directory))


class Wal:
    """An open log; made by `create` or `open`."""

    def __init__(
        self,
        identity: WalIdentity,
        writer: SegmentWriter,
        *,
        segment_bytes: int,
        chain: int,
        last: tuple[int, int],
        hard_state: HardState,
        marks: SizeMarks,
    ) -> None:
        self.identity = identity
        self._segment_bytes = segment_bytes
        self._pack = msgpack.Packer().pack
        # On the loop: the log as far as it is encoded.
        self._chain = chain
        self._last = last
        self._hard_state = hard_state
        self._marks = marks
        # In the thread: the log as far as it is written.
        self._writer = writer
        self._written_crc = chain
        self._refuses: str | None = None

    @classmethod
    def create(
        cls,
        disk: Disk,
        directory: Path,
        identity: WalIdentity,
        *,
        base: tuple[int, int] = (0, 0),
        hard_state: HardState = EMPTY_HARD_STATE,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Wal:
        """A new log, durable when this returns. Raises WalExists or DiskFailed.

        `base` is the index and term that it begins behind (those of a restored snapshot).
        """
        assert hard_state.commit >= base[0], (hard_state, base)
        if log_exists(disk, directory):
            raise WalExists(directory)
        make_directory(disk, directory)
        writer = SegmentWriter(disk, directory)
        wal = cls(
            identity,
            writer,
            segment_bytes=segment_bytes,
            chain=0,
            last=base,
            hard_state=hard_state,
            marks=SizeMarks(),
        )
        writer.begin(wal._header(0, base, hard_state, restart=True))
        return wal

    @classmethod
    def open(
        cls,
        disk: Disk,
        directory: Path,
        *,
        keep_after: int,
        applied: int = 0,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> tuple[Wal, Recovered]:
        """Reads and checks the whole log, cuts a torn tail, and goes on behind it.

        All records are checksummed; only entries with index > `keep_after` are decoded and
        returned. A log that ends before entry `applied` has lost what it once held. Raises
        WalMissing, WalCorrupt (nothing was changed then) or DiskFailed.
        """
        scan = scan_log(disk, directory, keep_after=keep_after, applied=applied)
        writer = SegmentWriter(disk, directory)
        writer.resume(scan.segments, scan.end)
        # First what is unfinished goes, durably. The other way round, a crash between would
        # leave a whole file with a damaged batch in it, and that is corrupt.
        if scan.torn is not None:
            writer.erase(scan.torn.offset, scan.torn.size_bytes)
        if scan.missing_bytes:
            writer.refill()
        for path in scan.leftovers:
            disk.unlink(path)
        # Also without leftovers: the process before may have died between the rename of a segment
        # and the sync of its name, and what is appended now must not go with that name.
        disk.sync_dir(directory)
        wal = cls(
            scan.identity,
            writer,
            segment_bytes=segment_bytes,
            chain=scan.chain,
            last=scan.last,
            hard_state=scan.hard_state,
            marks=SizeMarks(scan.marks, scan.record_bytes),
        )
        recovered = Recovered(
            scan.identity,
            scan.hard_state,
            scan.base,
            scan.entries,
            scan.torn,
            scan.missing_bytes,
            scan.batches,
            scan.bytes_read,
        )
        return wal, recovered

    @property
    def last(self) -> tuple[int, int]:
        """Index and term of the last entry encoded."""
        return self._last

    def encode(self, hard_state: HardState | None, entries: Sequence[Entry]) -> WalBatch:
        """The records for these; every batch encoded must be written, in order.

        Entries replace whatever the log holds from their first index on. Pure, no I/O; about
        0.2 µs per entry.
        """
        chain = previous = self._chain
        last_before, hard_state_before = self._last, self._hard_state
        records = b""
        if hard_state is not None:
            payload = self._pack(hard_state)
            commit = hard_state.commit
            records, chain = build_record(chain, RecordKind.HARD_STATE, commit, commit, payload)
            self._hard_state = hard_state
            self._marks.add(0, len(records))
        if entries:
            first, last = entries[0].index, entries[-1].index
            assert last - first + 1 == len(entries), (first, last, len(entries))
            assert 0 < first <= last_before[0] + 1, (first, last_before)
            payload = self._pack(entries)
            record, chain = build_record(chain, RecordKind.ENTRIES, first, last, payload)
            records = records + record if records else record
            self._last = (last, entries[-1].term)
            self._marks.add(first, len(record))
        self._chain = chain
        return WalBatch(records, previous, chain, last_before, hard_state_before)

    def write(self, batch: WalBatch, sync: bool) -> None:
        """Appends a batch; with `sync` it and all before it are durable when this returns.

        Raises DiskFailed; the process must then exit.
        """
        self._check_usable()
        assert batch.previous_crc == self._written_crc, "batches must be written as encoded"
        with self._all_or_refuse():
            if batch.records:
                if not self._writer.has_room(len(batch.records)):
                    self._begin_segment(batch)
                self._writer.append(batch.records, batch.crc)
            if sync:
                self._writer.sync()
        self._written_crc = batch.crc

    def release(self, index: int) -> list[Callable[[], None]]:
        """Removes the segments at the front that hold only entries <= `index`.

        What is returned gives their space back, slowly, and need not run in the log's thread.
        """
        self._check_usable()
        with self._all_or_refuse():
            return self._writer.remove_older(index)

    def reset(self, index: int, term: int, hard_state: HardState) -> None:
        """Restarts the log behind an installed snapshot; all batches must have been written.

        A crash at any point leaves either the old log or the new, empty one.
        """
        self._check_usable()
        assert self._written_crc == self._chain, "a batch is still to be written"
        assert hard_state.commit >= index, (hard_state, index)
        directory = self._writer.directory
        with self._all_or_refuse():
            disk_point("wal.before_reset", directory)
            self._writer.begin(self._header(0, (index, term), hard_state, restart=True))
            disk_point("wal.reset_begun", directory)
            self._writer.remove_all_older()
            disk_point("wal.after_reset", directory)
        self._chain = self._written_crc = 0
        self._last = (index, term)
        self._hard_state = hard_state
        self._marks = SizeMarks()

    def size_bytes_since(self, index: int) -> int:
        """Bytes of records behind entry `index`, within 256 KiB."""
        return self._marks.since(index)

    def close(self) -> None:
        """Makes everything durable, notes in the file that it is, and closes. Idempotent."""
        if self._refuses is None:
            self._refuses = "the log is closed"
            self._writer.close(self._written_crc)
        else:
            self._writer.abandon()

    def _check_usable(self) -> None:
        if self._refuses is not None:
            raise DiskFailed("using the log", self._writer.directory, self._refuses)

    @contextmanager
    def _all_or_refuse(self) -> Iterator[None]:
        """Whatever fails inside, the log is never used again."""
        self._refuses = "an earlier operation was interrupted"
        try:
            yield
        except DiskFailed as error:
            self._refuses = f"an earlier operation failed: {error}"
            raise
        self._refuses = None

    def _begin_segment(self, batch: WalBatch) -> None:
        room = HEADER_BYTES + padded(HEAD.size + len(batch.records))
        self._writer.begin(
            self._header(
                batch.previous_crc,
                batch.last_before,
                batch.hard_state_before,
                size_bytes=room,
            )
        )

    def _header(
        self,
        previous_crc: int,
        last: tuple[int, int],
        hard_state: HardState,
        *,
        size_bytes: int = 0,
        restart: bool = False,
    ) -> SegmentHeader:
        return SegmentHeader(
            cluster_id=self.identity.cluster_id,
            member_id=self.identity.member_id,
            sequence=self._writer.sequence + 1,
            size_bytes=max(self._segment_bytes, size_bytes),
            previous_crc=previous_crc,
            first_index=last[0] + 1,
            previous_term=last[1],
            hard_state=hard_state,
            restart=restart,
        )
