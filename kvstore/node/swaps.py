"""Replacing the store under a running member: an installed snapshot, or a defragmented copy.

While a swap is under way nothing is applied and no read is begun; Raft, ticks and the log go on.
Every step leaves files from which a start finds its way: the log is the truth until the
snapshot counts, and the store's own file can always be rebuilt from those two.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvstore import faults
from kvstore.errors import STOPPED, TIMEOUT, Code, EtcdError
from kvstore.machine import Machine
from kvstore.storage.errors import StorageError
from kvstore.storage.store import Store
from raft.node import Persist

if TYPE_CHECKING:
    from kvstore.node.lifecycle import Running

__all__ = ("StoreSwaps",)

_LOG = logging.getLogger(__name__)
_READS_GRACE_S = 1.0
"""How long reads that are under way may go on before the store is taken from under them."""
_POLL_S = 0.002


class StoreSwaps:
    """One swap at a time; `install` is asked for by Raft, `defragment` by an operator."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._lock = asyncio.Lock()
        self._closed = False

    async def close(self) -> None:
        """Waits for the swap that is under way; none begins any more."""
        self._closed = True
        async with self._lock:
            pass

    async def install(self, persist: Persist) -> None:
        """Makes the received snapshot of `persist` this member's state.

        1. The log restarts behind the snapshot (its file is already durable and verified).
           A crash before: the old log and store go on, the snapshot is only a spare file.
        2. The store is rebuilt from the snapshot beside the old one and renamed over it.
           A crash between: the start finds the store older than the log and rebuilds it.
        """
        running = self._running
        core = running.core
        meta = persist.snapshot
        assert meta is not None
        async with self._lock:
            if self._closed:
                return  # The snapshot's file stays; the leader sends what is missing again.
            core.pause()
            await self._quiesce()
            files = running.opened.files
            hard_state = core.state_behind_snapshot(persist)
            faults.point("install.before")
            running.snapshots.hold_copies()
            try:
                await running.loop.disk.run(
                    lambda: running.opened.wal.reset(meta.index, meta.term, hard_state)
                )
                faults.point("install.log_reset")
                machine = await self._replace(lambda: files.rebuild_store(meta.index, meta.term))
            finally:
                running.snapshots.allow_copies()
            faults.point("install.store_replaced")
            batch = core.installed(persist, machine)
            core.hub.restored()
            running.snapshots.installed()
            running.loop.installed(persist, batch)
            faults.point("install.after")
            _LOG.info("installed the snapshot of index %d, term %d", meta.index, meta.term)

    async def defragment(self) -> None:
        """Rewrites the store's file compactly. Raises EtcdError if it fails or the member stops."""
        running = self._running
        files = running.opened.files
        async with self._lock:
            if self._closed:
                raise STOPPED
            running.core.pause()
            await self._quiesce()
            machine = running.core.machine
            store = files.store
            try:
                with running.node.metrics.backend_defrag_seconds.time():
                    await running.copies.run(files.copy_store)
                    machine = await self._replace(files.take_next_store)
            except StorageError as error:
                if not files.store_open or files.store is not store:
                    # Past the exchange there is no way back: the machine's store is closed.
                    running.loop.broken(error)
                raise EtcdError(Code.UNAVAILABLE, f"etcdserver: {error}") from error
            finally:
                running.core.resume(machine)
                running.core.hub.restored()
                running.loop.wake()

    async def _quiesce(self) -> None:
        """Waits until no transaction is open; reads that take too long are failed."""
        core = self._running.core
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _READS_GRACE_S
        while not (core.applier.idle and core.jobs.idle):
            if core.applier.idle and loop.time() > deadline:
                core.jobs.abandon(TIMEOUT, waiting=False)
                break
            self._running.loop.wake()
            await asyncio.sleep(_POLL_S)
        core.hub.restored()  # Watchers that replay let go of their view.

    async def _replace(self, make: Callable[[], Store]) -> Machine:
        """Runs `make`, which closes the store and opens its successor, off the loop."""
        running = self._running

        def replace() -> tuple[Store, Machine]:
            store = make()
            return store, Machine(store, running.opened.files.machine_config)

        _, machine = await running.copies.run(replace)
        return machine
