"""Torn is cut, corrupt is refused, and no damaged record is ever returned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.storage.errors import WalCorrupt
from kvstore.storage.wal import Wal, WalIdentity
from kvstore.storage.wal_format import (
    HEADER_BYTES,
    RecordKind,
    build_batch,
    build_record,
    read_head,
)
from raft.types import Entry, EntryKind, HardState

from .fake_disk import FakeDisk
from .wal_kit import DIRECTORY, IDENTITY, entries, reopen, write


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


@pytest.fixture
def wal(disk: FakeDisk) -> Wal:
    return Wal.create(disk, DIRECTORY, IDENTITY, segment_bytes=4096)


def small_log(*, close: bool) -> tuple[FakeDisk, Path]:
    """Three batches of entries in 1.5 KiB, and 1 KiB of zeros behind them."""
    disk = FakeDisk()
    wal = Wal.create(disk, DIRECTORY, IDENTITY, segment_bytes=HEADER_BYTES + 5 * 512)
    write(wal, entries(1, 1), HardState(1, 2, 0))
    write(wal, entries(2, 2))
    write(wal, entries(3, 4, size_bytes=150))
    if close:
        wal.close()
    return disk, DIRECTORY / disk.list(DIRECTORY)[0]


GOOD = entries(1, 2) + entries(3, 4, size_bytes=150)


def test_every_flipped_bit_is_corrupt() -> None:
    disk, path = small_log(close=True)
    content = disk.content(path)
    used = len(content.rstrip(b"\0"))
    assert used > HEADER_BYTES + 3 * 512
    for bit in range(len(content) * 8):
        content[bit // 8] ^= 1 << bit % 8
        if bit // 8 < used:
            with pytest.raises(WalCorrupt):
                Wal.open(disk, DIRECTORY, keep_after=0)
        else:
            try:
                _, recovered = Wal.open(disk, DIRECTORY, keep_after=0)
            except WalCorrupt:
                pass
            else:
                assert recovered.entries == GOOD
                assert recovered.torn is not None
                assert content[bit // 8] == 0, "the tail was cut"
                continue
        content[bit // 8] ^= 1 << bit % 8


def test_every_flipped_bit_of_the_unmarked_last_batch_is_corrupt() -> None:
    disk, path = small_log(close=False)
    content = disk.content(path)
    for bit in range(len(content.rstrip(b"\0")) * 8):
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WalCorrupt):
            Wal.open(disk, DIRECTORY, keep_after=0)
        content[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("close", [True, False])
def test_every_truncation_is_corrupt(close: bool) -> None:
    # A segment has its whole size before it has its name: no crash shortens it.
    disk, path = small_log(close=close)
    size = len(disk.content(path))
    for left in range(size - 1, -1, -1):
        disk.resize(path, left)
        with pytest.raises(WalCorrupt):
            Wal.open(disk, DIRECTORY, keep_after=0)


@pytest.mark.parametrize("sector", range(6))
def test_a_lost_sector_is_torn_only_where_nothing_says_it_was_synced(sector: int) -> None:
    disk, path = small_log(close=False)
    disk.content(path)[sector * 512 : sector * 512 + 512] = bytes(512)
    if sector in (0, 1, 2):
        with pytest.raises(WalCorrupt):
            Wal.open(disk, DIRECTORY, keep_after=0)
        return
    _, recovered = Wal.open(disk, DIRECTORY, keep_after=0)
    assert recovered.entries == (GOOD if sector > 3 else GOOD[:2])


@pytest.mark.parametrize("sector", range(4))
def test_after_an_orderly_close_every_lost_sector_is_corrupt(sector: int) -> None:
    disk, path = small_log(close=True)
    disk.content(path)[sector * 512 : sector * 512 + 512] = bytes(512)
    with pytest.raises(WalCorrupt):
        Wal.open(disk, DIRECTORY, keep_after=0)


def big_last_batch() -> tuple[FakeDisk, Path, int]:
    disk = FakeDisk()
    wal = Wal.create(disk, DIRECTORY, IDENTITY, segment_bytes=16 * 1024)
    write(wal, entries(1, 1), HardState(1, 2, 0))
    write(wal, entries(2, 2, size_bytes=3000))
    path = DIRECTORY / disk.list(DIRECTORY)[0]
    return disk, path, len(disk.content(path).rstrip(b"\0"))


def test_a_torn_last_batch_is_cut_and_the_log_goes_on() -> None:
    _, _, used = big_last_batch()
    for sector in range(2, -(-used // 512)):
        disk, path, _ = big_last_batch()
        disk.content(path)[sector * 512 : sector * 512 + 512] = bytes(512)
        wal, recovered = Wal.open(disk, DIRECTORY, keep_after=0)
        assert recovered.entries == entries(1, 1)
        assert recovered.torn is not None
        assert recovered.torn.offset == 1024
        write(wal, entries(2, 2, term=9))
        wal.close()
        again = reopen(disk)
        assert again.torn is None
        assert again.entries == entries(1, 1) + entries(2, 2, term=9)


def test_a_value_of_zeros_does_not_make_damage_look_torn() -> None:
    disk = FakeDisk()
    wal = Wal.create(disk, DIRECTORY, IDENTITY, segment_bytes=16 * 1024)
    zeros = Entry(1, 1, EntryKind.NORMAL, bytes(5000))
    write(wal, [zeros])
    path = DIRECTORY / disk.list(DIRECTORY)[0]
    assert Wal.open(disk, DIRECTORY, keep_after=0)[1].entries == [zeros]
    disk.content(path)[HEADER_BYTES + 60] ^= 1
    with pytest.raises(WalCorrupt, match="does not match its checksum"):
        Wal.open(disk, DIRECTORY, keep_after=0)


def test_a_missing_sector_is_not_torn_if_what_follows_is_damaged_too() -> None:
    disk = FakeDisk()
    wal = Wal.create(disk, DIRECTORY, IDENTITY, segment_bytes=16 * 1024)
    write(wal, entries(1, 1, size_bytes=2000))
    write(wal, entries(2, 2))
    path = DIRECTORY / disk.list(DIRECTORY)[0]
    content = disk.content(path)
    content[HEADER_BYTES + 512 : HEADER_BYTES + 1024] = bytes(512)
    content[HEADER_BYTES + 5 * 512 + 10] ^= 1
    with pytest.raises(WalCorrupt):
        Wal.open(disk, DIRECTORY, keep_after=0)


def test_a_lost_write_at_the_end_of_an_earlier_segment_is_corrupt(disk: FakeDisk, wal: Wal) -> None:
    write(wal, entries(1, 1, size_bytes=2000))
    write(wal, [], HardState(7, 3, 1))
    write(wal, entries(2, 2, size_bytes=2000))
    wal.close()
    first, second = disk.list(DIRECTORY)
    content = disk.content(DIRECTORY / first)
    end = len(content.rstrip(b"\0")) // 512 * 512
    content[end : end + 512] = bytes(512)  # the vote is gone, as if never written
    with pytest.raises(WalCorrupt, match="records are missing between") as caught:
        Wal.open(disk, DIRECTORY, keep_after=0)
    assert caught.value.path == DIRECTORY / second


@pytest.mark.parametrize("zeros", [0, 1, 5, 600, 1100])
def test_a_batch_knows_its_own_zero_sectors(zeros: int) -> None:
    for length in range(1, 1100, 7):
        records = (b"x" * length)[: max(length - zeros, 0)].ljust(length, b"\0")
        batch = build_batch(records, crc=1, seed=2, position=512, synced=512)
        head = read_head(bytes(512) + batch, 512, 2)
        assert head is not None
        assert len(batch) % 512 == 0
        sectors = [batch[at : at + 512] for at in range(0, len(batch), 512)]
        assert head.zero_sectors == sectors.count(bytes(512))


def test_a_batch_head_counts_only_in_its_place() -> None:
    batch = build_batch(b"records", crc=1, seed=2, position=512, synced=512)
    assert read_head(bytes(512) + batch, 512, 2) is not None
    assert read_head(bytes(1024) + batch, 1024, 2) is None, "another place"
    assert read_head(bytes(512) + batch, 512, 3) is None, "another segment"
    assert read_head(bytes(512) + batch[:30], 512, 2) is None, "cut"


def test_damage_before_the_last_segment_is_never_torn(disk: FakeDisk, wal: Wal) -> None:
    for index in range(1, 10):
        write(wal, entries(index, index, size_bytes=900))
    wal.close()
    first = DIRECTORY / disk.list(DIRECTORY)[0]
    content = disk.content(first)
    for sector in range(1, len(content) // 512):
        kept = bytes(content)
        content[sector * 512 : sector * 512 + 512] = bytes(512)
        if content != kept:
            with pytest.raises(WalCorrupt):
                Wal.open(disk, DIRECTORY, keep_after=0)
        content[:] = kept


def test_missing_swapped_and_foreign_segments_are_corrupt(disk: FakeDisk, wal: Wal) -> None:
    for index in range(1, 20):
        write(wal, entries(index, index, size_bytes=900))
    wal.close()
    names = disk.list(DIRECTORY)
    contents = [bytes(disk.content(DIRECTORY / name)) for name in names]
    other = FakeDisk()
    foreign = Wal.create(other, DIRECTORY, WalIdentity(0xC1, 0xB), segment_bytes=4096)
    for index in range(1, 20):
        write(foreign, entries(index, index, size_bytes=900))
    foreign.close()

    def damaged(change: Callable[[], None], match: str) -> None:
        change()
        with pytest.raises(WalCorrupt, match=match):
            Wal.open(disk, DIRECTORY, keep_after=0)
        for name, content in zip(names, contents, strict=True):
            if not disk.exists(DIRECTORY / name):
                disk.create(DIRECTORY / name, len(content))
            disk.content(DIRECTORY / name)[:] = content
        reopen(disk)
        contents[-1] = bytes(disk.content(DIRECTORY / names[-1]))  # closing adds a mark

    second, third = DIRECTORY / names[1], DIRECTORY / names[2]
    damaged(lambda: disk.unlink(second), "is missing")
    damaged(
        lambda: disk.content(second).__setitem__(slice(None), contents[2]),
        "does not belong to the file's name",
    )
    damaged(
        lambda: disk.content(third).__setitem__(slice(None), other.content(third)),
        "another member",
    )


def test_a_record_of_an_unknown_kind_is_refused(disk: FakeDisk, wal: Wal) -> None:
    batch = wal.encode(None, entries(1, 1))
    records, crc = build_record(0, 99, 1, 1, b"")
    wal.write(batch._replace(records=records, crc=crc), True)
    with pytest.raises(WalCorrupt, match="kind 99"):
        Wal.open(disk, DIRECTORY, keep_after=0)


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x91\x01", b"\x90", b"\x91\x94\x09\x01\x00\xc4\x00"]
)
def test_a_record_that_is_not_what_it_says_is_refused(
    disk: FakeDisk, wal: Wal, payload: bytes
) -> None:
    batch = wal.encode(None, entries(1, 1))
    records, crc = build_record(0, RecordKind.ENTRIES, 1, 1, payload)
    wal.write(batch._replace(records=records, crc=crc), True)
    with pytest.raises(WalCorrupt):
        Wal.open(disk, DIRECTORY, keep_after=0)


def test_lost_committed_entries_are_noticed(disk: FakeDisk, wal: Wal) -> None:
    write(wal, entries(1, 2), HardState(1, 1, 5))
    wal.close()
    with pytest.raises(WalCorrupt, match="entry 5 was committed"):
        Wal.open(disk, DIRECTORY, keep_after=0)
    Wal.open(disk, DIRECTORY, keep_after=5)


def test_an_error_says_where_and_how_to_replace_the_member() -> None:
    disk, path = small_log(close=True)
    disk.content(path)[HEADER_BYTES + 20] ^= 1
    with pytest.raises(WalCorrupt) as caught:
        Wal.open(disk, DIRECTORY, keep_after=0)
    assert caught.value.path == path
    assert caught.value.offset == HEADER_BYTES
    assert "member remove" in str(caught.value)
    assert str(path) in str(caught.value)
