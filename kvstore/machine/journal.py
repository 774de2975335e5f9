"""The journal: what happened to the keys under one prefix, when and why, beyond compaction.

`journal`: (revision, sub) → [time, op, key, value, cause, reason, age clock], written when an
entry is applied, for every put and delete of such a key, whoever asked for it.

Rules:
1. *Log time.* Nothing here reads a clock. Some commands carry the wall clock of their proposer;
   the newest time that any carried is the time of whatever is applied, until a newer one comes.
   So times never fall, and a client's plain put has the time of the last command before it.
2. *Age is not taken on trust.* A member whose clock is wrong by weeks must not make the others
   throw history away. So age is measured by a clock of its own, which follows log time by one
   minute for each command at most: time that passes counts, a leap does not. (Log time itself
   leaps, and then stands still until the other clocks have caught up.)
3. *Bounded.* Records that are older than the allowed age, or beyond the allowed number, are
   removed from the front: some with each new record, some with each command that carries a time.
   How many depends on entries alone, never on how they were cut into batches: the journal is
   equal on every member at equal applied index, and counts in the hash of the state.
4. Compaction does not touch it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import msgpack

from kvstore.machine.config import MachineConfig
from kvstore.machine.limits import (
    JOURNAL_PRUNED_PER_COMMAND,
    JOURNAL_PRUNED_PER_RECORD,
    JOURNAL_STEP_MAX_MS,
)
from kvstore.machine.tables import JOURNAL, revision_key
from kvstore.storage.store import ReadTxn, WriteTxn

__all__ = (
    "EMPTY",
    "Cause",
    "Extent",
    "Journal",
    "JournalRecord",
    "journal_at",
    "journal_oldest",
    "journal_scan",
    "load_extent",
)


class Cause(IntEnum):
    """What kind of command changed a key; the numbers are stored."""

    CLIENT = 0
    """A put, a transaction or a delete."""
    LEASE_REVOKED = 1
    LEASE_EXPIRED = 2
    REGISTRY = 3
    """A batch; the reason says more."""


class JournalRecord(NamedTuple):
    """One change of one key."""

    revision: int
    sub: int
    time_ms: int
    """Log time, as Unix time; 0 when no command had carried a time yet."""
    op: int
    """PUT or DELETE, as in `results`."""
    key: bytes
    value: bytes
    """Of a put the new value, of a deletion the last one."""
    cause: Cause
    reason: str


class Extent(NamedTuple):
    """What is known of the journal without reading it; part of the state."""

    clock_ms: int
    """Log time."""
    age_ms: int
    """The clock by which records age: log time without its leaps."""
    records: int
    """How many records there are."""
    oldest_ms: int
    """The age clock when the first one was written; 0 when there is none."""


EMPTY = Extent(0, 0, 0, 0)


class Journal:
    """The journal while a batch of entries is being applied."""

    __slots__ = (
        "_age_ms",
        "_clock_ms",
        "_count",
        "_max_age_ms",
        "_max_records",
        "_oldest_ms",
        "_txn",
        "cause",
        "reason",
    )

    def __init__(self, txn: WriteTxn, extent: Extent, config: MachineConfig) -> None:
        self._txn = txn
        self._clock_ms, self._age_ms, self._count, self._oldest_ms = extent
        self._max_records = config.journal_max_records
        self._max_age_ms = config.journal_max_age_ms
        self.cause = Cause.CLIENT
        """Of the entry that is being applied."""
        self.reason = ""

    @property
    def extent(self) -> Extent:
        """The journal as the batch leaves it."""
        return Extent(self._clock_ms, self._age_ms, self._count, self._oldest_ms)

    def advance(self, time_ms: int) -> None:
        """A command carries this time (0: none)."""
        step_ms = max(0, time_ms - self._clock_ms)
        self._clock_ms += step_ms
        self._age_ms += min(step_ms, JOURNAL_STEP_MAX_MS)
        self._prune(JOURNAL_PRUNED_PER_COMMAND)

    def append(self, main: int, sub: int, op: int, key: bytes, value: bytes) -> None:
        """Notes one change."""
        record = (self._clock_ms, op, key, value, self.cause, self.reason, self._age_ms)
        self._txn.put(JOURNAL, revision_key(main, sub), msgpack.packb(record))
        if not self._count:
            self._oldest_ms = self._age_ms
        self._count += 1
        self._prune(JOURNAL_PRUNED_PER_RECORD)

    def _prune(self, at_most: int) -> None:
        """Removes up to `at_most` records that are too many or too old."""
        txn = self._txn
        while at_most and self._count and self._is_over():
            oldest = txn.seek(JOURNAL, _FIRST)
            assert oldest is not None, "the journal holds fewer records than were counted"
            txn.delete(JOURNAL, oldest[0])
            self._count -= 1
            following = txn.seek(JOURNAL, _FIRST)
            self._oldest_ms = _age_of(following)
            at_most -= 1

    def _is_over(self) -> bool:
        too_old = self._oldest_ms < self._age_ms - self._max_age_ms
        return too_old or self._count > self._max_records


_FIRST = bytes(1)
"""Not behind any record: keys are 16 bytes and begin with those of a revision."""


def _age_of(found: tuple[bytes, bytes] | None) -> int:
    if found is None:
        return 0
    age_ms: int = msgpack.unpackb(found[1])[6]
    return age_ms


def load_extent(txn: ReadTxn, clock_ms: int, age_ms: int) -> Extent:
    """What an opened store says of its journal."""
    return Extent(clock_ms, age_ms, txn.count(JOURNAL), _age_of(txn.seek(JOURNAL, _FIRST)))


def _read(at: bytes, record: bytes) -> JournalRecord:
    time_ms, op, key, value, cause, reason, _ = msgpack.unpackb(record)
    main, sub = int.from_bytes(at[:8]), int.from_bytes(at[8:])
    return JournalRecord(main, sub, time_ms, op, key, value, Cause(cause), reason)


def journal_scan(
    txn: ReadTxn,
    start_revision: int,
    stop_revision: int | None,
    *,
    newest_first: bool = False,
) -> Iterator[JournalRecord]:
    """The records of start_revision <= revision < stop_revision (None: all later ones)."""
    start = revision_key(max(start_revision, 0), 0)
    stop = None if stop_revision is None else revision_key(max(stop_revision, 0), 0)
    for at, record in txn.scan(JOURNAL, start, stop, reverse=newest_first):
        yield _read(at, record)


def journal_at(txn: ReadTxn, revision: int, sub: int) -> JournalRecord | None:
    """The record of one change, if there is one."""
    at = revision_key(revision, sub)
    record = txn.get(JOURNAL, at)
    return None if record is None else _read(at, record)


def journal_oldest(txn: ReadTxn) -> JournalRecord | None:
    """The first record."""
    found = txn.seek(JOURNAL, _FIRST)
    return None if found is None else _read(*found)
