"""Locks, marks and paths of a data directory."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from kvstore.storage.disk import OsDisk
from kvstore.storage.errors import DirectoryLocked
from kvstore.storage.layout import DirectoryLock, Layout, StoreMark, StoreTrust, boot_id

from .fake_disk import Crashed, FakeDisk

MARK = Path("/db/store.mark")


def test_paths(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create(OsDisk())
    assert layout.wal == tmp_path / "data" / "member" / "wal"
    assert layout.snap.is_dir()
    assert layout.db.is_dir()
    assert not layout.wal.exists(), "the log makes its own directory"
    assert Layout(tmp_path, Path("/fast/wal")).wal == Path("/fast/wal")


def test_a_second_lock_is_refused_and_names_the_process(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    code = (
        "import sys; from pathlib import Path; from kvstore.storage.layout import Layout;"
        "lock = Layout(Path(sys.argv[1])).lock(); print('locked', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "locked\n"
    with pytest.raises(DirectoryLocked, match=f"in use by process {child.pid}.*--data-dir"):
        layout.lock()
    assert DirectoryLock.holder(layout.lock_file) == str(child.pid)
    child.kill()
    child.wait()
    child.communicate()
    assert DirectoryLock.holder(layout.lock_file) is None
    lock = layout.lock()
    with pytest.raises(DirectoryLocked):
        layout.lock()
    lock.release()
    lock.release()
    layout.lock().release()


def test_nobody_holds_a_lock_that_is_not_there(tmp_path: Path) -> None:
    assert DirectoryLock.holder(tmp_path / "lock") is None


def test_the_mark_tells_how_the_store_was_left() -> None:
    disk = FakeDisk()
    mark = StoreMark(disk, MARK, "boot-1")
    assert mark.read() is StoreTrust.UNMARKED
    mark.set_in_use()
    assert mark.read() is StoreTrust.SAME_BOOT
    assert StoreMark(disk, MARK, "boot-2").read() is StoreTrust.OTHER_BOOT
    mark.set_clean()
    assert StoreMark(disk, MARK, "boot-2").read() is StoreTrust.CLEAN
    trusted = {trust for trust in StoreTrust if trust.is_trusted}
    assert trusted == {StoreTrust.CLEAN, StoreTrust.SAME_BOOT}


def test_without_boot_ids_only_a_clean_store_is_trusted() -> None:
    mark = StoreMark(FakeDisk(), MARK, "")
    mark.set_in_use()
    assert mark.read() is StoreTrust.OTHER_BOOT
    mark.set_clean()
    assert mark.read() is StoreTrust.CLEAN


def test_a_damaged_mark_is_no_mark() -> None:
    disk = FakeDisk()
    mark = StoreMark(disk, MARK, "boot-1")
    mark.set_clean()
    content = disk.content(MARK)
    for bit in range(len(content) * 8):
        content[bit // 8] ^= 1 << bit % 8
        assert mark.read() is StoreTrust.UNMARKED
        content[bit // 8] ^= 1 << bit % 8
    for left in range(len(content) - 1, -1, -1):
        disk.resize(MARK, left)
        assert mark.read() is StoreTrust.UNMARKED


def test_marking_in_use_is_whole_at_every_crash() -> None:
    for crash_after in range(20):
        for seed in range(8):
            disk = FakeDisk()
            mark = StoreMark(disk, MARK, "boot-1")
            mark.set_clean()
            disk.crash_at = disk.steps + crash_after
            try:
                mark.set_in_use()
            except Crashed:
                disk.crash(random.Random(seed).randrange)
                assert mark.read() in (StoreTrust.CLEAN, StoreTrust.SAME_BOOT)
            else:
                disk.crash(random.Random(seed).randrange)
                assert mark.read() is StoreTrust.SAME_BOOT, "durable when it returned"
                return
    raise AssertionError("set_in_use never came to its end")


def test_a_store_that_is_not_believed_is_set_aside(tmp_path: Path) -> None:
    disk = OsDisk()
    layout = Layout(tmp_path)
    layout.create(disk)
    assert layout.set_store_aside(disk, "damaged") is None
    layout.store.write_bytes(b"x")
    (layout.db / "store.mdb-lock").write_bytes(b"x")
    aside = layout.set_store_aside(disk, "damaged")
    assert aside == layout.db / "store.mdb.damaged"
    assert disk.list(layout.db) == ["store.mdb.damaged"]


def test_this_machine_has_a_boot_id() -> None:
    assert boot_id() == boot_id()
