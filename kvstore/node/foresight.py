"""Answers that need not wait for the apply.

A delete of a million keys is one entry, and the entries behind it are applied when it is done,
seconds later. But they are committed: a quorum has them on disk and no other entry can take
their place. Where `kvstore.machine.foresight` says that an entry's outcome follows from the
revision before it, it follows from the revision after the long entry, and that is certain from
its first change on. So a plain put behind it is answered at once, as if it had been applied.

Nobody can tell: a linearizable read waits for this member's apply anyway, on every member, and
so finds the put. (A serializable read, or a watch that starts "now", may be behind what was
answered, as on any member that lags.) A crash changes nothing: the entry is in the log.

Rules:
1. Entries are looked at in the order of the log, without a gap. The first that is not certain
   ends the view until it has itself become the entry that is being applied.
2. What was foreseen is compared with what comes out. A difference would mean that clients were
   told something false: the member stops.
3. Only entries behind a batch that takes more than a few slices are looked at, and those that
   follow while some of them are still not applied. Ordinary traffic never comes here.
4. What is foreseen is bounded, in entries and in bytes. Beyond that writes are refused again
   when too many are not applied (MAX_APPLY_LAG_ENTRIES).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from kvstore.machine import Result, foresee
from kvstore.node.limits import MAX_FORESEEN_BYTES, MAX_FORESEEN_ENTRIES
from raft.types import Entry

__all__ = ("Foresight", "ForesightError")


class ForesightError(Exception):
    """An entry came out otherwise than its proposer was told: a bug of this program."""


class Foresight:
    """How far ahead of the apply outcomes are known."""

    def __init__(self) -> None:
        self.index = 0
        """Entries up to here are applied, are being applied, or have been foreseen."""
        self._revision = 0
        """The revision after them."""
        self._expected: deque[tuple[int, int, int]] = deque()
        """(index, revision, size in bytes) of entries foreseen and not applied yet."""
        self._bytes = 0

    @property
    def outstanding(self) -> bool:
        """Entries were foreseen that are not applied yet."""
        return bool(self._expected)

    @property
    def full(self) -> bool:
        """No more is foreseen until some of it is applied."""
        return len(self._expected) >= MAX_FORESEEN_ENTRIES or self._bytes >= MAX_FORESEEN_BYTES

    def anchor(self, index: int, revision: int) -> None:
        """It is certain that `revision` follows entry `index`: the view begins there.

        Ignored when the view reaches further already.
        """
        if index > self.index:
            self.index = index
            self._revision = revision

    def look(self, entries: Iterable[Entry]) -> list[Result]:
        """Takes the entries behind `index`, up to the first that is not certain.

        Returns the outcomes of those whose whole answer is known.
        """
        known: list[Result] = []
        for entry in entries:
            if entry.index <= self.index:
                continue
            assert entry.index == self.index + 1, f"entry {entry.index} after {self.index}"
            seen = None if self.full else foresee(entry, self._revision)
            if seen is None:
                break
            self.index = entry.index
            self._revision = seen.revision
            self._expected.append((entry.index, seen.revision, len(entry.data)))
            self._bytes += len(entry.data)
            if seen.answerable:
                known.append(Result(seen.request_id, seen.revision))
        return known

    def check(self, first_index: int, results: Sequence[Result]) -> None:
        """Compares the outcomes of applied entries, from `first_index` on, with the foreseen."""
        expected = self._expected
        stop = first_index + len(results)
        while expected and expected[0][0] < stop:
            index, revision, size = expected.popleft()
            self._bytes -= size
            result = results[index - first_index]
            if result.revision != revision:
                raise ForesightError(
                    f"entry {index} came out at revision {result.revision}, error {result.error},"
                    f" where {revision} was foreseen"
                )

    def forget(self, applied_index: int) -> None:
        """The state was replaced by one that covers the entries up to `applied_index`."""
        while self._expected and self._expected[0][0] <= applied_index:
            self._bytes -= self._expected.popleft()[2]
