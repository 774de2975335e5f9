"""When snapshot files are made, for whom, and what may be forgotten once they are.

Periodic ones let the log be cut: when it has grown by max(64 MiB, half the database) and by at
least --snapshot-count entries since the last one, so that copying stays cheap beside writing.
One for a follower that fell behind the log in memory is made when Raft asks for it, one at a
time; a file that is new enough serves several followers.

A file counts once it is synced, its directory is synced, and it was read back by checksum. Of
the log only what the older of the kept files covers is released: if the newest turns out to be
damaged, the one before it still leads up to the present.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from kvstore import faults
from kvstore.node.files import SnapshotFile
from kvstore.node.limits import (
    SNAPSHOT_CHECK_S,
    SNAPSHOT_FILES_KEPT,
    SNAPSHOT_SEND_RETRY_S,
)
from kvstore.storage.errors import CopyStopped, StorageError, StoreCorrupt
from raft.errors import RaftError
from raft.messages import InstallSnapshot

if TYPE_CHECKING:
    from kvstore.node.lifecycle import Running

__all__ = ("Snapshots",)

_LOG = logging.getLogger(__name__)


class Snapshots:
    """Makes, sends and receives the snapshot files of one member."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._files = running.opened.files
        self._making = asyncio.Lock()
        self._copies_held = False
        self._sends: dict[int, asyncio.Task[None]] = {}
        self._periodic: asyncio.Task[None] | None = None
        self._kept: list[SnapshotFile] = self._files.snapshots()
        """The files that this member may have to start from."""
        self.latest: SnapshotFile | None = max(self._kept, default=None)

    def start(self) -> None:
        """Begins to look whether a periodic snapshot is due."""
        self._periodic = asyncio.get_running_loop().create_task(self._make_periodically())

    async def stop(self) -> None:
        """Gives up copies and sends under way."""
        self._copies_held = True
        tasks = [*self._sends.values()]
        if self._periodic is not None:
            tasks.append(self._periodic)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def hold_copies(self) -> None:
        """Stops copies under way and begins no other: the store is about to be closed."""
        self._copies_held = True

    def allow_copies(self) -> None:
        """Copies may be made again."""
        self._copies_held = False

    # ---- making ----------------------------------------------------------------------------

    async def _make_periodically(self) -> None:
        while True:
            await asyncio.sleep(SNAPSHOT_CHECK_S)
            if not self.due():
                continue
            try:
                await self.make()
            except CopyStopped:
                continue
            except StoreCorrupt as error:
                self._running.loop.broken(error)
            except StorageError as error:
                # The log goes on growing, and the next attempt may find room.
                _LOG.error("no snapshot could be made: %s", error)

    def due(self) -> bool:
        """Whether the log has grown enough since the last snapshot."""
        running = self._running
        since = self.latest.index if self.latest is not None else 0
        applied = running.core.applier.applied_index
        if applied > since and faults.maybe("snapshot.now"):
            return True
        config = running.node.config
        if applied - since < config.snapshot_count:
            return False
        grown = running.opened.wal.size_bytes_since(since)
        return grown >= max(config.snapshot_min_wal_bytes, running.store.size_in_use_bytes() // 2)

    async def make(self) -> SnapshotFile:
        """A snapshot file of the present; afterwards the log before the one before it goes."""
        running = self._running
        async with self._making:
            with running.node.metrics.backend_snapshot_seconds.time():
                made = await running.copies.run(
                    lambda: self._files.write_snapshot(
                        running.cluster_id, stop=lambda: self._copies_held
                    )
                )
            self.latest = made
            _LOG.info("snapshot at index %d, term %d", made.index, made.term)
            self._kept = await running.copies.run(lambda: self._files.prune(SNAPSHOT_FILES_KEPT))
            oldest = min(self._kept).index
            try:
                removed = await running.loop.disk.run(lambda: running.opened.wal.release(oldest))
                for give_back in removed:
                    await running.copies.run(give_back)
            except StorageError as error:
                running.loop.broken(error)
            return made

    async def write_backup(self, directory: Path) -> Path:
        """A snapshot of the present in another directory, for a backup."""
        running = self._running
        return await running.copies.run(
            lambda: self._files.write_backup(
                directory, running.cluster_id, stop=lambda: self._copies_held
            )
        )

    # ---- sending ---------------------------------------------------------------------------

    def send(self, peer_id: int) -> None:
        """Sends a snapshot to a follower in the background and tells Raft how that ended."""
        if peer_id in self._sends:
            return
        task = asyncio.get_running_loop().create_task(self._send(peer_id))
        self._sends[peer_id] = task

    async def _send(self, peer_id: int) -> None:
        running = self._running
        core = running.core
        sent: int | None = None
        try:
            file = await self._usable()
            core.applier.keep_log_behind(peer_id, file.index)
            meta = await running.copies.run(lambda: self._files.check_snapshot(file))
            message = core.raft.snapshot_message(peer_id, meta)
            _LOG.info("sending the snapshot of index %d to %x", file.index, peer_id)
            if await running.peers.send_snapshot(peer_id, message, file.path):
                sent = file.index
        except StoreCorrupt as error:
            running.loop.broken(error)
        except (StorageError, RaftError, OSError, EOFError, TimeoutError) as error:
            _LOG.warning("could not send a snapshot to %x: %s", peer_id, error)
        except Exception:
            # Raft waits for word of this snapshot: it must get it, whatever went wrong.
            _LOG.exception("could not send a snapshot to %x", peer_id)
        finally:
            core.applier.keep_log_behind(peer_id, None)
        if sent is None:
            await asyncio.sleep(SNAPSHOT_SEND_RETRY_S)
        # First this: once Raft knows it may ask for the next one, and must not find us busy.
        del self._sends[peer_id]
        core.raft.report_snapshot(peer_id, sent)
        running.loop.wake()

    async def _usable(self) -> SnapshotFile:
        """A file behind which the log in memory goes on; a new one if need be."""
        first = self._running.core.raft.first_index
        if self.latest is not None and self.latest.index + 1 >= first:
            return self.latest
        if self._making.locked():
            # Somebody is at it: what comes out may serve us as well.
            async with self._making:
                pass
            if self.latest is not None and self.latest.index + 1 >= first:
                return self.latest
        return await self.make()

    # ---- receiving -------------------------------------------------------------------------

    def received(self, message: InstallSnapshot, path: Path) -> None:
        """A verified file has arrived: Raft decides whether it is wanted."""
        running = self._running
        running.core.receive([message])
        running.loop.turn_now()
        if running.core.raft.wanted_snapshot == message.meta:
            return
        _LOG.info("the snapshot of index %d is not needed", message.meta.index)
        # Sent once more, because word of the first time was lost, it has taken the place of the
        # very file that this member's log begins behind: that one stays.
        if all(path != file.path for file in self._kept):
            running.copies.submit(lambda: self._files.discard(path), lambda _v, _e: None)

    def installed(self) -> None:
        """A received snapshot is this member's newest now."""
        self._kept = self._files.snapshots()
        self.latest = max(self._kept, default=None)
