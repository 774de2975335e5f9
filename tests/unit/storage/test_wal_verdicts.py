"""Torn is cut, corrupt is refused, and no damaged record is ever returned.

Every flipped bit and every truncation of larger logs: tests/sim/test_wal_damage.py.
"""

from __future__ import annotations

import random
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

from .fake_disk import Crashed, FakeDisk
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


@pytest.mark.parametrize("close", [True, False])
def test_every_truncation_gets_the_right_verdict_and_the_log_goes_on(close: bool) -> None:
    disk, path = small_log(close=close)
    whole = bytes(disk.content(path))
    # Every batch is one sector; what of it is not padding must be there for it to count.
    ends = [
        at + len(whole[at : at + 512].rstrip(b"\0"))
        for at in range(HEADER_BYTES, len(whole), 512)
        if any(whole[at : at + 512])
    ]
    served = [GOOD[:1], GOOD[:2], GOOD, GOOD]
    for left in range(len(whole)):
        disk.content(path)[:] = whole[:left]
        if left < HEADER_BYTES:
            with pytest.raises(WalCorrupt):
                Wal.open(disk, DIRECTORY, keep_after=0)
            continue
        batches = sum(end <= left for end in ends)
        expected = served[batches - 1] if batches else []
        position = HEADER_BYTES + batches * 512
        wal, recovered = Wal.open(disk, DIRECTORY, keep_after=0)
        assert recovered.entries == expected, left
        assert recovered.hard_state == (HardState(1, 2, 0) if batches else HardState(0, 0, 0))
        assert recovered.refilled_bytes == len(whole) - left
        is_torn = batches < len(ends) and left > position
        assert (recovered.torn.offset if recovered.torn else None) == (
            position if is_torn else None
        ), left
        assert disk.content(path) == whole[:position].ljust(len(whole), b"\0"), left
        new = entries(len(expected) + 1, len(expected) + 1, term=9)
        write(wal, new)
        wal.close()
        again = reopen(disk)
        assert (again.entries, again.torn, again.refilled_bytes) == (expected + new, None, 0)
        for name in disk.list(DIRECTORY):  # a closing mark may have had no room
            if DIRECTORY / name != path:
                disk.unlink(DIRECTORY / name)


@pytest.mark.parametrize(
    "choose",
    [*(random.Random(seed).randrange for seed in range(3)), lambda options: options - 1],
    ids=["random 0", "random 1", "random 2", "files grow, but nothing is written"],
)
def test_a_crash_while_a_cut_segment_is_repaired_changes_nothing(
    choose: Callable[[int], int],
) -> None:
    _, _, used = big_last_batch()
    for left in (*range(1024, used, 211), used - 1, used):
        for step in range(6):
            disk, path, _ = big_last_batch()
            disk.resize(path, left)
            disk.open(path).datasync()
            disk.crash_at = disk.steps + step
            try:
                Wal.open(disk, DIRECTORY, keep_after=0)
            except Crashed:
                disk.crash(choose)
            disk.crash_at = -1
            wal, recovered = Wal.open(disk, DIRECTORY, keep_after=0)
            whole = entries(1, 1) + (entries(2, 2, size_bytes=3000) if left == used else [])
            assert recovered.entries == whole, (left, step)
            assert len(disk.content(path)) == 16 * 1024
            write(wal, entries(len(whole) + 1, len(whole) + 1, term=9))
            wal.close()
            assert reopen(disk).torn is None


def test_a_cut_of_what_somebody_knows_to_have_been_there_is_corrupt() -> None:
    disk, path = small_log(close=True)
    disk.resize(path, HEADER_BYTES + 2 * 512 + 100)  # inside the batch of entries 3 and 4
    before = bytes(disk.content(path))
    for keep_after in (0, 3, 4):
        with pytest.raises(WalCorrupt, match="ends at entry 2, but this member has applied") as e:
            Wal.open(disk, DIRECTORY, keep_after=keep_after, applied=3)
        assert "member remove" in str(e.value)
        assert (e.value.path, e.value.offset) == (path, HEADER_BYTES + 2 * 512)
    assert disk.content(path) == before, "a refusal changes nothing"
    assert reopen_with(disk, applied=2) == GOOD[:2]


def reopen_with(disk: FakeDisk, *, applied: int) -> list[Entry]:
    wal, recovered = Wal.open(disk, DIRECTORY, keep_after=0, applied=applied)
    wal.close()
    return recovered.entries


def test_a_cut_does_not_excuse_damage() -> None:
    disk, path = small_log(close=False)
    whole = bytes(disk.content(path))
    last = HEADER_BYTES + 2 * 512
    end = last + len(whole[last:].rstrip(b"\0"))

    def refused(left: int, at: int) -> None:
        disk.content(path)[:] = whole[:left]
        disk.content(path)[at] ^= 1
        with pytest.raises(WalCorrupt):
            Wal.open(disk, DIRECTORY, keep_after=0)

    for left in (len(whole) - 1, end + 1, end):
        refused(left, end - 10)  # only zeros are missing; the records are all there
        refused(left, last + 8)
    refused(last + 200, last + 8)  # the head is there, and damaged
    refused(last + 20, last + 1)  # what begins here is not a batch
    refused(last + 200, HEADER_BYTES + 60)  # an earlier batch


def test_an_earlier_segment_that_is_short_and_any_that_is_long_are_corrupt(
    disk: FakeDisk, wal: Wal
) -> None:
    for index in range(1, 10):
        write(wal, entries(index, index, size_bytes=900))
    wal.close()
    names = disk.list(DIRECTORY)
    for number, name in enumerate(names):
        for change in (-1, -700, 1, 512):
            path = DIRECTORY / name
            whole = bytes(disk.content(path))
            disk.resize(path, len(whole) + change)
            if change > 0 or number < len(names) - 1:
                with pytest.raises(WalCorrupt, match="but was made with"):
                    Wal.open(disk, DIRECTORY, keep_after=0)
            disk.content(path)[:] = whole


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
