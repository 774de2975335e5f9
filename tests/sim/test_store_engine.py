"""Stores on the virtual disk: commits outlive the process, and a power loss spares only syncs."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kvstore.storage import snapshot
from kvstore.storage.errors import CopyStopped, StoreCorrupt, StoreFailed, StoreFull
from kvstore.storage.snapshot import SnapshotHeader
from kvstore.storage.store import Store, TableSpec
from raft.types import ConfState
from tests.sim.disk import CrashPolicy, ProcessDied, VirtualDisk
from tests.sim.prng import Prng
from tests.sim.store import SimStore, SimStoreEngine

PATH = Path("/store")
TABLES = (TableSpec("one"), TableSpec("two", long_keys=True))


@pytest.fixture
def disk() -> VirtualDisk:
    return VirtualDisk(Prng(1))


def opened(disk: VirtualDisk, path: Path = PATH) -> SimStore:
    return SimStoreEngine(disk.session()).open(path, TABLES)


def put(store: Store, value: bytes, key: bytes = b"key") -> None:
    txn = store.write()
    txn.put("one", key, value)
    txn.put("two", key, value)
    txn.commit()


def state(store: Store) -> tuple[bytes | None, bytes | None]:
    txn = store.read()
    try:
        return txn.get("one", b"key"), txn.get("two", b"key")
    finally:
        txn.close()


def durable_store(disk: VirtualDisk) -> SimStore:
    store = opened(disk)
    put(store, b"synced")
    store.sync()
    disk.session().open(PATH).datasync()
    disk.session().sync_dir(PATH.parent)
    return store


def test_commits_outlive_the_process(disk: VirtualDisk) -> None:
    session = disk.session()
    store = SimStoreEngine(session).open(PATH, TABLES)
    put(store, b"1")
    open_txn = store.write()
    open_txn.put("one", b"key", b"never committed")
    session.end()
    disk.kill()
    with pytest.raises(ProcessDied):
        open_txn.commit()
    with pytest.raises(ProcessDied):
        store.read()
    open_txn.close()
    store.close()
    assert state(opened(disk)) == (b"1", b"1")


def test_a_power_loss_spares_what_was_synced_and_leaves_rubbish_of_the_rest() -> None:
    found = set()
    for policy in CrashPolicy:
        for seed in range(20):
            disk = VirtualDisk(Prng(seed))
            store = durable_store(disk)
            disk.power_loss(policy)
            assert state(opened(disk)) == (b"synced", b"synced")
            store = opened(disk)
            put(store, b"newer")
            disk.power_loss(policy)
            try:
                found.add((policy, state(opened(disk))))
            except StoreCorrupt:
                found.add((policy, (b"corrupt", b"")))
    old, new = b"synced", b"newer"
    assert found == {
        (CrashPolicy.DROP_ALL, (old, old)),
        (CrashPolicy.KEEP_PREFIX, (b"corrupt", b"")),
        (CrashPolicy.KEEP_SUBSET, (b"corrupt", b"")),
        (CrashPolicy.ZERO_SECTOR, (b"corrupt", b"")),
        *((CrashPolicy.TEAR_LAST, (one, two)) for one in (old, new) for two in (old, new)),
    }


def test_a_store_that_was_never_synced_may_be_gone(disk: VirtualDisk) -> None:
    put(opened(disk), b"1")
    disk.power_loss(CrashPolicy.DROP_ALL)
    assert not disk.session().exists(PATH)
    assert state(opened(disk)) == (None, None)


def test_copies_and_snapshots_can_be_opened(disk: VirtualDisk) -> None:
    store = opened(disk)
    for number in range(3000):
        put(store, b"%d" % number, b"key%d" % number)
    put(store, b"1")
    copy = Path("/copy")
    store.copy_to(copy)
    assert state(opened(disk, copy)) == (b"1", b"1")

    header = SnapshotHeader(5, 1, ConfState((1,)), 9, store.engine)
    session = disk.session()
    path = snapshot.write_snapshot(session, Path("/snap"), store, lambda _txn: header)
    target = Path("/extracted")
    assert snapshot.extract_to(session, path, target) == header
    session.sync_dir(Path("/"))
    disk.power_loss(CrashPolicy.DROP_ALL)
    extracted = opened(disk, target)
    assert state(extracted) == (b"1", b"1")
    txn = extracted.read()
    assert txn.count("two") == 3001
    txn.close()
    put(extracted, b"2")
    session.rename(target, PATH)
    assert state(opened(disk)) == (b"2", b"2"), "the name moved, the content with it"


def test_a_copy_can_be_stopped_and_leaves_nothing(disk: VirtualDisk) -> None:
    store = opened(disk)
    put(store, b"1")
    with pytest.raises(CopyStopped):
        store.copy_to(Path("/copy"), stop=lambda: True)
    assert not disk.session().exists(Path("/copy"))


def test_a_file_that_is_no_store_is_refused(disk: VirtualDisk) -> None:
    store = opened(disk)
    put(store, b"1")
    copy = Path("/copy")
    store.copy_to(copy)
    content = disk.content(copy)
    for broken in (content[:-1], content[:5], b"\xc1" + content, content + b"\x92"):
        disk.replace(copy, broken)
        with pytest.raises(StoreCorrupt):
            opened(disk, copy)
    disk.replace(copy, content)
    opened(disk, copy)


def test_damage_at_rest_is_noticed(disk: VirtualDisk) -> None:
    store = opened(disk)
    put(store, b"1")
    store.copy_to(Path("/copy"))
    disk.session().rename(Path("/copy"), PATH)
    store = opened(disk)
    assert disk.flip_bit(PATH, 100)
    with pytest.raises(StoreCorrupt):
        store.read()
    with pytest.raises(StoreCorrupt):
        opened(disk)


def test_commits_and_syncs_can_fail(disk: VirtualDisk) -> None:
    store = durable_store(disk)
    disk.arm("store commit")
    with pytest.raises(StoreFailed):
        put(store, b"2")
    disk.arm("store commit", errno=errno.ENOSPC)
    with pytest.raises(StoreFull):
        put(store, b"2")
    disk.arm("store sync")
    with pytest.raises(StoreFailed):
        store.sync()
    disk.arm("store commit")
    txn = store.write(long=True)
    txn.put("one", b"key", b"2")
    reported: list[BaseException | None] = []
    txn.commit_in_background(reported.append)
    txn.close()
    assert [type(error) for error in reported] == [StoreFailed]
    assert state(store) == (b"synced", b"synced")
    put(store, b"3")
    assert state(store) == (b"3", b"3")


def test_a_full_disk_refuses_a_commit() -> None:
    disk = VirtualDisk(Prng(1), capacity_bytes=5_000)
    store = opened(disk)
    put(store, bytes(2_000))
    with pytest.raises(StoreFull):
        put(store, bytes(4_000))
    assert state(store) == (bytes(2_000), bytes(2_000))
    put(store, b"small")
    assert disk.session().free_bytes(PATH) > 4_000
