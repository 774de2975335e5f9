"""What each process's log holds for certain: read along as its writes are synced.

At a start the durable image is scanned once. From then on a recorder between the log and its
disk decodes every batch as it is written, and counts it when the sync after it has returned.
The records are decoded here, by the format's description, not taken from what the product
says about itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack

from kvstore.storage.errors import DiskFailed
from kvstore.storage.wal_format import (
    BATCH_MAGIC,
    HEAD,
    HEADER_BYTES,
    HEADER_MAGIC,
    RECORD,
    RecordKind,
    decode_header,
)
from kvstore.storage.wal_scan import scan_log
from raft.types import HardState
from tests.sim.books.inside import wal_directory, wal_writer

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("DurableLog", "DurableLogs", "decode_batch", "durable_logs", "image_of")

_CHAIN_BYTES = 4


class DurableLog:
    """One process's log as a power loss would leave it."""

    def __init__(self, hard_state: HardState, base: tuple[int, int], terms: list[int]) -> None:
        self.hard_state = hard_state
        self.base = base
        self.terms = terms
        """Terms of the entries behind `base`."""
        self.failed = ""
        """Not empty: the disk has reported this error to the process."""

    @property
    def last(self) -> int:
        """The last durable index."""
        return self.base[0] + len(self.terms)

    def term_at(self, index: int) -> int | None:
        """The term of a durable entry; None if it is before the log or not there."""
        offset = index - self.base[0] - 1
        if offset == -1:
            return self.base[1]
        return self.terms[offset] if 0 <= offset < len(self.terms) else None

    def restart(self, hard_state: HardState, base: tuple[int, int]) -> None:
        """The log begins anew behind a snapshot."""
        self.hard_state, self.base, self.terms = hard_state, base, []

    def take(self, hard_state: HardState | None, entries: list[tuple[int, int]]) -> None:
        """A synced batch: (index, term) of its entries replace what was there."""
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            keep = entries[0][0] - self.base[0] - 1
            del self.terms[max(keep, 0) :]
            self.terms += [term for _, term in entries[max(-keep, 0) :]]


def decode_batch(data: bytes) -> tuple[HardState | None, list[tuple[int, int]]]:
    """The hard state and the (index, term) of the entries in one batch as it is written."""
    length = HEAD.unpack_from(data)[1]
    at, end = HEAD.size, HEAD.size + length
    hard_state: HardState | None = None
    entries: list[tuple[int, int]] = []
    while at < end:
        size, kind, _, _ = RECORD.unpack_from(data, at)
        at += RECORD.size
        payload = msgpack.unpackb(data[at : at + size])
        at += size + _CHAIN_BYTES
        if kind == RecordKind.HARD_STATE:
            hard_state = HardState(*payload)
        else:
            entries += [(entry[0], entry[1]) for entry in payload]
    return hard_state, entries


def image_of(p: Process) -> DurableLog:
    """The log that the durable image of the disk holds, read by the product's own scanner."""
    scan = scan_log(p.disk.durable_view(), wal_directory(p), keep_after=0, settle=False)
    return DurableLog(scan.hard_state, scan.base, [entry.term for entry in scan.entries])


class _File:
    """One file of the log on its way to the disk."""

    def __init__(self, inner: Any, recorder: _Recorder) -> None:
        self._inner = inner
        self._recorder = recorder
        self._unsynced: list[bytes] = []

    @property
    def path(self) -> Path:
        path: Path = self._inner.path
        return path

    @path.setter
    def path(self, path: Path) -> None:
        self._inner.path = path

    def write_at(self, offset: int, data: bytes) -> None:
        self._recorder.carry_out(lambda: self._inner.write_at(offset, data))
        self._unsynced.append(bytes(data))

    def datasync(self) -> None:
        self._recorder.carry_out(self._inner.datasync)
        written, self._unsynced = self._unsynced, []
        for data in written:
            self._recorder.synced(self.path, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Recorder:
    """The log's disk, and what goes through it."""

    def __init__(self, inner: Any, log: DurableLog, books: DurableLogs) -> None:
        self._inner = inner
        self._log = log
        self._books = books
        self._header: bytes | None = None
        self.after_failure = ""
        """What the process still asked of this disk after an error."""

    def carry_out(self, call: Callable[[], Any]) -> Any:
        """One operation; an error ends all trust."""
        if self._log.failed and not self.after_failure:
            self.after_failure = "wrote or synced"
        try:
            return call()
        except DiskFailed as error:
            self._log.failed = self._log.failed or str(error)
            self._books.failures += 1
            raise

    def synced(self, path: Path, data: bytes) -> None:
        """These bytes of a file are durable."""
        if data.startswith(HEADER_MAGIC):
            self._header = data[:HEADER_BYTES]
        elif data.startswith(BATCH_MAGIC):
            self._log.take(*decode_batch(data))

    def create(self, path: Path, size_bytes: int = 0) -> Any:
        return _File(self.carry_out(lambda: self._inner.create(path, size_bytes)), self)

    def open(self, path: Path, *, writable: bool = False) -> Any:
        return _File(self._inner.open(path, writable=writable), self)

    @property
    def gently(self) -> Any:
        return self

    def sync_dir(self, path: Path) -> None:
        """Makes the name of a new segment count; one that restarts the log voids the others."""
        self.carry_out(lambda: self._inner.sync_dir(path))
        if self._header is not None:
            header, _ = decode_header(path, self._header)
            self._header = None
            if header.restart:
                base = (header.first_index - 1, header.previous_term)
                self._log.restart(header.hard_state, base)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class DurableLogs:
    """The logs of all processes of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._logs: dict[str, tuple[int, DurableLog, _Recorder | None]] = {}
        self._ended: dict[int, DurableLog] = {}
        self.failures = 0
        """Errors that any disk has reported to its log."""

    def begin(self, p: Process) -> None:
        """A process has started: reads its durable image and listens from now on. Idempotent."""
        known = self._logs.get(p.name)
        if p.config.unsafe_no_fsync or (known is not None and known[0] == p.incarnation):
            return
        log = image_of(p)
        writer = wal_writer(p)
        recorder = _Recorder(writer._disk, log, self)
        writer._disk = recorder
        if writer._file is not None:
            writer._file = _File(writer._file, recorder)
        self._logs[p.name] = (p.incarnation, log, recorder)

    def end(self, p: Process) -> None:
        """A process has ended; what its log held is remembered for the next start. Idempotent."""
        known = self._logs.pop(p.name, None)
        if known is not None:
            self._ended[p.member_id] = known[1]

    def of(self, p: Process) -> DurableLog | None:
        """What is durable of a running process; None if that is not followed."""
        known = self._logs.get(p.name)
        return None if known is None or known[0] != p.incarnation else known[1]

    def before(self, member_id: int) -> DurableLog | None:
        """What was durable when this member ended the last time."""
        return self._ended.get(member_id)

    def after_failure(self, p: Process) -> str:
        """What a process did to its log's disk after that had failed; empty: nothing."""
        known = self._logs.get(p.name)
        return "" if known is None or known[2] is None else known[2].after_failure

    def pretend(self, p: Process, log: DurableLog) -> None:
        """For tests of the invariants: this is what the disk holds."""
        self._logs[p.name] = (p.incarnation, log, None)


_latest: DurableLogs | None = None


def durable_logs(world: World) -> DurableLogs:
    """The ones of a world; its invariants are made together and share them."""
    global _latest
    if _latest is None or _latest.world is not world:
        _latest = DurableLogs(world)
    return _latest
