"""A member's files as one thing: directory lock, log, snapshots, and the store they stand for.

Every function here blocks on the disk and is called from a worker thread, never from the loop.
The order inside each is chosen so that a crash between any two steps leaves files from which
`recovery` finds its way; where the order matters, the comment says so.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kvstore.machine import Machine, MachineConfig
from kvstore.machine.membership import conf_state
from kvstore.machine.meta import load_state
from kvstore.node.config import NodeConfig
from kvstore.node.host import Host, Lock
from kvstore.node.leasing import minimum_ttl_s
from kvstore.storage import snapshot
from kvstore.storage.disk import Disk
from kvstore.storage.errors import WalMissing
from kvstore.storage.fault_points import disk_point
from kvstore.storage.layout import Layout, StoreMark
from kvstore.storage.store import ReadTxn, Store
from kvstore.storage.wal import Recovered, Wal, WalIdentity, log_exists
from raft.types import HardState, SnapshotMeta

__all__ = ("MemberFiles", "SnapshotFile")

_LOG = logging.getLogger(__name__)
_SCRATCH = "scratch"


@dataclass(frozen=True, slots=True, order=True)
class SnapshotFile:
    """A snapshot on disk; the newest is the greatest."""

    index: int
    term: int
    path: Path = field(compare=False)


class MemberFiles:
    """The locked data directory of one member, and the store that is open in it."""

    def __init__(
        self, config: NodeConfig, host: Host, disk: Disk, layout: Layout, lock: Lock
    ) -> None:
        self._config = config
        self._host = host
        self._disk = disk
        self._layout = layout
        self._lock = lock
        self._mark = StoreMark(disk, layout.store_mark, host.boot_id())
        self._store: Store | None = None
        ticks = max(2, config.election_ms // config.heartbeat_ms)
        self.machine_config = MachineConfig(
            min_lease_ttl_s=minimum_ttl_s(ticks, config.heartbeat_ms),
            max_learners=config.max_learners,
            quota_bytes=config.quota_bytes,
        )

    @classmethod
    def lock(cls, config: NodeConfig, host: Host) -> MemberFiles:
        """Takes the data directory for this process; raises DirectoryLocked or DiskFailed."""
        disk = host.disk(sync=not config.unsafe_no_fsync)
        layout = Layout(config.data_dir, config.wal_dir)
        lock = host.lock(layout)
        try:
            layout.create(disk)
            files = cls(config, host, disk, layout, lock)
            files._tidy()
        except BaseException:
            lock.release()
            raise
        return files

    @property
    def log_dir(self) -> Path:
        """Where the log is."""
        return self._layout.wal

    @property
    def snapshot_dir(self) -> Path:
        """Where snapshot files are; received ones are put here, too."""
        return self._layout.snap

    def free_bytes(self) -> int:
        """Space left on the file system of the data directory."""
        return self._disk.free_bytes(self._layout.data_dir)

    def scratch_dir(self) -> Path:
        """For large temporary files, on the disk of the data; emptied at each start."""
        directory = self._layout.member / _SCRATCH
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory

    def _tidy(self) -> None:
        """Removes what an interrupted process left unfinished."""
        snapshot.remove_unfinished(self._disk, self.snapshot_dir)
        shutil.rmtree(self._layout.member / _SCRATCH, ignore_errors=True)
        self._disk.unlink(self._next_store)
        self._disk.unlink(self._lock_of(self._next_store))

    # ---- the log ---------------------------------------------------------------------------

    def has_log(self) -> bool:
        """Whether a member has begun here; its log is the last thing that beginning creates.

        Raises WalMissing if one has begun and its log is gone: it must not begin again, with
        its votes forgotten. Only a beginning that still says of itself that it never came to a
        log may be made void.
        """
        if log_exists(self._disk, self.log_dir):
            return True
        if not self._disk.exists(self._layout.beginning):
            # The mark stands before the first store does, and outlives it.
            remains = [self._layout.store, self._layout.store_mark]
            remains += snapshot.snapshots(self._disk, self.snapshot_dir)
            for path in remains:
                if self._disk.exists(path):
                    raise WalMissing(self.log_dir, path)
        return False

    def begin(self) -> None:
        """Before anything of a new member is made: notes durably that it has no log yet.

        What an interrupted beginning left is removed. Not for a restore: one that was interrupted
        must be refused by `has_log` and not begun anew, empty.
        """
        layout = self._layout
        if self._disk.exists(layout.beginning):
            for path in snapshot.snapshots(self._disk, self.snapshot_dir):
                self._disk.unlink(path)
            for path in (layout.store, self._lock_of(layout.store)):
                self._disk.unlink(path)
        else:
            self._disk.create(layout.beginning).close()
        # Also if it is there: its maker may have died before it synced the name.
        self._disk.sync_dir(layout.member)
        disk_point("bootstrap.marked", self._layout.member)

    def _begun(self) -> None:
        """There is a log. Before a promise goes into it, nothing may call it a beginning."""
        if self._disk.exists(self._layout.beginning):
            self._disk.unlink(self._layout.beginning)
            self._disk.sync_dir(self._layout.member)
            disk_point("bootstrap.done", self._layout.member)

    def create_log(
        self, identity: WalIdentity, base: tuple[int, int], hard_state: HardState
    ) -> Wal:
        """A new, empty log behind `base`; with it the member has begun."""
        wal = Wal.create(
            self._disk,
            self.log_dir,
            identity,
            base=base,
            hard_state=hard_state,
            segment_bytes=self._config.wal_segment_bytes,
        )
        disk_point("bootstrap.log_created", self._layout.member)
        self._begun()
        return wal

    def open_log(self, *, keep_after: int, applied: int) -> tuple[Wal, Recovered]:
        """The log with its entries behind `keep_after`; raises WalCorrupt with advice.

        `applied` is what the store has applied: a log that ends before it is refused.
        """
        wal, recovered = Wal.open(
            self._disk,
            self.log_dir,
            keep_after=keep_after,
            applied=applied,
            segment_bytes=self._config.wal_segment_bytes,
        )
        self._begun()
        return wal, recovered

    # ---- the store -------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The open store."""
        assert self._store is not None, "the store is not open"
        return self._store

    @property
    def store_open(self) -> bool:
        """Whether a store is open."""
        return self._store is not None

    @property
    def _next_store(self) -> Path:
        return self._layout.store.with_name("next.mdb")

    @staticmethod
    def _lock_of(store: Path) -> Path:
        return store.with_name(store.name + "-lock")

    def store_trusted(self) -> bool:
        """Whether the store on disk is whole: closed in order, or the machine never went down."""
        return self._disk.exists(self._layout.store) and self._mark.read().is_trusted

    def open_store(self) -> Store:
        """Opens the store, or creates an empty one, and marks it as in use."""
        assert self._store is None, "the store is open already"
        self._mark.set_in_use()
        quota = max(self._config.quota_bytes, 0)
        self._store = self._host.open_store(self._layout.store, Machine.TABLES, quota_bytes=quota)
        return self._store

    def close_store(self) -> None:
        """Closes the store, if it is open; waits for copies under way."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def close_store_clean(self) -> None:
        """Closes the store, if it is open, so that it can be believed after a power loss, too."""
        if self._store is not None:
            self._store.sync()
            self.close_store()
            self._mark.set_clean()

    def set_store_aside(self) -> None:
        """Moves a store that must not be used out of the way, in case somebody wants to see it."""
        aside = self._layout.set_store_aside(self._disk, "aside")
        if aside is not None:
            _LOG.warning("the store was moved to %s", aside)

    def condemn_store(self) -> None:
        """The store was found damaged while it ran: the next start must not open it."""
        self.set_store_aside()

    def rebuild_store(self, index: int, term: int) -> Store:
        """Replaces the store by the image in a snapshot; raises SnapshotCorrupt.

        The new file is whole and durable before it takes the old one's name.
        """
        path = self.snapshot_dir / snapshot.snapshot_name(index, term)
        snapshot.extract_to(self._disk, path, self._next_store)
        return self.take_next_store()

    def copy_store(self) -> None:
        """Makes a compact copy of the store, for `take_next_store`; nothing may be written."""
        self._disk.unlink(self._next_store)
        self.store.copy_to(self._next_store)

    def take_next_store(self) -> Store:
        """Puts the prepared file in the place of the store."""
        self.close_store()
        disk_point("swap.before_rename", self._layout.store)
        self._disk.unlink(self._lock_of(self._layout.store))
        self._disk.rename(self._next_store, self._layout.store)
        disk_point("swap.after_rename", self._layout.store)
        self._disk.sync_dir(self._layout.db)
        disk_point("swap.after_dir_sync", self._layout.store)
        store = self.open_store()
        disk_point("swap.reopened", self._layout.store)
        return store

    # ---- snapshots -------------------------------------------------------------------------

    def snapshots(self) -> list[SnapshotFile]:
        """All snapshot files by their names, newest first; unchecked."""
        return [_snapshot_file(path) for path in snapshot.snapshots(self._disk, self.snapshot_dir)]

    def check_snapshot(self, file: SnapshotFile) -> SnapshotMeta:
        """Reads all of a snapshot; returns what it is of, or raises SnapshotCorrupt."""
        header = snapshot.verify(self._disk, file.path)
        return SnapshotMeta(header.index, header.term, header.conf)

    def write_snapshot(
        self, cluster_id: int, *, stop: Callable[[], bool] = lambda: False
    ) -> SnapshotFile:
        """A snapshot of the last commit; counts once it was read back. Raises CopyStopped."""
        return self._write_snapshot(self.snapshot_dir, cluster_id, stop)

    def write_backup(self, directory: Path, cluster_id: int, stop: Callable[[], bool]) -> Path:
        """A snapshot file in another directory, which is not one of this member's own."""
        return self._write_snapshot(directory, cluster_id, stop).path

    def _write_snapshot(
        self, directory: Path, cluster_id: int, stop: Callable[[], bool]
    ) -> SnapshotFile:
        store = self.store

        def describe(txn: ReadTxn) -> snapshot.SnapshotHeader:
            state = load_state(txn)
            return snapshot.SnapshotHeader(
                index=state.applied_index,
                term=state.applied_term,
                conf=conf_state(state.members.values()),
                cluster_id=cluster_id,
                engine=store.engine,
            )

        path = snapshot.write_snapshot(self._disk.gently, directory, store, describe, stop=stop)
        return _snapshot_file(path)

    def prune(self, keep: int) -> list[SnapshotFile]:
        """Removes all but the newest snapshots; returns those that are kept."""
        snapshot.prune(self._disk, self.snapshot_dir, keep)
        return self.snapshots()

    def discard(self, path: Path) -> None:
        """Removes a received snapshot that nobody wants."""
        self._disk.unlink(path)

    # ---- the end ---------------------------------------------------------------------------

    def close(self, *, clean: bool = False) -> None:
        """Closes the store and gives the directory free; `clean`: all of it is on disk."""
        if clean:
            self.close_store_clean()
        self.close_store()
        self._lock.release()


def _snapshot_file(path: Path) -> SnapshotFile:
    _, index, term = path.stem.split("-")
    return SnapshotFile(int(index, 16), int(term, 16), path)
