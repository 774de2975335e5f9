"""The machine under a member: its files, threads, wall clock and chance.

Everything a member touches beside the event loop and the network goes through here, so that the
simulator can put a machine of its own underneath: one whose disk loses what was not synced, whose
threads take as long as a seed says, and whose chance can be repeated.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from kvstore.node.threads import ThreadWorker, Worker
from kvstore.storage.disk import Disk, OsDisk
from kvstore.storage.layout import Layout, boot_id
from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.store import Store, TableSpec

__all__ = ("Host", "Lock", "OsHost")


class Lock(Protocol):
    """A data directory that is held for this process."""

    def release(self) -> None:
        """Gives it free. Idempotent."""


class Host(Protocol):
    """What a member needs of the machine that it runs on."""

    def disk(self, *, sync: bool) -> Disk:
        """The file system; without `sync` nothing is made durable (--unsafe-no-fsync)."""

    def lock(self, layout: Layout) -> Lock:
        """Takes a data directory for this process; raises DirectoryLocked."""

    def boot_id(self) -> str:
        """What names this boot of the machine; "" where nothing does."""

    def open_store(self, path: Path, tables: Sequence[TableSpec], *, quota_bytes: int) -> Store:
        """Opens the store in this file, or creates an empty one; raises a StorageError."""

    def worker(self, name: str) -> Worker:
        """A new thread for blocking work; called on the loop that it reports to."""

    def wall_s(self) -> float:
        """Seconds since 1970; may jump."""

    def below(self, bound: int) -> int:
        """A number from 0 to bound - 1 by chance."""


class OsHost:
    """The machine that this process runs on."""

    def __init__(self) -> None:
        self._chance = random.Random()

    def disk(self, *, sync: bool) -> Disk:
        return OsDisk(sync=sync)

    def lock(self, layout: Layout) -> Lock:
        return layout.lock()

    def boot_id(self) -> str:
        return boot_id()

    def open_store(self, path: Path, tables: Sequence[TableSpec], *, quota_bytes: int) -> Store:
        return LmdbStore(path, tables, quota_bytes=quota_bytes)

    def worker(self, name: str) -> Worker:
        return ThreadWorker(name)

    def wall_s(self) -> float:
        return time.time()

    def below(self, bound: int) -> int:
        return self._chance.randrange(bound)
