"""Where a member's files are, who may use them, and whether the live store can be believed.

    <data-dir>/member/lock        held by the running process, names its pid
    <data-dir>/member/beginning   there until the first log is; what else is here then is void
    <data-dir>/member/wal/        the log (or --wal-dir)
    <data-dir>/member/snap/       snapshot files
    <data-dir>/member/db/store.mdb   the live store; store.mark says how it was last left

The store's commits are not synced. After a crash of the process the page cache still has them;
after a crash of the machine the file may be a mixture of old and new pages. The mark tells which:
it is "in use" with the boot id of the machine while a process runs, and "clean" after an orderly
close. A store in use under another boot id is not believed but rebuilt from snapshot and log.
"""

from __future__ import annotations

import errno
import fcntl
import os
from enum import Enum
from pathlib import Path
from typing import Final

import google_crc32c
import msgpack

from kvstore.storage.disk import Disk, make_directory
from kvstore.storage.errors import DirectoryLocked, DiskFailed
from kvstore.storage.fault_points import disk_point

__all__ = ("DirectoryLock", "Layout", "StoreMark", "StoreTrust", "boot_id")

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Layout:
    """The paths of one member."""

    def __init__(self, data_dir: Path, wal_dir: Path | None = None) -> None:
        self.data_dir = data_dir
        self.member = data_dir / "member"
        self.wal = wal_dir if wal_dir is not None else self.member / "wal"
        self.snap = self.member / "snap"
        self.db = self.member / "db"
        self.store = self.db / "store.mdb"
        self.store_mark = self.db / "store.mark"
        self.lock_file = self.member / "lock"
        self.beginning = self.member / "beginning"

    def create(self, disk: Disk) -> None:
        """Makes the directories that are missing, durably. The log makes its own."""
        for directory in (self.member, self.snap, self.db):
            make_directory(disk, directory)

    def lock(self) -> DirectoryLock:
        """Takes the data directory for this process; raises DirectoryLocked."""
        return DirectoryLock(self.lock_file)

    def set_store_aside(self, disk: Disk, suffix: str) -> Path | None:
        """Moves a store that is not believed out of the way; where to, None if there is none."""
        aside = self.store.with_name(f"{self.store.name}.{suffix}")
        disk.unlink(self.store.with_name(self.store.name + "-lock"))
        if not disk.exists(self.store):
            return None
        disk.rename(self.store, aside)
        disk_point("store.set_aside", aside)
        disk.sync_dir(self.db)
        return aside


class DirectoryLock:
    """An exclusive lock on a directory, by a file in it that names the holder.

    The operating system drops it when the process ends, however it ends.
    """

    def __init__(self, path: Path) -> None:
        self._fd = -1
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed("opening the lock file", path, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise DirectoryLocked(path.parent, holder or "(unknown)") from None
            raise _failed("locking", path, error) from error
        self._fd = fd

    @staticmethod
    def holder(path: Path) -> str | None:
        """The pid of the process that holds the lock; None if nobody does. Changes nothing."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "(unknown)"
        finally:
            os.close(fd)
        return None

    def release(self) -> None:
        """Gives the directory free. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class StoreTrust(Enum):
    """What the mark says about the live store."""

    CLEAN = "closed in order"
    SAME_BOOT = "left by a process of this boot"
    OTHER_BOOT = "left without an orderly close before the machine restarted"
    UNMARKED = "no readable mark"

    @property
    def is_trusted(self) -> bool:
        """Whether the store file may be used; otherwise it must be rebuilt."""
        return self in (StoreTrust.CLEAN, StoreTrust.SAME_BOOT)


class StoreMark:
    """The mark beside the live store. `boot` is this machine's boot id, "" if it has none."""

    def __init__(self, disk: Disk, path: Path, boot: str) -> None:
        self._disk = disk
        self._path = path
        self._boot = boot

    def read(self) -> StoreTrust:
        """How the store was last left. Changes nothing."""
        try:
            file = self._disk.open(self._path)
        except FileNotFoundError:
            return StoreTrust.UNMARKED
        try:
            data = file.read_at(0, 4096)
        finally:
            file.close()
        if len(data) < 4 or google_crc32c.value(data[4:]) != int.from_bytes(data[:4], "big"):
            return StoreTrust.UNMARKED
        try:
            state, boot = msgpack.unpackb(data[4:])
        except (ValueError, TypeError):
            return StoreTrust.UNMARKED
        if state == "clean":
            return StoreTrust.CLEAN
        if boot and boot == self._boot:
            return StoreTrust.SAME_BOOT
        return StoreTrust.OTHER_BOOT

    def set_in_use(self) -> None:
        """Before the first write to the store; durable when it returns."""
        self._write("in use")

    def set_clean(self) -> None:
        """After the store was synced and closed; durable when it returns."""
        self._write("clean")

    def _write(self, state: str) -> None:
        disk_point("store.before_mark", self._path)
        body: bytes = msgpack.packb([state, self._boot])
        unfinished = self._path.with_name(self._path.name + ".tmp")
        self._disk.unlink(unfinished)
        file = self._disk.create(unfinished)
        try:
            file.write_at(0, google_crc32c.value(body).to_bytes(4, "big") + body)
            file.datasync()
        finally:
            file.close()
        self._disk.rename(unfinished, self._path)
        self._disk.sync_dir(self._path.parent)
        disk_point("store.after_mark", self._path)


def boot_id() -> str:
    """What names this boot of the machine; "" where the system does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _failed(action: str, path: Path, error: OSError) -> DiskFailed:
    return DiskFailed(action, path, error.strerror or str(error), errno=error.errno or 0)
