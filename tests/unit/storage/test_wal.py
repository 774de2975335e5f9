"""The log: what it returns after a restart, and that it tells torn from corrupt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.storage.disk import OsDisk
from kvstore.storage.errors import DiskFailed, WalCorrupt, WalExists, WalMissing
from kvstore.storage.wal import Recovered, Wal, WalIdentity, log_exists
from kvstore.storage.wal_format import (
    HEADER_BYTES,
    RecordKind,
    build_batch,
    build_record,
    read_head,
)
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


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


@pytest.fixture
def wal(disk: FakeDisk) -> Wal:
    return Wal.create(disk, DIRECTORY, IDENTITY, segment_bytes=4096)


def test_a_new_log_is_empty(disk: FakeDisk, wal: Wal) -> None:
    wal.close()
    recovered = reopen(disk)
    assert recovered.identity == IDENTITY
    assert recovered.hard_state == HardState(0, 0, 0)
    assert recovered.base == (0, 0)
    assert recovered.entries == []
    assert recovered.torn is None


def test_entries_and_hard_state_come_back(disk: FakeDisk, wal: Wal) -> None:
    write(wal, entries(1, 3), HardState(1, 7, 0))
    write(wal, [], HardState(1, 7, 3), sync=False)
    write(wal, entries(4, 4, term=2))
    wal.close()
    recovered = reopen(disk)
    assert recovered.hard_state == HardState(1, 7, 3)
    assert recovered.entries == entries(1, 3) + entries(4, 4, term=2)
    assert all(type(entry) is Entry for entry in recovered.entries)


def test_entries_replace_the_suffix(disk: FakeDisk, wal: Wal) -> None:
    write(wal, entries(1, 10))
    write(wal, entries(4, 6, term=2))
    write(wal, entries(6, 6, term=3))
    wal.close()
    expected = entries(1, 3) + entries(4, 5, term=2) + entries(6, 6, term=3)
    assert reopen(disk).entries == expected
    assert reopen(disk, keep_after=4).entries == expected[4:]
    assert reopen(disk, keep_after=4).base == (4, 2)
    assert reopen(disk, keep_after=6).base == (6, 3)


@pytest.mark.parametrize("keep_after", range(22))
def test_keep_after_leaves_out_what_is_before(disk: FakeDisk, wal: Wal, keep_after: int) -> None:
    for first in range(1, 20, 4):
        write(wal, entries(first, first + 3, term=first))
    wal.close()
    recovered = reopen(disk, keep_after)
    assert [entry.index for entry in recovered.entries] == list(range(keep_after + 1, 21))
    kept = min(keep_after, 20)
    assert recovered.base == ((kept, (kept - 1) // 4 * 4 + 1) if kept else (0, 0))


def test_segments_follow_one_another(disk: FakeDisk, wal: Wal) -> None:
    for first in range(1, 100, 5):
        write(wal, entries(first, first + 4, size_bytes=200), HardState(1, 1, first))
    wal.close()
    assert len(disk.list(DIRECTORY)) > 5
    recovered = reopen(disk)
    assert recovered.entries == entries(1, 100, size_bytes=200)
    assert recovered.hard_state == HardState(1, 1, 96)


def test_a_batch_larger_than_a_segment_gets_a_segment_of_its_own(disk: FakeDisk, wal: Wal) -> None:
    write(wal, entries(1, 2))
    write(wal, entries(3, 3, size_bytes=20_000))
    write(wal, entries(4, 4))
    wal.close()
    assert reopen(disk).entries == (
        entries(1, 2) + entries(3, 3, size_bytes=20_000) + entries(4, 4)
    )


def test_release_drops_whole_segments_and_keeps_the_rest(disk: FakeDisk, wal: Wal) -> None:
    for index in range(1, 31):
        write(wal, entries(index, index, term=index // 10, size_bytes=900), HardState(3, 1, index))
    segments = len(disk.list(DIRECTORY))
    wal.release(15)
    assert 1 < len(disk.list(DIRECTORY)) < segments
    wal.close()
    recovered = reopen(disk, keep_after=15)
    assert recovered.base == (15, 1)
    assert [entry.index for entry in recovered.entries] == list(range(16, 31))
    earliest = reopen(disk, keep_after=0)
    assert 0 < earliest.base[0] <= 15
    assert earliest.base[1] == earliest.base[0] // 10
    assert earliest.entries[0].index == earliest.base[0] + 1


def test_release_never_drops_the_newest_segment(disk: FakeDisk, wal: Wal) -> None:
    write(wal, entries(1, 5), HardState(1, 1, 5))
    wal.release(5)
    wal.close()
    assert reopen(disk).entries == entries(1, 5)


def test_hard_state_survives_the_release_of_its_segment(disk: FakeDisk, wal: Wal) -> None:
    write(wal, [], HardState(9, 4, 0))
    for index in range(1, 21):
        write(wal, entries(index, index, size_bytes=900))
    wal.release(20)
    wal.close()
    assert reopen(disk, keep_after=20).hard_state == HardState(9, 4, 0)


def test_replacing_entries_across_released_segments(disk: FakeDisk, wal: Wal) -> None:
    for index in range(1, 9):
        write(wal, entries(index, index, size_bytes=900))
    write(wal, entries(6, 9, term=2, size_bytes=900), HardState(2, 1, 9))
    wal.release(8)
    wal.close()
    recovered = reopen(disk, keep_after=8)
    assert recovered.base == (8, 2)
    assert recovered.entries == entries(9, 9, term=2, size_bytes=900)


def test_reset_restarts_the_log_behind_a_snapshot(disk: FakeDisk, wal: Wal) -> None:
    for index in range(1, 20):
        write(wal, entries(index, index, size_bytes=900))
    wal.reset(100, 5, HardState(6, 2, 100))
    assert len(disk.list(DIRECTORY)) == 1
    assert wal.size_bytes_since(0) == 0
    write(wal, entries(101, 102, term=6))
    wal.close()
    recovered = reopen(disk, keep_after=100)
    assert recovered.base == (100, 5)
    assert recovered.entries == entries(101, 102, term=6)
    assert recovered.hard_state == HardState(6, 2, 100)


def test_a_log_can_begin_behind_a_restored_snapshot(disk: FakeDisk) -> None:
    wal = Wal.create(disk, DIRECTORY, IDENTITY, base=(50, 3), hard_state=HardState(3, 0, 50))
    write(wal, entries(51, 51, term=4))
    wal.close()
    assert reopen(disk).base == (50, 3)


def test_creating_twice_and_opening_nothing_say_what_to_do(disk: FakeDisk, wal: Wal) -> None:
    with pytest.raises(WalExists, match="Open it instead"):
        Wal.create(disk, DIRECTORY, IDENTITY)
    with pytest.raises(WalMissing, match="member remove"):
        Wal.open(disk, Path("/elsewhere"), keep_after=0)
    assert log_exists(disk, DIRECTORY)
    assert not log_exists(disk, Path("/elsewhere"))


def test_size_since_an_entry(wal: Wal) -> None:
    for index in range(1, 41):
        write(wal, entries(index, index, size_bytes=100_000), sync=False)
    total = wal.size_bytes_since(0)
    assert total > 4_000_000
    half = wal.size_bytes_since(20)
    assert total / 2 <= half <= total / 2 + 512 * 1024
    assert wal.size_bytes_since(40) <= 512 * 1024


def test_size_since_an_entry_is_known_after_opening(disk: FakeDisk, wal: Wal) -> None:
    for index in range(1, 41):
        write(wal, entries(index, index, size_bytes=100_000), sync=False)
    before = wal.size_bytes_since(20)
    wal.close()
    wal, _ = Wal.open(disk, DIRECTORY, keep_after=40)
    assert wal.size_bytes_since(20) == before


@pytest.mark.parametrize("step", range(6))
def test_after_a_failure_the_log_refuses_everything(disk: FakeDisk, wal: Wal, step: int) -> None:
    disk.fail_at = disk.steps + step
    batches = [wal.encode(None, entries(index, index, size_bytes=3000)) for index in (1, 2)]
    with pytest.raises(DiskFailed, match="made to fail"):  # noqa: PT012
        for batch in batches:
            wal.write(batch, True)
    uses: tuple[Callable[[], None], ...] = (
        lambda: wal.write(wal.encode(None, []), True),
        lambda: wal.release(1),
        lambda: wal.reset(9, 1, HardState(1, 1, 9)),
    )
    for use in uses:
        with pytest.raises(DiskFailed, match="an earlier operation failed"):
            use()
    before = disk.steps
    wal.close()
    assert disk.steps == before, "closing a broken log writes nothing"


def test_batches_must_be_written_in_order(wal: Wal) -> None:
    wal.encode(None, entries(1, 1))
    second = wal.encode(None, entries(2, 2))
    with pytest.raises(AssertionError):
        wal.write(second, True)


def test_encode_refuses_gaps(wal: Wal) -> None:
    with pytest.raises(AssertionError):
        wal.encode(None, entries(2, 2))
    with pytest.raises(AssertionError):
        wal.encode(None, entries(1, 1) + entries(3, 3))


# --- verdicts


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


@pytest.mark.parametrize("length", range(1, 1100, 7))
@pytest.mark.parametrize("zeros", [0, 1, 5, 600, 1100])
def test_a_batch_knows_its_own_zero_sectors(length: int, zeros: int) -> None:
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


def test_on_real_files(tmp_path: Path) -> None:
    disk = OsDisk()
    wal = Wal.create(disk, tmp_path / "a" / "wal", IDENTITY, segment_bytes=64 * 1024)
    for index in range(1, 101):
        write(wal, entries(index, index, size_bytes=2000), HardState(1, 1, index))
    wal.release(50)
    wal.close()
    wal, recovered = Wal.open(disk, tmp_path / "a" / "wal", keep_after=60)
    assert [entry.index for entry in recovered.entries] == list(range(61, 101))
    wal.close()
    assert all(path.stat().st_size == 64 * 1024 for path in (tmp_path / "a" / "wal").iterdir())
