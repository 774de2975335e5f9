"""What only the LMDB store can do wrong: damage, full disks, copies in threads, dead processes."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import lmdb
import pytest

from kvstore.storage import lmdb_store
from kvstore.storage.errors import CopyStopped, StoreCorrupt, StoreFailed, StoreFull
from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.store import TableSpec

TABLES = (TableSpec("plain"), TableSpec("long", long_keys=True))
MAP_BYTES = 256 * 1024**2


def open_store(path: Path) -> LmdbStore:
    return LmdbStore(path, TABLES, map_bytes=MAP_BYTES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.mdb"


def test_content_survives_closing(path: Path) -> None:
    store = open_store(path)
    txn = store.write()
    txn.put("plain", b"k", b"v")
    txn.put("long", b"k" * 1000, b"w")
    txn.commit()
    store.sync()
    store.close()
    store = open_store(path)
    view = store.read()
    assert view.get("plain", b"k") == b"v"
    assert view.get("long", b"k" * 1000) == b"w"
    view.close()
    store.close()
    assert path.stat().st_mode & 0o077 == 0, "only the owner may read it"


@pytest.mark.parametrize(
    ("table", "key", "needle"),
    [
        ("plain", b"key-of-a-record", b"value-of-a-record"),
        ("plain", b"key-of-a-record", b"key-of-a-record"),
        ("long", b"s" * 400 + b"last-piece-of-it", b"value-of-a-record"),
        ("long", b"s" * 400 + b"last-piece-of-it", b"last-piece-of-it"),
        ("long", b"s" * 400 + b"last-piece-of-it", b"s" * 400),
    ],
)
def test_a_flipped_bit_is_never_served(path: Path, table: str, key: bytes, needle: bytes) -> None:
    store = open_store(path)
    txn = store.write()
    txn.put(table, key, b"value-of-a-record")
    txn.commit()
    store.sync()
    store.close()
    content = path.read_bytes()
    for shift in range(8):
        damaged = bytearray(content)
        at = content.index(needle)
        while at >= 0:  # the copy in use and any older one
            damaged[at + 3] ^= 1 << shift
            at = content.find(needle, at + 1)
        path.write_bytes(damaged)
        store = open_store(path)
        view = store.read()
        with pytest.raises(StoreCorrupt, match="next start rebuilds it"):
            list(view.scan(table))
        with pytest.raises(StoreCorrupt):
            list(view.scan(table, reverse=True))
        with pytest.raises(StoreCorrupt):
            view.seek(table, b"")
        if needle.startswith(b"value"):
            with pytest.raises(StoreCorrupt):
                view.get(table, key)
            with pytest.raises(StoreCorrupt):
                view.get_many(table, [key])
        view.close()
        store.close()


@pytest.mark.parametrize("empty", [True, False])
def test_a_renamed_table_is_not_made_anew(path: Path, empty: bool) -> None:
    """The engine has no checksum on the names of tables, and would make the missing one."""
    store = open_store(path)
    txn = store.write()
    txn.put("long" if empty else "plain", b"k", b"v")
    txn.commit()
    store.close()
    content = path.read_bytes()
    # Old pages have the name, too; only the present one counts, and all are the same.
    places = [match.start() for match in re.finditer(b"plain", content)]
    for number in range(8 * len(b"plain")):
        damaged = bytearray(content)
        for at in places:
            damaged[at + number // 8] ^= 1 << number % 8
        path.write_bytes(damaged)
        with pytest.raises(StoreCorrupt, match=r"store\.mdb is damaged in its table names"):
            open_store(path)
    path.write_bytes(content)
    store = open_store(path)
    store.close()


def test_a_table_with_another_order_is_damage(path: Path) -> None:
    """A flag of the engine's own record of a table says how its keys are compared."""
    open_store(path).close()
    content = path.read_bytes()
    # Behind the name: the padding of the record, and its flags.
    for flag in (0x02, 0x04, 0x08):
        damaged = bytearray(content)
        for match in re.finditer(b"plain", content):
            damaged[match.end() + 4] ^= flag
        path.write_bytes(damaged)
        with pytest.raises(StoreCorrupt):
            open_store(path)


def test_a_record_under_another_key_or_table_is_damage(path: Path) -> None:
    store = open_store(path)
    txn = store.write()
    txn.put("plain", b"a", b"v")
    spec = txn._tables["plain"]
    stored = txn.raw.get(b"a", db=spec.root)
    txn.raw.put(b"b", stored, db=spec.root)
    txn.raw.put(b"a", stored, db=txn._tables["long"].root)
    txn.commit()
    view = store.read()
    assert view.get("plain", b"a") == b"v"
    with pytest.raises(StoreCorrupt):
        view.get("plain", b"b")
    with pytest.raises(StoreCorrupt):
        view.get("long", b"a")
    view.close()
    store.close()


@pytest.mark.parametrize("content", [b"x" * 8192, b"", b"\0" * 8192])
def test_a_file_that_is_no_store(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    if not content:
        open_store(path).close()
        return
    with pytest.raises(StoreCorrupt, match="opening"):
        open_store(path)


def test_a_commit_that_the_disk_refuses_keeps_nothing_and_says_how_much_is_free(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(path)
    txn = store.write()
    txn.put("plain", b"kept", b"v")
    txn.commit()

    def commit_beyond_the_limit() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        txn = store.write()
        txn.put_many("plain", [(b"%05d" % number, b"v" * 1000) for number in range(500)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
        try:
            txn.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with pytest.raises(StoreFailed, match="MiB are free on its file system"):
        commit_beyond_the_limit()
    monkeypatch.setattr(lmdb_store, "_free_bytes", lambda path: 1024)
    with pytest.raises(StoreFull, match="0 MiB are free"):
        commit_beyond_the_limit()
    view = store.read()
    assert [key for key, _ in view.scan("plain")] == [b"kept"]
    view.close()
    store.close()


def test_engine_errors_mean_what_they_say(path: Path) -> None:
    store = open_store(path)
    assert isinstance(store._meaning("x", lmdb.CorruptedError("c")), StoreCorrupt)
    assert isinstance(store._meaning("x", lmdb.MapFullError("m")), StoreFull)
    full = store._meaning("x", lmdb.ReadersFullError("r"))
    assert "1024 reads are open already" in str(full)
    store.close()


def test_a_failed_put_ends_the_transaction(path: Path) -> None:
    store = LmdbStore(path, TABLES, map_bytes=256 * 1024)
    txn = store.write()
    with pytest.raises(StoreFull):
        txn.put("plain", b"k", b"v" * 1024**2)
    with pytest.raises(StoreFailed):
        txn.put("plain", b"k", b"v")
    with pytest.raises(StoreFailed):
        txn.commit()
    txn.close()
    store.write().close()
    store.close()


def fill(store: LmdbStore, megabytes: int) -> None:
    txn = store.write()
    txn.put_many("plain", [(b"%05d" % number, b"v" * 100_000) for number in range(megabytes * 10)])
    txn.commit()


def test_closing_waits_for_a_running_copy(path: Path) -> None:
    store = open_store(path)
    fill(store, 8)
    began, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    pieces: list[bytes] = []

    def write(piece: bytes) -> None:
        pieces.append(piece)
        began.set()
        go_on.wait(10)

    txn = store.read()
    copying = threading.Thread(target=lambda: store.copy_into(txn, write))

    def close() -> None:
        store.close()
        closed.set()

    closing = threading.Thread(target=close)
    copying.start()
    assert began.wait(10)
    closing.start()
    assert not closed.wait(0.05)
    go_on.set()
    copying.join(10)
    closing.join(10)
    assert closed.is_set()
    assert sum(map(len, pieces)) > 8_000_000
    with pytest.raises(StoreFailed, match="closed"):
        store.copy_into(txn, pieces.append)


def test_writes_go_on_while_a_copy_runs(path: Path) -> None:
    store = open_store(path)
    fill(store, 8)
    commits = 0
    pieces: list[bytes] = []

    def write(piece: bytes) -> None:
        nonlocal commits
        pieces.append(piece)
        other = threading.Thread(target=commit)
        other.start()
        other.join(10)

    def commit() -> None:
        nonlocal commits
        txn = store.write()
        txn.put("plain", b"new%d" % commits, b"v")
        txn.commit()
        commits += 1

    txn = store.read()
    store.copy_into(txn, write)
    txn.close()
    assert commits == len(pieces) > 4
    copy_path = path.with_name("copy.mdb")
    copy_path.write_bytes(b"".join(pieces))
    copy = open_store(copy_path)
    view = copy.read()
    assert view.count("plain") == 80
    view.close()
    copy.close()
    store.close()


def test_a_copy_stops_in_the_middle(path: Path) -> None:
    store = open_store(path)
    fill(store, 8)
    polls = iter([False, False, True])
    target = path.with_name("copy.mdb")
    with pytest.raises(CopyStopped):
        store.copy_to(target, stop=lambda: next(polls))
    assert not target.exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "lmdb-copy"]
    store.close()


def test_a_copy_that_cannot_be_written_says_so(path: Path) -> None:
    store = open_store(path)
    with pytest.raises(StoreFailed, match="copying to"):
        store.copy_to(path.parent / "missing" / "copy.mdb")
    store.close()


def test_an_ended_transaction_is_not_usable(path: Path) -> None:
    store = open_store(path)
    view = store.read()
    view.close()
    view.close()
    with pytest.raises(StoreFailed):
        view.get("plain", b"k")
    with pytest.raises(StoreFailed):
        list(view.scan("plain"))
    store.close()


KILLED = """
import sys
from pathlib import Path
from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.store import TableSpec
store = LmdbStore(Path(sys.argv[1]), (TableSpec("plain"), TableSpec("long", long_keys=True)))
for number in range(10**9):
    txn = store.write()
    txn.put("plain", b"number", b"%d" % number)
    txn.put("long", b"n" * 900, b"%d" % number)
    txn.put("plain", b"%d" % (number % 5000), b"v" * 500)
    txn.commit()
    if number == 300:
        print("running", flush=True)
"""


def test_a_killed_process_leaves_whole_transactions(path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "running\n"
    time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    store = open_store(path)
    view = store.read()
    number = view.get("plain", b"number")
    assert number is not None
    assert int(number) >= 300
    assert view.get("long", b"n" * 900) == number
    assert len(list(view.scan("plain"))) == view.count("plain")
    view.close()
    store.close()
