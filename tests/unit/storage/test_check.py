"""The offline check finds what is damaged, says where, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import lmdb
import pytest

from kvstore.storage.check import check_data_dir
from kvstore.storage.disk import OsDisk
from kvstore.storage.layout import Layout, StoreMark, boot_id
from kvstore.storage.lmdb_store import LmdbStore, tail_name
from kvstore.storage.sealed import seal, table_seed
from kvstore.storage.snapshot import SnapshotHeader, write_snapshot
from kvstore.storage.store import TableSpec
from kvstore.storage.wal import Wal, WalIdentity
from raft.types import ConfState, Entry, HardState

TABLES = (TableSpec("meta"), TableSpec("keys", long_keys=True))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A data directory as an orderly stop leaves it."""
    disk = OsDisk()
    layout = Layout(tmp_path)
    layout.create(disk)
    mark = StoreMark(disk, layout.store_mark, boot_id())
    mark.set_in_use()
    store = LmdbStore(layout.store, TABLES, map_bytes=64 * 1024**2)
    txn = store.write()
    txn.put_many("keys", [(b"key%d" % number, b"payload") for number in range(50)])
    txn.put("keys", b"k" * 1500, b"long")
    txn.commit()
    header = SnapshotHeader(20, 1, ConfState((1,)), 0xC1, store.engine)
    write_snapshot(disk, layout.snap, store, lambda _: header)
    store.sync()
    store.close()
    mark.set_clean()
    wal = Wal.create(disk, layout.wal, WalIdentity(0xC1, 1), segment_bytes=8192)
    for index in range(1, 41):
        entry = Entry(index, 1, 0, b"data" * 100)
        wal.write(wal.encode(HardState(1, 1, index), [entry]), True)
    wal.release(20)
    wal.close()
    return layout


def contents(layout: Layout) -> dict[Path, tuple[bytes, int]]:
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in layout.data_dir.rglob("*")
        if path.is_file()
    }


def test_a_good_directory_is_clean_and_stays_as_it_is(layout: Layout) -> None:
    before = contents(layout)
    report = check_data_dir(layout.data_dir)
    assert report.clean, report.findings
    assert any("entries" in note and "commit 40" in note for note in report.notes)
    assert any("entry 20" in note for note in report.notes)
    assert any("table keys" in note for note in report.notes)
    assert contents(layout) == before


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_damage_in_the_log(layout: Layout) -> None:
    path = sorted(layout.wal.iterdir())[0]
    flip(path, 700)
    before = contents(layout)
    report = check_data_dir(layout.data_dir)
    assert len(report.findings) == 1
    assert f"{path} is damaged at byte 512" in report.findings[0].message
    assert contents(layout) == before


def test_an_unfinished_write_is_a_note(layout: Layout) -> None:
    path = sorted(layout.wal.iterdir())[-1]
    content = bytearray(path.read_bytes())
    used = -(-len(content.rstrip(b"\0")) // 512) * 512
    content[used + 512 : used + 520] = b"trailing"  # behind a head that was never written
    path.write_bytes(content)
    before = contents(layout)
    report = check_data_dir(layout.data_dir)
    assert report.clean
    assert any(f"unfinished last write at byte {used}" in note for note in report.notes)
    assert contents(layout) == before


def test_a_cut_last_segment_is_a_note_and_the_next_start_mends_it(layout: Layout) -> None:
    path = sorted(layout.wal.iterdir())[-1]
    content = path.read_bytes()
    mark = (len(content.rstrip(b"\0")) - 1) // 512 * 512  # the batch that closing wrote
    path.write_bytes(content[: mark - 600])
    before = contents(layout)
    report = check_data_dir(layout.data_dir)
    assert report.clean
    torn = next(note for note in report.notes if "log: torn" in note)
    assert f"at byte {mark - 1024} of {path.name} (the file ends inside the batch)" in torn
    assert "the next start cuts it off" in torn
    short = f"{path.name} is {len(content) - mark + 600} bytes shorter than it was made"
    assert any(short in note for note in report.notes)
    assert contents(layout) == before
    wal, recovered = Wal.open(OsDisk(), layout.wal, keep_after=20)
    wal.close()
    assert [entry.index for entry in recovered.entries] == list(range(21, 39))
    assert path.stat().st_size == len(content)
    assert not [note for note in check_data_dir(layout.data_dir).notes if "torn" in note]


def test_damage_in_a_snapshot_and_the_gap_it_leaves(layout: Layout) -> None:
    path = next(layout.snap.iterdir())
    flip(path, 1000)
    report = check_data_dir(layout.data_dir)
    assert [str(path) in finding.where for finding in report.findings] == [True, False]
    assert "entries are missing between" in report.findings[1].message


def test_damage_in_the_store(layout: Layout) -> None:
    at = layout.store.read_bytes().index(b"payload")
    flip(layout.store, at)
    report = check_data_dir(layout.data_dir)
    assert len(report.findings) == 1
    assert "table keys, key " in report.findings[0].where


def test_a_node_without_a_pointer(layout: Layout) -> None:
    env = lmdb.open(str(layout.store), subdir=False, max_dbs=8, lock=False)
    tail = env.open_db(tail_name("keys").encode())
    with env.begin(write=True) as txn:
        key = b"\0"
        txn.put(key, seal(table_seed("keys/tail"), key, (9).to_bytes(8, "big")), db=tail)
    env.close()
    report = check_data_dir(layout.data_dir)
    assert ["9 nodes of long keys, but 3 pointers" in f.message for f in report.findings] == [True]


def test_a_store_that_will_be_rebuilt_is_not_judged(layout: Layout) -> None:
    layout.store_mark.unlink()
    flip(layout.store, layout.store.read_bytes().index(b"payload"))
    report = check_data_dir(layout.data_dir)
    assert report.clean
    assert any("no readable mark; the next start rebuilds it" in note for note in report.notes)
    layout.store.unlink()
    assert check_data_dir(layout.data_dir).clean


def test_no_store_file_at_all(layout: Layout) -> None:
    layout.store.write_bytes(b"nonsense" * 1024)
    report = check_data_dir(layout.data_dir)
    assert ["page structure" in finding.message for finding in report.findings] == [True]


def test_a_directory_in_use_is_refused(layout: Layout) -> None:
    lock = layout.lock()
    report = check_data_dir(layout.data_dir)
    assert ["in use by process" in finding.message for finding in report.findings] == [True]
    lock.release()
    assert check_data_dir(layout.data_dir).clean


def test_missing_pieces_are_said(layout: Layout, tmp_path: Path) -> None:
    assert not check_data_dir(tmp_path / "elsewhere").clean
    for path in layout.wal.iterdir():
        path.unlink()
    report = check_data_dir(layout.data_dir)
    assert ["no log segment" in finding.message for finding in report.findings] == [True]
    layout.beginning.touch()
    report = check_data_dir(layout.data_dir)
    assert report.clean
    assert any("the first start was interrupted" in note for note in report.notes)
