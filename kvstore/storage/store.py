"""The ordered store that the state machine is written against.

Two implementations: `lmdb_store.LmdbStore` for servers, `memory_store.MemoryStore` for the
simulator. One conformance suite (tests/unit/storage/test_store_conformance*.py) holds both to
the behaviour written here.

Rules: keys are 1 to 400 bytes, or in tables declared `long_keys` of any length from 1 on;
order is plain byte order; one write transaction at a time; a read transaction sees the state
of the last commit before it began, for as long as it lives; nothing is durable until the
caller arranges it (commits do not fsync).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ("EngineInfo", "ReadTxn", "Store", "TableSpec", "WriteTxn")


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A named table. `long_keys` lifts the 400-byte limit at the cost of a little per access."""

    name: str
    long_keys: bool = False


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Which engine made a store's image; stands in the header of a snapshot."""

    name: str
    version: str
    page_bytes: int


class ReadTxn(Protocol):
    """A consistent view. Every value read has had its checksum verified (else StoreCorrupt)."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of exactly this key, or None."""

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """`get` for each key, in order, in as few trips to the engine as possible."""

    def seek(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        """The first record whose key is >= `key`, or None."""

    def seek_last(self, table: str, below: bytes | None = None) -> tuple[bytes, bytes] | None:
        """The last record whose key is < `below` (of all records when None), or None."""

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Records with start <= key < stop, ascending (descending with `reverse`).

        The table must not be written while its scan is being drawn from.
        """

    def count(self, table: str) -> int:
        """How many records the table holds."""

    def close(self) -> None:
        """Ends the view (a write transaction: abort, if it was not committed). Idempotent."""


class WriteTxn(ReadTxn, Protocol):
    """The one open write transaction; it reads its own writes."""

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Writes one record, replacing what stood there.

        ValueError for a key that the table does not take. StoreFull or StoreFailed ends the
        transaction: nothing of it is kept.
        """

    def put_many(self, table: str, records: Iterable[tuple[bytes, bytes]]) -> None:
        """`put` for each record."""

    def delete(self, table: str, key: bytes) -> bool:
        """Removes one record; False if there was none."""

    def commit(self) -> None:
        """Makes all of it visible at once and ends the transaction.

        Raises StoreFull or StoreFailed and leaves nothing.
        """

    def commit_in_background(self, report: Callable[[BaseException | None], None]) -> None:
        """`commit` without waiting; only for a transaction begun as `long`.

        `report` gets None or what `commit` would have raised, from any thread, perhaps before
        this returns. Until then the transaction must not be used; afterwards it is to be closed.
        """


class Store(Protocol):
    """An open store; `close` waits for running copies."""

    @property
    def engine(self) -> EngineInfo:
        """Which engine this is."""

    def read(self) -> ReadTxn:
        """A new view of the last committed state (cheap: a microsecond or two)."""

    def write(self, *, long: bool = False) -> WriteTxn:
        """The write transaction; an assertion fails if one is already open.

        A `long` one takes a tenth of a millisecond more to begin and can be committed in the
        background.
        """

    def size_bytes(self) -> int:
        """Space the store takes on disk (etcd's dbSize)."""

    def size_in_use_bytes(self) -> int:
        """Space that live records take (etcd's dbSizeInUse)."""

    def sync(self) -> None:
        """Makes the last committed state durable: before a clean mark, or a copy's rename."""

    def copy_into(
        self,
        txn: ReadTxn,
        write: Callable[[bytes], object],
        *,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Hands a compacted image of exactly what `txn` sees to `write`, piece by piece.

        For the copy thread; `txn` must stay open meanwhile. What belongs to the image (its
        applied index, for a snapshot's header) is read from the same `txn`. `stop` as below.
        """

    def copy_to(self, path: Path, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Writes a compacted copy of the last committed state; called from another thread.

        The copy is a store of its own: its content, but not its name, is durable afterwards.
        `stop` is polled between chunks; when it answers True the copy is abandoned with
        CopyStopped and `path` removed.
        """

    def close(self) -> None:
        """Closes the store; waits for a running copy."""
