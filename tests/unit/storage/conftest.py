"""The stores that the conformance suite holds to one behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.memory_store import MemoryStore
from kvstore.storage.store import Store

from .store_kit import TABLES


@pytest.fixture(params=["lmdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store
    if request.param == "lmdb":
        made = LmdbStore(tmp_path / "store.mdb", TABLES, map_bytes=64 * 1024**2)
    else:
        made = MemoryStore(TABLES)
    yield made
    made.close()
