"""Both kinds of store, opened for a machine."""

from __future__ import annotations

from pathlib import Path

from kvstore.machine import Machine
from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.memory_store import MemoryStore
from kvstore.storage.store import Store

__all__ = ("KINDS", "open_store")

KINDS = ("memory", "lmdb")


def open_store(kind: str, path: Path) -> Store:
    """An empty store with the machine's tables."""
    if kind == "lmdb":
        return LmdbStore(path, Machine.TABLES)
    return MemoryStore(Machine.TABLES)
