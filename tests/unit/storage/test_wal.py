"""The log: what it returns after a restart, and that it tells torn from corrupt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.storage.disk import OsDisk
from kvstore.storage.errors import DiskFailed, WalExists, WalMissing
from kvstore.storage.wal import Wal, log_exists
from raft.types import Entry, HardState

from .fake_disk import Crashed, FakeDisk
from .wal_kit import DIRECTORY, IDENTITY, entries, reopen, write


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


def test_a_segment_that_a_killed_process_had_just_named_is_not_lost_later(
    disk: FakeDisk, wal: Wal
) -> None:
    """The page cache shows the new name, the medium may not have it: it must, before use."""
    write(wal, entries(1, 5))
    renamed = disk.steps + 3  # creation, header, sync; then the rename, then the names' sync
    disk.crash_at = renamed + 1
    with pytest.raises(Crashed):
        write(wal, entries(6, 9, size_bytes=4000))
    disk.crash_at = -1
    assert len(disk.list(DIRECTORY)) == 2
    again, recovered = Wal.open(disk, DIRECTORY, keep_after=0, segment_bytes=4096)
    assert recovered.entries == entries(1, 5)
    write(again, entries(6, 7))
    disk.crash(lambda _choices: 0)
    assert reopen(disk).entries == entries(1, 7)
