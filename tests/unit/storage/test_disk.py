"""The real disk: whole writes, errors that name file and place, modes of files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kvstore.storage.disk import OsDisk, make_directory
from kvstore.storage.errors import DiskFailed
from kvstore.storage.limits import GENTLE_FREE_BYTES, GENTLE_READ_BYTES, GENTLE_WRITE_BYTES


@pytest.fixture
def disk() -> OsDisk:
    return OsDisk()


def test_a_created_file_has_its_size_and_reads_as_zeros(disk: OsDisk, tmp_path: Path) -> None:
    file = disk.create(tmp_path / "f", 10_000)
    assert file.size() == 10_000
    assert file.read_at(0, 20_000) == bytes(10_000)
    assert os.stat(tmp_path / "f").st_blocks * 512 >= 10_000, "its blocks are reserved"
    assert os.stat(tmp_path / "f").st_mode & 0o077 == 0
    file.close()
    file.close()
    with pytest.raises(FileExistsError):
        disk.create(tmp_path / "f")


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_fallocate_gets_zeros_written(
    disk: OsDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(code, "not here")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    file = disk.create(tmp_path / "f", 3 * 1024**2 + 5)
    assert file.size() == 3 * 1024**2 + 5
    file.close()


def test_no_room_for_a_new_file_is_a_failure(
    disk: OsDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(DiskFailed, match="reserving 100 bytes failed: No space left") as caught:
        disk.create(tmp_path / "f", 100)
    assert caught.value.errno == errno.ENOSPC
    assert "Check the disk" in str(caught.value)


def test_short_writes_and_reads_are_completed(
    disk: OsDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = disk.create(tmp_path / "f")
    pwrite, pread = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, bytes(data[:7]), at))
    file.write_at(3, bytes(range(100)))
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 9), at))
    assert file.read_at(0, 1000) == bytes(3) + bytes(range(100))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 0)
    with pytest.raises(DiskFailed, match="writing 1 bytes at byte 50"):
        file.write_at(50, b"x")
    file.close()


@pytest.mark.parametrize(
    ("call", "use"),
    [
        ("pwrite", lambda file: file.write_at(8, b"x")),
        ("pread", lambda file: file.read_at(8, 1)),
        ("fdatasync", lambda file: file.datasync()),
        ("fstat", lambda file: file.size()),
    ],
)
def test_every_file_error_names_the_file(
    disk: OsDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, use: object
) -> None:
    file = disk.create(tmp_path / "f")

    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    assert callable(use)
    with pytest.raises(DiskFailed, match=r"failed: Input/output error \(file .*/f\)"):
        use(file)
    monkeypatch.undo()
    file.close()


def test_names(disk: OsDisk, tmp_path: Path) -> None:
    make_directory(disk, tmp_path / "a" / "b" / "c")
    make_directory(disk, tmp_path / "a" / "b" / "c")
    directory = tmp_path / "a" / "b" / "c"
    assert disk.exists(directory)
    assert disk.list(directory) == disk.list(tmp_path / "missing") == []
    for name in ("z", "y"):
        disk.create(directory / name).close()
    disk.rename(directory / "z", directory / "y")
    disk.create(directory / "x").close()
    assert disk.list(directory) == ["x", "y"]
    disk.unlink(directory / "x")
    disk.unlink(directory / "x")
    disk.sync_dir(directory)
    assert disk.list(directory) == ["y"]
    assert disk.free_bytes(directory) > 0
    with pytest.raises(FileNotFoundError):
        disk.open(directory / "x")
    for failing in (
        lambda: disk.rename(directory / "gone", directory / "y"),
        lambda: disk.sync_dir(directory / "gone"),
        lambda: disk.free_bytes(directory / "gone"),
        lambda: disk.list(directory / "y"),
        lambda: disk.unlink(directory),
        lambda: disk.make_dir(directory / "gone" / "deeper"),
        lambda: disk.create(directory / "gone" / "file"),
        lambda: disk.open(directory, writable=True),
    ):
        with pytest.raises(DiskFailed):
            failing()


def test_unsafe_no_fsync_syncs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(fd: int) -> None:
        raise AssertionError("synced")

    monkeypatch.setattr(os, "fsync", forbidden)
    monkeypatch.setattr(os, "fdatasync", forbidden)
    disk = OsDisk(sync=False)
    file = disk.create(tmp_path / "f")
    file.write_at(0, b"x")
    file.datasync()
    file.close()
    disk.sync_dir(tmp_path)


def test_what_is_done_gently_is_the_same(tmp_path: Path) -> None:
    gently = OsDisk().gently
    data = os.urandom(3 * GENTLE_WRITE_BYTES + 17)
    file = gently.create(tmp_path / "f")
    file.write_at(0, data[:13])
    file.write_at(13, data[13:])
    assert file.read_at(0, len(data)) == data
    assert file.read_at(7, 2 * GENTLE_READ_BYTES) == data[7 : 7 + 2 * GENTLE_READ_BYTES]
    assert file.read_at(len(data) - 5, 100) == data[-5:]
    assert file.read_at(len(data), GENTLE_READ_BYTES) == b""
    file.datasync()
    file.close()
    again = gently.open(tmp_path / "f")
    assert again.read_at(0, 2 * len(data)) == data
    again.close()


def test_gentle_writes_are_synced_in_small_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsynced, most = 0, 0
    write, sync = os.pwrite, os.fdatasync

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        nonlocal unsynced, most
        unsynced += len(data)
        most = max(most, unsynced)
        return write(fd, data, offset)

    def fdatasync(fd: int) -> None:
        nonlocal unsynced
        unsynced = 0
        sync(fd)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    file = OsDisk().gently.create(tmp_path / "f")
    for at in range(0, 8 * GENTLE_WRITE_BYTES, GENTLE_WRITE_BYTES // 4):
        file.write_at(at, bytes(GENTLE_WRITE_BYTES // 4))
    file.write_at(file.size(), bytes(4 * GENTLE_WRITE_BYTES))
    file.close()
    assert 0 < most <= 2 * GENTLE_WRITE_BYTES


def test_a_detached_file_has_no_name_and_gives_its_space_back_later(
    disk: OsDisk, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(bytes(3 * GENTLE_FREE_BYTES + 5))
    held = os.open(tmp_path / "f", os.O_RDONLY)
    give_back = disk.detach(tmp_path / "f")
    assert not disk.exists(tmp_path / "f")
    assert os.fstat(held).st_size == 3 * GENTLE_FREE_BYTES + 5
    give_back()
    assert os.fstat(held).st_size < GENTLE_FREE_BYTES
    os.close(held)
    disk.detach(tmp_path / "f")()  # there is none: nothing to do


def test_a_file_that_cannot_be_detached_is_an_error_with_its_place(
    disk: OsDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(bytes(3 * GENTLE_FREE_BYTES))

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with pytest.raises(DiskFailed, match="syncing the directory"):
            disk.detach(tmp_path / "f")
    (tmp_path / "f").write_bytes(bytes(3 * GENTLE_FREE_BYTES))
    give_back = disk.detach(tmp_path / "f")
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(DiskFailed, match="cutting it to"):
        give_back()
