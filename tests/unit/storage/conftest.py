"""The stores that the conformance suite holds to one behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from kvstore.storage.disk import Disk, OsDisk, make_directory
from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.memory_store import MemoryStore
from kvstore.storage.store import Store
from tests.sim.disk import DiskSession, VirtualDisk
from tests.sim.prng import Prng
from tests.sim.store import SimStoreEngine

from .store_kit import TABLES


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    """Where the store's files are: a virtual disk for the simulator's store."""
    if request.getfixturevalue("engine") != "simulated":
        return OsDisk()
    session = VirtualDisk(Prng(1)).session()
    make_directory(session, tmp_path)
    return session


@pytest.fixture(params=["lmdb", "memory", "simulated"])
def engine(request: pytest.FixtureRequest) -> str:
    """Which store is under test."""
    name: str = request.param
    return name


@pytest.fixture
def store(engine: str, disk: Disk, tmp_path: Path) -> Iterator[Store]:
    made: Store
    if engine == "lmdb":
        made = LmdbStore(tmp_path / "store.mdb", TABLES, map_bytes=64 * 1024**2)
    elif engine == "simulated":
        made = SimStoreEngine(cast("DiskSession", disk)).open(tmp_path / "store.mdb", TABLES)
    else:
        made = MemoryStore(TABLES)
    yield made
    made.close()
