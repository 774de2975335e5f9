"""The second half of the suite for both stores: copies, background commits, sizes, failures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import pytest

from kvstore import faults
from kvstore.storage.disk import Disk
from kvstore.storage.errors import CopyStopped, DiskFailed, StoreFailed, StoreFull
from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.memory_store import MemoryStore
from kvstore.storage.store import Store

from .store_kit import LONG_KEYS, TABLES, fill, keys_of, open_image


@pytest.mark.parametrize("table", ["plain", "long"])
def test_a_copy_is_the_state_that_its_transaction_sees(
    store: Store, table: str, tmp_path: Path
) -> None:
    keys = [b"%05d" % number for number in range(3000)]
    fill(store, table, keys + (LONG_KEYS if table == "long" else []))
    pinned = store.read()
    fill(store, table, [b"later"])
    pieces: list[bytes] = []
    store.copy_into(pinned, pieces.append)
    copy = open_image(store, pieces, tmp_path)
    assert keys_of(copy, table) == [key for key, _ in pinned.scan(table)]
    view = copy.read()
    assert view.get(table, b"later") is None
    assert view.get(table, b"00007") == b"value of 00007"
    view.close()
    copy.close()
    pinned.close()


def test_a_stopped_copy_leaves_no_file(store: Store, disk: Disk, tmp_path: Path) -> None:
    fill(store, "plain", [b"%05d" % number for number in range(3000)])
    with pytest.raises(CopyStopped):
        store.copy_to(tmp_path / "copy", stop=lambda: True)
    assert not disk.exists(tmp_path / "copy")
    store.copy_to(tmp_path / "copy")
    assert whole(disk, tmp_path / "copy")
    with pytest.raises(Exception, match="exists"):
        store.copy_to(tmp_path / "copy")


def whole(disk: Disk, path: Path) -> bytes:
    """A file's content."""
    file = disk.open(path)
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()


LARGE = [b"%05d" % number for number in range(4000)]


def large_value(key: bytes) -> bytes:
    return key * 200


def fill_large(store: Store) -> None:
    """Enough for several pieces of an image."""
    txn = store.write()
    txn.put_many("plain", ((key, large_value(key)) for key in LARGE))
    txn.commit()


class Report:
    """What `commit_in_background` says, and that it says it once."""

    def __init__(self) -> None:
        self._said: SimpleQueue[BaseException | None] = SimpleQueue()

    def __call__(self, error: BaseException | None) -> None:
        self._said.put(error)

    def error(self) -> BaseException | None:
        error = self._said.get(timeout=10)
        assert self._said.empty(), "it was said twice"
        return error


def test_a_commit_in_the_background_says_when_it_is_done(store: Store) -> None:
    before = store.read()
    txn = store.write(long=True)
    txn.put_many("plain", [(b"%05d" % number, b"v" * 100) for number in range(5000)])
    report = Report()
    txn.commit_in_background(report)
    assert report.error() is None
    assert before.count("plain") == 0
    before.close()
    after = store.read()
    assert after.count("plain") == 5000
    after.close()
    txn.close()
    txn.close()
    fill(store, "plain", [b"next"])
    assert keys_of(store, "plain", b"n") == [b"next"]


def test_a_background_commit_that_is_closed_at_once_has_happened_or_not(store: Store) -> None:
    """A member that stops closes what it has begun; whole or not at all is all that is asked."""
    txn = store.write(long=True)
    txn.put_many("plain", [(b"%05d" % number, b"v" * 100) for number in range(5000)])
    report = Report()
    txn.commit_in_background(report)
    txn.close()
    assert report.error() is None
    view = store.read()
    assert view.count("plain") == 5000
    view.close()
    store.write().close()


def test_a_copy_does_not_see_what_is_written_meanwhile(store: Store, tmp_path: Path) -> None:
    """Each piece is followed by a commit; the image is of the moment that its view began."""
    fill_large(store)
    view = store.read()
    pieces: list[bytes] = []

    def take(piece: bytes) -> None:
        pieces.append(piece)
        txn = store.write()
        txn.put("plain", b"later %d" % len(pieces), piece[:100])
        txn.delete("plain", b"%05d" % len(pieces))
        txn.put("plain", LARGE[-len(pieces)], b"changed")
        txn.commit()

    store.copy_into(view, take)
    view.close()
    copy = open_image(store, pieces, tmp_path)
    assert len(pieces) > 2
    assert keys_of(copy, "plain") == LARGE
    image = copy.read()
    assert all(value == large_value(key) for key, value in image.scan("plain"))
    image.close()
    copy.close()
    assert keys_of(store, "plain", b"later ", b"later!") != []


def test_a_copy_that_is_stopped_half_way_does_no_harm(store: Store, tmp_path: Path) -> None:
    fill_large(store)
    view = store.read()
    pieces: list[bytes] = []
    with pytest.raises(CopyStopped):
        store.copy_into(view, pieces.append, stop=lambda: len(pieces) == 1)
    assert len(pieces) == 1
    pieces.clear()
    store.copy_into(view, pieces.append)
    view.close()
    copy = open_image(store, pieces, tmp_path)
    assert keys_of(copy, "plain") == LARGE
    copy.close()


def test_a_copy_whose_target_fails_passes_the_failure_on(store: Store) -> None:
    fill_large(store)
    view = store.read()

    def full(piece: bytes) -> None:
        raise DiskFailed("writing", "snap", "No space left on device")

    with pytest.raises(DiskFailed, match="No space left"):
        store.copy_into(view, full)
    assert view.count("plain") == len(LARGE), "the view is as good as before"
    view.close()
    fill(store, "plain", [b"more"])


def test_a_copy_in_a_file_holds_the_last_commit_and_is_compact(
    store: Store, disk: Disk, tmp_path: Path
) -> None:
    txn = store.write()
    txn.put_many("plain", [(b"%05d" % number, b"v" * 1000) for number in range(2000)])
    txn.commit()
    txn = store.write()
    for number in range(1, 2000):
        txn.delete("plain", b"%05d" % number)
    txn.commit()
    path = tmp_path / "copy"
    store.copy_to(path)
    image = whole(disk, path)
    assert len(image) < 200_000
    copy = open_image(store, [image], tmp_path)
    assert keys_of(copy, "plain") == [b"00000"]
    assert copy.size_in_use_bytes() <= copy.size_bytes()
    copy.close()


def test_sizes_grow_with_what_is_stored(store: Store) -> None:
    before = store.size_bytes()
    txn = store.write()
    txn.put_many("plain", [(b"%05d" % number, b"v" * 1000) for number in range(1000)])
    txn.commit()
    assert store.size_bytes() >= before + 1_000_000
    in_use = store.size_in_use_bytes()
    assert 1_000_000 <= in_use <= store.size_bytes()
    txn = store.write()
    for number in range(1000):
        txn.delete("plain", b"%05d" % number)
    txn.commit()
    assert store.size_in_use_bytes() < in_use / 4


def test_a_closed_store_gives_nothing_more(store: Store) -> None:
    store.close()
    for use in (store.read, store.write, store.sync):
        with pytest.raises(StoreFailed):
            use()


FullStore = Callable[[Path], Store]


def _small_lmdb(path: Path) -> Store:
    return LmdbStore(path / "small.mdb", TABLES, map_bytes=1024**2)


def _small_memory(path: Path) -> Store:
    return MemoryStore(TABLES, capacity_bytes=1024**2)


@pytest.mark.parametrize("make", [_small_lmdb, _small_memory])
def test_a_full_store_refuses_the_whole_transaction(make: FullStore, tmp_path: Path) -> None:
    store = make(tmp_path)
    fill(store, "plain", [b"kept"])
    txn = store.write()

    def write_too_much() -> None:
        for number in range(3000):
            txn.put("plain", b"%05d" % number, b"v" * 1000)
        txn.commit()

    with pytest.raises(StoreFull, match="Nothing of the transaction was kept"):
        write_too_much()
    txn.close()
    assert keys_of(store, "plain") == [b"kept"]
    fill(store, "plain", [b"more"])
    assert keys_of(store, "plain") == [b"kept", b"more"]
    store.close()


@pytest.mark.parametrize("make", [_small_lmdb, _small_memory])
def test_a_full_store_refuses_in_the_background_as_well(make: FullStore, tmp_path: Path) -> None:
    """One finds out while it is written to, the other when it is committed."""
    store = make(tmp_path)
    fill(store, "plain", [b"kept"])
    txn = store.write(long=True)
    report = Report()
    error: BaseException | None
    try:
        txn.put_many("plain", [(b"%05d" % number, b"v" * 1000) for number in range(3000)])
        txn.commit_in_background(report)
        error = report.error()
    except StoreFull as raised:
        error = raised
    assert isinstance(error, StoreFull)
    txn.close()
    assert keys_of(store, "plain") == [b"kept"]
    fill(store, "plain", [b"more"])
    assert keys_of(store, "plain") == [b"kept", b"more"]
    store.close()


@pytest.mark.parametrize("action", ["eio", "enospc"])
def test_a_commit_that_fails_leaves_nothing(store: Store, action: str) -> None:
    """In any way that a transaction can be committed."""
    fill(store, "plain", [b"kept"])
    errors = []
    try:
        for long in (False, True):
            faults.arm(faults.parse(f"store.before_commit={action}:1"))
            txn = store.write(long=long)
            txn.put("plain", b"lost", b"")
            with pytest.raises((StoreFailed, StoreFull)) as raised:
                txn.commit()
            txn.close()
            errors.append(type(raised.value))
        faults.arm(faults.parse(f"store.before_commit={action}:1"))
        txn = store.write(long=True)
        txn.put("plain", b"lost", b"")
        report = Report()
        txn.commit_in_background(report)
        errors.append(type(report.error()))
        txn.close()
    finally:
        faults.install(None)
    assert errors == [StoreFailed if action == "eio" else StoreFull] * 3
    assert keys_of(store, "plain") == [b"kept"]
    fill(store, "plain", [b"more"])
    assert keys_of(store, "plain") == [b"kept", b"more"]
