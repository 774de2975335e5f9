"""Reads a log and gives the verdict: clean, torn (cut it) or corrupt (refuse). Changes nothing.

The rules, for the batch at which a segment stops making sense:

* *Torn* only in the last segment, only if the file ends inside the batch or a whole sector of
  it is zero that was not written as zeros, and only if no later batch says that everything up to
  here had been synced. Such a batch was being written when the machine stopped; nobody was
  promised anything.
* *Corrupt* is everything else: a flipped bit, a record in the wrong place, a missing segment, an
  earlier segment shorter than it was made, any segment longer; and a log that ends before an
  entry of which somebody knows that it was there: the committed one of its own hard state, or
  the last one applied, of which the caller knows (`applied`).
* *Clean* otherwise. A last segment that is short, but ends behind a whole batch, lost only zeros.
  So it is read as if those were there; whoever writes to it next first puts them back.

What this cannot see: damage to the very last batches, written after the last sync mark, that
looks exactly like a torn write, and a file cut between two batches, which takes the later ones
with their marks. For a lost zero sector, closing the log writes such a mark, and so does every
next batch. Against a cut file only `applied` and the commit index stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import google_crc32c

from kvstore.storage.disk import Disk
from kvstore.storage.errors import WalCorrupt, WalMissing
from kvstore.storage.limits import SECTOR_BYTES
from kvstore.storage.wal_format import (
    BATCH_MAGIC,
    HEAD,
    HEADER_BYTES,
    RECORD,
    RECORD_OVERHEAD_BYTES,
    ZERO_SECTOR,
    BatchHead,
    RecordKind,
    SegmentHeader,
    count_zero_sectors,
    decode_header,
    padded,
    parse_name,
    read_head,
)
from kvstore.storage.wal_replay import Replay, Span
from raft.types import Entry, HardState

__all__ = ("Scan", "SegmentInfo", "TornTail", "WalIdentity", "scan_log")

_extend = google_crc32c.extend
_ZERO_PIECE: Final = bytes(1024**2)


class WalIdentity(NamedTuple):
    """Whose log it is."""

    cluster_id: int
    member_id: int


@dataclass(frozen=True, slots=True)
class TornTail:
    """The unfinished end of a log: never promised to anyone, to be cut."""

    path: Path
    offset: int
    size_bytes: int
    why: str


class SegmentInfo(NamedTuple):
    """One segment that counts."""

    path: Path
    header: SegmentHeader
    header_crc: int


@dataclass(slots=True)
class Scan:
    """A readable log. `entries` are those with index > keep_after, `base` is the one before."""

    identity: WalIdentity
    segments: list[SegmentInfo]
    hard_state: HardState
    base: tuple[int, int]
    last: tuple[int, int]
    """Index and term of the last entry, or of what the log begins behind."""
    entries: list[Entry]
    chain: int
    end: int
    """Where the next batch goes in the last segment."""
    torn: TornTail | None
    missing_bytes: int
    """How much shorter the last segment's file is than it was made."""
    leftovers: list[Path]
    """Unfinished or void files that may be removed, in the order in which to remove them."""
    batches: int
    bytes_read: int
    marks: list[tuple[int, int]]
    """(first index, record bytes before it) of a record every SIZE_MARK_BYTES or so."""
    record_bytes: int


def scan_log(
    disk: Disk, directory: Path, *, keep_after: int, applied: int = 0, settle: bool = True
) -> Scan:
    """Reads and checks all of a log; raises WalMissing or WalCorrupt.

    `applied` is the last entry of which the caller knows that the log held it.

    `settle` syncs the segments' names and the last segment, and drops that from the cache first:
    an earlier process may have been killed between a rename and its sync, or have met a failed
    sync, after which the cache shows what the medium never got.
    """
    segments, leftovers = _segments(disk, directory)
    if settle:
        disk.sync_dir(directory)
    replay = Replay(keep_after, segments[0].header)
    chain = segments[0].header.previous_crc
    bytes_read = 0
    for number, segment in enumerate(segments):
        is_last = number == len(segments) - 1
        data, size = _read(disk, segment, is_last=is_last, settle=settle and is_last)
        bytes_read += size
        _check_header_fits(segment, replay, chain)
        reader = _SegmentReader(segment, data, size, replay, chain)
        reader.run()
        if not is_last and (reader.stop or reader.used_end() > reader.position):
            raise WalCorrupt(segment.path, reader.position, reader.stop or _LOST_HEAD)
        chain = reader.chain
    torn = reader.torn_tail()
    entries, base, last = replay.finish(segment.path)
    if replay.hard_state.commit > max(last[0], keep_after):
        raise WalCorrupt(
            segment.path,
            reader.position,
            f"the log ends at entry {last[0]}, but entry {replay.hard_state.commit} was committed",
        )
    if applied > last[0]:
        raise WalCorrupt(
            segment.path,
            reader.position,
            f"the log ends at entry {last[0]}, but this member has applied entry {applied}: "
            "acknowledged entries are lost",
        )
    header = segments[0].header
    return Scan(
        identity=WalIdentity(header.cluster_id, header.member_id),
        segments=segments,
        hard_state=replay.hard_state,
        base=base,
        last=last,
        entries=entries,
        chain=chain,
        end=reader.position,
        torn=torn,
        missing_bytes=len(data) - size,
        leftovers=leftovers,
        batches=replay.batches,
        bytes_read=bytes_read,
        marks=replay.marks,
        record_bytes=replay.record_bytes,
    )


_LOST_HEAD: Final = "the head of a batch is missing, but the segment goes on behind it"


def _segments(disk: Disk, directory: Path) -> tuple[list[SegmentInfo], list[Path]]:
    """The segments that count, in order, and the files that do not."""
    names = disk.list(directory)
    found = sorted((*parsed, name) for name in names if (parsed := parse_name(name)) is not None)
    leftovers = [directory / name for name in names if name.endswith(".wal.tmp")]
    if not found:
        raise WalMissing(directory)
    segments: list[SegmentInfo] = []
    for sequence, first_index, name in reversed(found):
        path = directory / name
        if segments and segments[0].header.restart:
            leftovers.append(path)
            continue
        if segments and segments[0].header.sequence != sequence + 1:
            raise WalCorrupt(path, 0, f"the log segment after this one, {sequence + 1}, is missing")
        file = disk.open(path)
        try:
            header, crc = decode_header(path, file.read_at(0, HEADER_BYTES))
        finally:
            file.close()
        if (header.sequence, header.first_index) != (sequence, first_index):
            raise WalCorrupt(path, 0, "the segment header does not belong to the file's name")
        segments.insert(0, SegmentInfo(path, header, crc))
    first = segments[0].header
    for path, header, _ in segments:
        if (header.cluster_id, header.member_id) != (first.cluster_id, first.member_id):
            raise WalCorrupt(path, 0, "the segment belongs to another member or cluster")
    return segments, leftovers


def _read(disk: Disk, segment: SegmentInfo, *, is_last: bool, settle: bool) -> tuple[bytes, int]:
    """The segment as it was made, zeros where the file ends too early; and the file's size."""
    file = disk.open(segment.path)
    try:
        if settle:
            file.datasync()
            file.drop_cache()
        size, size_made = file.size(), segment.header.size_bytes
        if size > size_made or (size < size_made and not is_last):
            raise WalCorrupt(
                segment.path,
                min(size, size_made),
                f"the file has {size} bytes, but was made with {size_made}",
            )
        return file.read_at(0, size).ljust(size_made, b"\0"), size
    finally:
        file.close()


def _check_header_fits(segment: SegmentInfo, replay: Replay, chain: int) -> None:
    """A segment must continue where the one before it ends."""
    header = segment.header
    if header.previous_crc != chain or header.first_index != replay.last_index + 1:
        raise WalCorrupt(
            segment.path,
            0,
            f"the segment begins behind entry {header.first_index - 1}, the one before it ends "
            f"with entry {replay.last_index} or another checksum: records are missing between",
        )


class _SegmentReader:
    """Walks the batches of one segment; stops at its end or at what makes no sense."""

    def __init__(
        self, segment: SegmentInfo, data: bytes, file_bytes: int, replay: Replay, chain: int
    ) -> None:
        self.path = segment.path
        self.seed = segment.header_crc
        self.data = data
        self.file_bytes = file_bytes
        """How much of `data` was in the file; the rest are the zeros that it was made with."""
        self.replay = replay
        self.chain = chain
        self.position = HEADER_BYTES
        self.stop: str | None = None
        """Why the walk ended before the written part did; None at a sector of zeros."""
        self.head: BatchHead | None = None
        """The head of the batch at which it stopped, if that much was readable."""

    def run(self) -> None:
        """Hands every record up to the first doubtful batch to the replay."""
        data, seed, size = self.data, self.seed, len(self.data)
        position = HEADER_BYTES
        while position < size:
            head = read_head(data, position, seed)
            if head is None:
                if data[position : position + SECTOR_BYTES] != ZERO_SECTOR:
                    self.stop = "this is not the head of a batch"
                break
            start = position + HEAD.size
            end = start + head.length
            after = position + padded(HEAD.size + head.length)
            records = self._records(start, end, head) if after <= size else None
            if records is None or data[end:after].strip(b"\0"):
                self.stop = "the batch does not match its checksum"
                self.head = head
                break
            for record in records:
                self._replay_record(*record)
            self.chain = head.crc
            self.replay.batches += 1
            position = after
        self.position = position

    def _records(
        self, at: int, end: int, head: BatchHead
    ) -> list[tuple[int, int, int, int, int]] | None:
        """(kind, first, last, payload from, to) of each record of a batch.

        None unless they fill the batch and each CRC follows from the one before.
        """
        data, chain = self.data, self.chain
        records = []
        while at < end:
            if end - at < RECORD_OVERHEAD_BYTES:
                return None
            length, kind, first, last = RECORD.unpack_from(data, at)
            crc_at = at + RECORD.size + length
            chain = _extend(chain, data[at:crc_at])
            records.append((kind, first, last, at + RECORD.size, crc_at))
            at = crc_at + 4
            if at > end or data[crc_at:at] != chain.to_bytes(4, "big"):
                return None
        return records if chain == head.crc else None

    def _replay_record(self, kind: int, first: int, last: int, start: int, end: int) -> None:
        problem: str | None
        if kind == RecordKind.ENTRIES:
            problem = self.replay.entries(Span(first, last, self.data, start, end))
        elif kind == RecordKind.HARD_STATE:
            problem = self.replay.state(self.data[start:end])
        else:
            problem = f"a record of kind {kind}, which this program does not know"
        if problem is not None:
            raise WalCorrupt(self.path, start, problem)

    def used_end(self) -> int:
        """Where the zeros at the end of the file begin (at `position` at the earliest)."""
        data = self.data
        used = self.position
        for at in range(self.position, len(data), len(_ZERO_PIECE)):
            piece = data[at : at + len(_ZERO_PIECE)]
            if piece != _ZERO_PIECE[: len(piece)]:
                used = at + len(piece.rstrip(b"\0"))
        return used

    def torn_tail(self) -> TornTail | None:
        """The verdict over the last segment: None if clean, the tail if torn.

        Raises WalCorrupt if neither.
        """
        used_end = self.used_end()
        if used_end == self.position:
            return None
        why, search_from = self._unfinished()
        for at in range(search_from, used_end, SECTOR_BYTES):
            later = read_head(self.data, at, self.seed)
            if later is not None and later.synced > self.position:
                raise WalCorrupt(
                    self.path,
                    self.position,
                    f"{why}, but the batch at byte {at} was written after all up to byte "
                    f"{later.synced} had been synced",
                )
        return TornTail(self.path, self.position, used_end - self.position, why)

    def _unfinished(self) -> tuple[str, int]:
        """What of the batch was never written, and from where on another one may stand.

        Raises WalCorrupt if nothing shows that it is unfinished.
        """
        head, position = self.head, self.position
        if head is not None:
            after = position + padded(HEAD.size + head.length)
            if after > len(self.data):
                raise WalCorrupt(self.path, position, str(self.stop))
            # If only padding is missing, the records are all there, and the cut explains nothing.
            if position + HEAD.size + head.length > self.file_bytes:
                return "the file ends inside the batch", after
            self._check_missing_sector(head, after)
            return f"{self.stop} and a sector of it was never written", after
        if self.stop is None:
            return _LOST_HEAD, position + SECTOR_BYTES
        magic = self.data[position : min(self.file_bytes, position + len(BATCH_MAGIC))]
        if position + HEAD.size > self.file_bytes and BATCH_MAGIC.startswith(magic):
            return "the file ends inside the head of a batch", position + SECTOR_BYTES
        raise WalCorrupt(self.path, position, self.stop)

    def _check_missing_sector(self, head: BatchHead, after: int) -> None:
        """Raises WalCorrupt unless a sector of the batch, up to `after`, was never written."""
        if count_zero_sectors(self.data[self.position : after]) <= head.zero_sectors:
            raise WalCorrupt(self.path, self.position, str(self.stop))
        following = self.data[after : after + SECTOR_BYTES]
        if following.strip(b"\0") and read_head(self.data, after, self.seed) is None:
            raise WalCorrupt(self.path, after, "this is not the head of a batch")
