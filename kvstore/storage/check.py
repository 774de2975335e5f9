"""The offline check of a data directory: every checksum of the log, the snapshots, the store.

Reads only. It refuses a directory that a process is using, since what it would read there is
half of something. It knows nothing of what the records mean, so it cannot see that the store has
applied more than the log still holds; a start does, and refuses.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import google_crc32c
import lmdb
import msgpack

from kvstore.storage.disk import Disk, OsDisk
from kvstore.storage.errors import DiskFailed, SnapshotCorrupt, WalCorrupt, WalMissing
from kvstore.storage.layout import DirectoryLock, Layout, StoreMark, boot_id
from kvstore.storage.limits import KEY_BYTES_MAX
from kvstore.storage.long_keys import ID_BYTES, NODES
from kvstore.storage.sealed import CRC_BYTES, RESIDUE, table_seed
from kvstore.storage.snapshot import snapshots, verify
from kvstore.storage.wal_scan import scan_log

__all__ = ("Finding", "Report", "check_data_dir")

_FINDINGS_PER_TABLE_MAX: Final = 10
"""After so many damaged records a table's file is known to be bad."""

_TABLES_MAX: Final = 256
_RECORD_BYTES_MIN: Final = 12
"""A record's pointer and head in its page, and a checksum behind no value at all."""

_extend = google_crc32c.extend


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: where, what, and what to do."""

    where: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found. `notes` are facts, `findings` are damage."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def check_data_dir(
    data_dir: Path, *, wal_dir: Path | None = None, disk: Disk | None = None
) -> Report:
    """Checks everything in a member's data directory and changes nothing."""
    check = _Check(disk or OsDisk(), Layout(data_dir, wal_dir))
    check.run()
    return Report(tuple(check.findings), tuple(check.notes))


class _Check:
    def __init__(self, disk: Disk, layout: Layout) -> None:
        self._disk = disk
        self._layout = layout
        self.findings: list[Finding] = []
        self.notes: list[str] = []

    def run(self) -> None:
        layout = self._layout
        if not self._disk.exists(layout.member):
            self._find(str(layout.member), "there is no such directory; check --data-dir")
            return
        holder = DirectoryLock.holder(layout.lock_file)
        if holder is not None:
            self._find(str(layout.data_dir), f"in use by process {holder}; stop it and check again")
            return
        newest = self._check_snapshots()
        self._check_log(newest)
        self._check_store()

    def _find(self, where: str, message: str) -> None:
        self.findings.append(Finding(where, message))

    def _check_snapshots(self) -> int:
        """Checks all snapshots; the index of the newest good one, 0 if there is none."""
        newest = 0
        for path in snapshots(self._disk, self._layout.snap):
            try:
                header = verify(self._disk, path)
            except (SnapshotCorrupt, DiskFailed) as error:
                self._find(str(path), str(error))
            else:
                self.notes.append(f"snapshot {path.name}: good, entry {header.index}")
                newest = max(newest, header.index)
        return newest

    def _check_log(self, snapshot_index: int) -> None:
        directory = self._layout.wal
        try:
            scan = scan_log(self._disk, directory, keep_after=snapshot_index)
        except (WalCorrupt, WalMissing, DiskFailed) as error:
            if isinstance(error, WalMissing) and self._disk.exists(self._layout.beginning):
                self.notes.append("log: none; the first start was interrupted, begin it again")
                return
            self._find(str(directory), str(error))
            return
        first, last = scan.segments[0].header.first_index, scan.last[0]
        self.notes.append(
            f"log: good, entries {first} to {last}, {len(scan.segments)} segments, "
            f"commit {scan.hard_state.commit}"
        )
        if scan.torn is not None:
            self.notes.append(
                f"log: torn, unfinished last write at byte {scan.torn.offset} of "
                f"{scan.torn.path.name} ({scan.torn.why}); the next start cuts it off"
            )
        if scan.missing_bytes:
            self.notes.append(
                f"log: {scan.segments[-1].path.name} is {scan.missing_bytes} bytes shorter than it "
                f"was made; the next start fills it up with zeros (whether anything stood behind "
                f"entry {scan.last[0]} cannot be seen from here)"
            )
        if first > snapshot_index + 1:
            self._find(
                str(directory),
                f"the log begins with entry {first}, but the newest good snapshot ends with entry "
                f"{snapshot_index}: entries are missing between; restore the snapshot file or "
                "replace this member",
            )

    def _check_store(self) -> None:
        layout = self._layout
        if not self._disk.exists(layout.store):
            self.notes.append("store: none; the next start builds it from snapshot and log")
            return
        trust = StoreMark(self._disk, layout.store_mark, boot_id()).read()
        if not trust.is_trusted:
            self.notes.append(
                f"store: {trust.value}; the next start rebuilds it from snapshot and log"
            )
            return
        # In a process of its own: LMDB follows the pages as they are, and a page that leads out of
        # the file is a signal.
        notes, findings, problem = _apart(lambda: _check_tables(layout.store))
        self.notes += notes
        self.findings += (Finding(where, message) for where, message in findings)
        if problem:
            self._find(
                str(layout.store),
                f"its page structure is damaged: {problem}; move it aside, the next start "
                "rebuilds it from snapshot and log",
            )


_Outcome = tuple[list[str], list[tuple[str, str]], str]
"""Notes, findings (where, message), and what ended the check early; empty if nothing did."""


def _apart(check: Callable[[], _Outcome]) -> _Outcome:
    """Runs a check in a copy of this process, whose end is a finding and not ours."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever happens, this copy must not go on with what its parent was about to do.
        try:
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.close(reading)
            try:
                outcome = check()
            except Exception as error:
                outcome = [], [], f"{type(error).__name__}: {error}"
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(msgpack.packb(outcome))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return [], [], f"reading it ended with the signal {name}"
    notes, findings, problem = msgpack.unpackb(answer)
    return notes, [(where, message) for where, message in findings], problem


def _check_tables(path: Path) -> _Outcome:
    """Checks every record of the store's file."""
    tables = _Tables(path)
    try:
        tables.run()
    except lmdb.Error as error:
        return tables.notes, tables.findings, str(error)
    return tables.notes, tables.findings, ""


class _Tables:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._records_left = path.stat().st_size // _RECORD_BYTES_MIN
        """More do not fit: pages that lead in a circle would show the same ones for ever."""
        self.notes: list[str] = []
        self.findings: list[tuple[str, str]] = []

    def _find(self, where: str, message: str) -> None:
        self.findings.append((where, message))

    def run(self) -> None:
        path = self._path
        env = lmdb.open(
            str(path), subdir=False, readonly=True, lock=False, create=False, max_dbs=_TABLES_MAX
        )
        try:
            with env.begin() as txn:
                names = [bytes(key) for key, _ in islice(txn.cursor().iternext(), _TABLES_MAX)]
                counts = {name: self._check_table(env, txn, path, name) for name in names}
            self._check_nodes(path, counts)
        finally:
            env.close()

    def _check_table(
        self, env: lmdb.Environment, txn: lmdb.Transaction, path: Path, name: bytes
    ) -> tuple[int, int]:
        """Checks each record; (pointers to nodes, nodes counted)."""
        seed = table_seed(name.decode())
        tail = name.endswith(b"/tail")
        pointer_bytes = KEY_BYTES_MAX + 1 + (ID_BYTES if tail else 0)
        records = pointers = nodes = damaged = 0
        for record in txn.cursor(env.open_db(name, txn, create=False)).iternext():
            key, stored = bytes(record[0]), bytes(record[1])
            records += 1
            self._records_left -= 1
            if self._records_left < 0:
                raise lmdb.CorruptedError("there are more records than the file has room for")
            pointers += len(key) == pointer_bytes
            if _extend(seed, key + stored) != RESIDUE:
                damaged += 1
                if damaged <= _FINDINGS_PER_TABLE_MAX:
                    self._find(
                        f"{path}, table {name.decode()}, key {key[:64].hex()} (hex)",
                        "the record does not match its checksum; move the file aside, the next "
                        "start rebuilds it from snapshot and log",
                    )
            elif tail and key == NODES:
                nodes = int.from_bytes(stored[:-CRC_BYTES], "big")
        self.notes.append(f"store: table {name.decode()}, {records} records, {damaged} damaged")
        return pointers, nodes

    def _check_nodes(self, path: Path, counts: dict[bytes, tuple[int, int]]) -> None:
        """Each node of a table's long keys must have exactly one pointer."""
        for name, (pointers, nodes) in counts.items():
            if not name.endswith(b"/tail"):
                continue
            table = name.removesuffix(b"/tail")
            pointers += counts.get(table, (0, 0))[0]
            if pointers != nodes:
                self._find(
                    f"{path}, table {table.decode()}",
                    f"{nodes} nodes of long keys, but {pointers} pointers to nodes; move the "
                    "file aside, the next start rebuilds it from snapshot and log",
                )
