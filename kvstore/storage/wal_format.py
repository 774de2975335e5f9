"""The bytes of the log: segment headers, batches and records.

A segment is a file of fixed size, zeros where nothing was written yet:

    header   512 bytes: magic, length, CRC, msgpack array (see SegmentHeader), zeros
    batch    begins on a sector (512 bytes): head, records, zeros up to the next sector
    batch …

    head     magic, length of the records, zero sectors, own offset, offset known synced
             before it, CRC of the records, CRC of the head
    record   length, kind, own index (first and last entry), payload (msgpack), CRC

Every CRC is CRC-32C. A record's is chained to the record before it, across batches and
segments; the one in a batch's head equals that of its last record. A head's own is seeded with
the segment header's, so that a batch of another segment or member is never taken for ours.

Why sectors: a disk writes a sector whole or not at all, and fresh segments are zeros, so a
batch that a crash interrupted has at least one sector of zeros. `zero sectors` counts those that
a batch has by right (a value of zeros), so that such a value never makes damage look like that.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, Final, NamedTuple

import google_crc32c
import msgpack

from kvstore.storage.errors import WalCorrupt
from kvstore.storage.limits import RECORD_BYTES_MAX, SECTOR_BYTES, SEGMENT_BYTES
from raft.types import HardState

__all__ = (
    "BATCH_MAGIC",
    "HEAD",
    "HEADER_BYTES",
    "RECORD",
    "RECORD_OVERHEAD_BYTES",
    "ZERO_SECTOR",
    "BatchHead",
    "RecordKind",
    "SegmentHeader",
    "build_batch",
    "build_record",
    "count_zero_sectors",
    "decode_header",
    "encode_header",
    "padded",
    "parse_name",
    "read_head",
    "segment_name",
)

FORMAT: Final = 1
HEADER_BYTES: Final = SECTOR_BYTES
HEADER_MAGIC: Final = b"KVSWAL\r\n"
"""The line end shows a copy made in text mode for what it is."""
_HEADER: Final = struct.Struct(">8sII")

BATCH_MAGIC: Final = b"KVSB"
HEAD: Final = struct.Struct(">4sIIQQII")
RECORD: Final = struct.Struct(">IBQQ")
RECORD_OVERHEAD_BYTES: Final = RECORD.size + 4
ZERO_SECTOR: Final = bytes(SECTOR_BYTES)
_SEGMENT_BYTES_MAX: Final = RECORD_BYTES_MAX + SEGMENT_BYTES
"""No segment is made larger: one batch, however long, and what any segment has."""

_NAME: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")
_extend = google_crc32c.extend


class RecordKind:
    """What a record's payload is."""

    HARD_STATE = 1
    """[term, vote, commit]"""
    ENTRIES = 2
    """[[index, term, kind, data], …], indexes consecutive."""


class SegmentHeader(NamedTuple):
    """What stands in front of a segment: whose it is, and the state of the log before it."""

    cluster_id: int
    member_id: int
    sequence: int
    """One more than the segment before."""
    size_bytes: int
    previous_crc: int
    """Chain value of the record before."""
    first_index: int
    """One more than the last entry before."""
    previous_term: int
    """Term of that entry."""
    hard_state: HardState
    restart: bool
    """The log begins here: all earlier segments are void (a snapshot replaced them)."""


class BatchHead(NamedTuple):
    """A batch's head, already checked against its own CRC."""

    length: int
    zero_sectors: int
    synced: int
    crc: int


def segment_name(sequence: int, first_index: int) -> str:
    """The file name of a segment; names sort as the log runs."""
    return f"{sequence:016x}-{first_index:016x}.wal"


def parse_name(name: str) -> tuple[int, int] | None:
    """(sequence, first index) of a segment's file name; None for any other file."""
    match = _NAME.fullmatch(name)
    return (int(match[1], 16), int(match[2], 16)) if match else None


def padded(size_bytes: int) -> int:
    """`size_bytes` rounded up to whole sectors."""
    return -(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES


def encode_header(header: SegmentHeader) -> bytes:
    """The first sector of a segment."""
    body: bytes = msgpack.packb([FORMAT, *header])
    start = HEADER_MAGIC + len(body).to_bytes(4, "big")
    sector = _HEADER.pack(HEADER_MAGIC, len(body), google_crc32c.value(start + body)) + body
    assert len(sector) <= HEADER_BYTES
    return sector.ljust(HEADER_BYTES, b"\0")


def decode_header(path: Path, sector: bytes) -> tuple[SegmentHeader, int]:
    """The header in a segment's first sector, and its CRC (the seed of the batch heads).

    Raises WalCorrupt for anything that `encode_header` would not have written.
    """
    if len(sector) < HEADER_BYTES:
        raise WalCorrupt(path, len(sector), "the file ends inside the segment header")
    magic, length, crc = _HEADER.unpack_from(sector)
    end = _HEADER.size + length
    if magic != HEADER_MAGIC or end > HEADER_BYTES:
        raise WalCorrupt(path, 0, "this is not a segment header of a log")
    body = sector[_HEADER.size : end]
    if google_crc32c.value(sector[:12] + body) != crc or sector[end:].strip(b"\0"):
        raise WalCorrupt(path, 0, "the segment header does not match its checksum")
    try:
        version, *fields = msgpack.unpackb(body)
        if version == FORMAT:
            return _header_of(fields), crc
    except (ValueError, TypeError) as error:
        raise WalCorrupt(path, 0, f"the segment header cannot be read: {error}") from None
    shown = version if type(version) is int else "?"
    raise WalCorrupt(
        path,
        0,
        f"the segment has format {shown}, this program reads format {FORMAT}",
        "Start the version of the program that wrote it.",
    )


def _header_of(fields: list[Any]) -> SegmentHeader:
    """The header of unpacked fields; ValueError or TypeError for any that nobody writes."""
    *numbers, hard_state, restart = fields
    header = SegmentHeader._make((*numbers, HardState(*hard_state), restart))
    if any(type(each) is not int or each < 0 for each in (*numbers, *header.hard_state)):
        raise ValueError("a field that is not a number from 0 up")
    if type(restart) is not bool or not HEADER_BYTES <= header.size_bytes <= _SEGMENT_BYTES_MAX:
        raise ValueError(f"a segment of {header.size_bytes} bytes, or no flag where one belongs")
    return header


def build_record(chain: int, kind: int, first: int, last: int, payload: bytes) -> tuple[bytes, int]:
    """One record, and the chain value after it."""
    record = RECORD.pack(len(payload), kind, first, last) + payload
    chain = _extend(chain, record)
    return record + chain.to_bytes(4, "big"), chain


def build_batch(records: bytes, *, crc: int, seed: int, position: int, synced: int) -> bytes:
    """What is written at `position`: head, records and padding."""
    length = len(records)
    assert length <= RECORD_BYTES_MAX
    tail = (HEAD.size + length) % SECTOR_BYTES
    zero_sectors = 0
    if ZERO_SECTOR in records or (tail and not records[-tail:].strip(b"\0")):
        zero_sectors = count_zero_sectors(records, HEAD.size)
    head = HEAD.pack(BATCH_MAGIC, length, zero_sectors, position, synced, crc, 0)[:-4]
    head += _extend(seed, head).to_bytes(4, "big")
    return b"".join((head, records, bytes(padded(HEAD.size + length) - HEAD.size - length)))


def count_zero_sectors(data: bytes, offset: int = 0) -> int:
    """How many whole sectors of `data` are zeros, if it stands `offset` bytes into a sector.

    The end of `data` counts as followed by zeros.
    """
    start = -offset % SECTOR_BYTES
    return sum(
        not data[at : at + SECTOR_BYTES].strip(b"\0")
        for at in range(start, len(data), SECTOR_BYTES)
    )


def read_head(data: bytes, position: int, seed: int) -> BatchHead | None:
    """The batch head at `position`, or None if there is no valid one that belongs there."""
    head = data[position : position + HEAD.size]
    if len(head) < HEAD.size:
        return None
    magic, length, zero_sectors, own, synced, crc, head_crc = HEAD.unpack(head)
    if magic != BATCH_MAGIC or own != position or head_crc != _extend(seed, head[:-4]):
        return None
    return BatchHead(length, zero_sectors, synced, crc)
