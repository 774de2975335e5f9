"""Snapshot files: round trips, damage in any byte, crashes at any disk operation."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kvstore.storage.disk import OsDisk
from kvstore.storage.errors import CopyStopped, DiskFailed, SnapshotCorrupt
from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.memory_store import MemoryStore
from kvstore.storage.snapshot import (
    SnapshotHeader,
    SnapshotReceiver,
    SnapshotWriter,
    extract_to,
    image,
    newest_valid,
    prune,
    raw_pieces,
    remove_unfinished,
    snapshots,
    verify,
    write_snapshot,
)
from kvstore.storage.store import EngineInfo, ReadTxn, Store, TableSpec
from raft.types import ConfState

from .fake_disk import Crashed, FakeDisk

DIRECTORY = Path("/snap")
TABLES = (TableSpec("meta"), TableSpec("keys", long_keys=True))
ENGINE = EngineInfo("memory", "1", 0)


def header(index: int, term: int = 3) -> SnapshotHeader:
    return SnapshotHeader(index, term, ConfState((1, 2, 3), (4,)), 0xC1, ENGINE)


def make(disk: FakeDisk, index: int, body: bytes = b"body") -> Path:
    with SnapshotWriter(disk, DIRECTORY, header(index)) as writer:
        writer.write(body)
        return writer.finish()


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


def test_what_was_written_comes_back(disk: FakeDisk) -> None:
    pieces = [random.Random(7).randbytes(size) for size in (0, 1, 3_000_000, 5, 1024**2)]
    with SnapshotWriter(disk, DIRECTORY, header(9)) as writer:
        for piece in pieces:
            writer.write(piece)
        path = writer.finish()
    assert path.name == "snap-0000000000000009-0000000000000003.kvs"
    assert verify(disk, path) == header(9)
    assert b"".join(image(disk, path)) == b"".join(pieces)
    assert extract_to(disk, path, Path("/snap/out")) == header(9)
    assert bytes(disk.content(Path("/snap/out"))) == b"".join(pieces)


def test_an_empty_image_is_an_image(disk: FakeDisk) -> None:
    with SnapshotWriter(disk, DIRECTORY, header(1)) as writer:
        path = writer.finish()
    assert list(image(disk, path)) == []


def test_every_flipped_bit_is_noticed(disk: FakeDisk) -> None:
    path = make(disk, 5, b"image " * 20)
    content = disk.content(path)
    for bit in range(len(content) * 8):
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SnapshotCorrupt, match="Move the file aside"):
            verify(disk, path)
        with pytest.raises(SnapshotCorrupt):
            extract_to(disk, path, Path("/snap/out"))
        assert not disk.exists(Path("/snap/out"))
        content[bit // 8] ^= 1 << bit % 8
    assert verify(disk, path) == header(5)


def test_every_truncation_and_every_appended_byte_is_noticed(disk: FakeDisk) -> None:
    path = make(disk, 5, b"image " * 20)
    size = len(disk.content(path))
    disk.resize(path, size + 1)
    with pytest.raises(SnapshotCorrupt):
        verify(disk, path)
    for left in range(size - 1, -1, -1):
        disk.resize(path, left)
        with pytest.raises(SnapshotCorrupt):
            verify(disk, path)


def test_the_newest_valid_one_is_found_and_the_damaged_are_told(disk: FakeDisk) -> None:
    assert newest_valid(disk, DIRECTORY) is None
    for index in (5, 10, 200):
        make(disk, index)
    newest = newest_valid(disk, DIRECTORY)
    assert newest is not None
    assert newest.header.index == 200
    disk.content(newest.path)[30] ^= 1
    newest = newest_valid(disk, DIRECTORY)
    assert newest is not None
    assert newest.header.index == 10
    assert [error.path.name for error in newest.damaged] == [
        "snap-00000000000000c8-0000000000000003.kvs"
    ]


def test_only_damaged_ones_are_an_error_not_a_fresh_start(disk: FakeDisk) -> None:
    disk.content(make(disk, 5))[30] ^= 1
    with pytest.raises(SnapshotCorrupt):
        newest_valid(disk, DIRECTORY)


def test_a_renamed_snapshot_does_not_count(disk: FakeDisk) -> None:
    disk.rename(make(disk, 5), DIRECTORY / "snap-0000000000000006-0000000000000003.kvs")
    with pytest.raises(SnapshotCorrupt, match="not what"):
        newest_valid(disk, DIRECTORY)


def test_prune_keeps_the_newest(disk: FakeDisk) -> None:
    paths = [make(disk, index) for index in (5, 10, 200, 16)]
    assert prune(disk, DIRECTORY, keep=2) == [paths[1], paths[0]]
    assert snapshots(disk, DIRECTORY) == [paths[2], paths[3]]
    assert prune(disk, DIRECTORY, keep=2) == []


def test_an_abandoned_snapshot_leaves_no_file(disk: FakeDisk) -> None:
    with pytest.raises(RuntimeError), SnapshotWriter(disk, DIRECTORY, header(5)) as writer:  # noqa: PT012
        writer.write(b"x")
        raise RuntimeError
    assert disk.list(DIRECTORY) == []


def test_a_file_travels_as_it_stands(disk: FakeDisk) -> None:
    path = make(disk, 5, b"image" * 100)
    there = Path("/there")
    with SnapshotReceiver(disk, there, index=5, term=3) as receiver:
        for piece in raw_pieces(disk, path, 64):
            receiver.write(piece)
        received, found = receiver.finish()
    assert found == header(5)
    assert disk.content(received) == disk.content(path)


def test_a_damaged_or_unexpected_file_is_not_received(disk: FakeDisk) -> None:
    raw = bytearray(disk.content(make(disk, 5)))
    there = Path("/there")
    with SnapshotReceiver(disk, there, index=6, term=3) as receiver:
        receiver.write(bytes(raw))
        with pytest.raises(SnapshotCorrupt, match="it is of entry 5, term 3"):
            receiver.finish()
    raw[-1] ^= 1
    with SnapshotReceiver(disk, there, index=5, term=3) as receiver:
        receiver.write(bytes(raw))
        with pytest.raises(SnapshotCorrupt):
            receiver.finish()
    assert disk.list(there) == []


def test_a_crash_at_any_operation_leaves_the_old_or_the_new() -> None:
    seen = set()
    for crash_after in range(30):
        for seed in range(8):
            disk = FakeDisk()
            make(disk, 5)
            disk.crash_at = disk.steps + crash_after
            try:
                make(disk, 9)
            except Crashed:
                disk.crash(random.Random(seed).randrange)
                newest = newest_valid(disk, DIRECTORY)
                assert newest is not None
                assert newest.header.index in (5, 9)
                assert newest.damaged == ()
                seen.add(newest.header.index)
                remove_unfinished(disk, DIRECTORY)
                assert all(name.endswith(".kvs") for name in disk.list(DIRECTORY))
            else:
                assert crash_after > 4
                assert seen == {5, 9}
                return
    raise AssertionError("the snapshot never came to its end")


@pytest.mark.parametrize("step", range(8))
def test_a_failing_disk_is_reported(disk: FakeDisk, step: int) -> None:
    disk.fail_at = disk.steps + step
    with pytest.raises(DiskFailed):
        make(disk, 5)
    disk.fail_at = -1
    assert newest_valid(disk, DIRECTORY) is None or step == 7


def describe(txn: ReadTxn) -> SnapshotHeader:
    applied = txn.get("meta", b"applied")
    assert applied is not None
    return header(int(applied))


def test_a_store_goes_through_a_snapshot(tmp_path: Path) -> None:
    disk = OsDisk()
    store = LmdbStore(tmp_path / "a.mdb", TABLES, map_bytes=64 * 1024**2)
    records = {b"key%05d" % number: b"v" * (number % 300) for number in range(20_000)}
    records[b"l" * 5000] = b"long"
    txn = store.write()
    txn.put("meta", b"applied", b"77")
    txn.put_many("keys", records.items())
    txn.commit()
    path = write_snapshot(disk, tmp_path / "snap", store, describe)
    store.close()
    assert verify(disk, path).index == 77
    extract_to(disk, path, tmp_path / "b.mdb")
    copy = LmdbStore(tmp_path / "b.mdb", TABLES, map_bytes=64 * 1024**2)
    view = copy.read()
    assert dict(view.scan("keys")) == records
    view.close()
    copy.close()


def test_a_memory_store_goes_through_a_snapshot(disk: FakeDisk) -> None:
    store: Store = MemoryStore(TABLES)
    txn = store.write()
    txn.put("meta", b"applied", b"7")
    txn.put_many("keys", [(b"%05d" % number, b"v") for number in range(5000)])
    txn.commit()
    path = write_snapshot(disk, DIRECTORY, store, describe)
    copy = MemoryStore.from_image(TABLES, image(disk, path))
    view, original = copy.read(), store.read()
    assert list(view.scan("keys")) == list(original.scan("keys"))
    assert view.get("meta", b"applied") == b"7"


def test_a_stopped_snapshot_leaves_no_file(disk: FakeDisk) -> None:
    store = MemoryStore(TABLES)
    txn = store.write()
    txn.put("meta", b"applied", b"7")
    txn.commit()
    with pytest.raises(CopyStopped):
        write_snapshot(disk, DIRECTORY, store, describe, stop=lambda: True)
    assert disk.list(DIRECTORY) == []
