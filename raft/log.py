"""The replicated log: one list in memory, and the cursors that say how far each stage has come.

    base <= applied <= handed <= min(commit, stable)      stable, commit <= last
    (from an accepted snapshot until it is installed, applied stays behind base)

- base: everything up to here is compacted; its term is kept for the consistency check.
- applied: the state machine has it. handed: it was handed out to be applied.
- commit: a quorum has it (thesis 3.5). stable: this node's disk has it.
- in_flight: handed out to be written; becomes stable when the write is reported, unless it was
  overwritten meanwhile: then what the disk got is not what the log holds (the ABA trap).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import islice
from operator import itemgetter

from raft.errors import InvariantBroken
from raft.limits import ENTRY_OVERHEAD_BYTES
from raft.types import Entry, EntryKind

__all__ = ("RaftLog",)

_TERM_OF = itemgetter(1)
_KIND_OF = itemgetter(2)


class RaftLog:
    """Mutable; owned by the node's state. Indexes count from 1; 0 is the empty log."""

    __slots__ = (
        "_entries",
        "_slice",
        "applied",
        "base_index",
        "base_term",
        "commit",
        "handed",
        "in_flight",
        "stable",
        "unresolved",
    )

    def __init__(
        self, base: tuple[int, int], entries: Sequence[Entry], *, commit: int, applied: int
    ) -> None:
        """A log as it was found on disk; raises InvariantBroken if the parts do not fit."""
        self.base_index, self.base_term = base
        self._entries = list(entries)
        previous = base
        for entry in self._entries:
            if entry.index != previous[0] + 1 or entry.term < previous[1]:
                raise InvariantBroken(
                    f"entry {entry.index} of term {entry.term} cannot follow "
                    f"entry {previous[0]} of term {previous[1]}"
                )
            previous = (entry.index, entry.term)
        last = previous[0]
        if not self.base_index <= applied <= last:
            raise InvariantBroken(
                f"the state machine is at {applied}, but the log covers "
                f"{self.base_index} to {last}: log and state do not belong together"
            )
        if commit > last:
            raise InvariantBroken(
                f"entry {commit} was committed, but the log ends at {last}: entries were lost"
            )
        self.applied = self.handed = applied
        # What was applied was committed; the commit index itself is written lazily.
        self.commit = max(commit, applied)
        self.stable = self.in_flight = last
        self.unresolved: deque[int] = deque(
            e.index for e in self._entries if e.kind == EntryKind.CONF_CHANGE and e.index > applied
        )
        """Indexes of membership changes that are in the log and not yet applied or refused."""
        self._slice: tuple[int, int, list[Entry], int] | None = None

    @property
    def last_index(self) -> int:
        """The index of the last entry, on disk or not."""
        return self.base_index + len(self._entries)

    @property
    def first_index(self) -> int:
        """The first index whose entry is still held; last_index + 1 when none is."""
        return self.base_index + 1

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._entries[-1][1] if self._entries else self.base_term

    @property
    def commit_term(self) -> int:
        """The term of the newest committed entry."""
        term = self.term_at(self.commit)
        assert term is not None, f"committed entry {self.commit} is outside the log"
        return term

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`; None if it is compacted or not there yet."""
        offset = index - self.base_index - 1
        if 0 <= offset < len(self._entries):
            return self._entries[offset][1]
        return self.base_term if offset == -1 else None

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends there holds everything this one may have helped commit."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def meeting_point(self, index: int, term: int) -> tuple[int, int]:
        """The highest (index, term) at or below `index` whose term is at most `term`.

        Both sides use it after a mismatch: the entries in between are of a term the other log
        does not have there, so whole terms are skipped at once. Terms never fall along the log,
        hence the binary search.
        """
        index = min(index, self.last_index)
        offset = index - self.base_index
        if offset > 0:
            offset = bisect_right(self._entries, term, hi=offset, key=_TERM_OF)
        if offset <= 0:
            return (self.base_index, self.base_term)
        return (self.base_index + offset, self._entries[offset - 1][1])

    def append(self, entries: list[Entry]) -> None:
        """The leader's way: entries that continue the log. Membership changes: append_conf."""
        self._entries += entries
        self._slice = None

    def append_conf(self, entry: Entry) -> None:
        """The leader's way for a membership change."""
        self.append([entry])
        self.unresolved.append(entry.index)

    def try_append(self, prev_index: int, prev_term: int, entries: Sequence[Entry]) -> int | None:
        """The follower's way: the last index now known to equal the leader's, None on a mismatch.

        Entries that are there already are left alone: a late append must not cut off what a
        later one has added.
        """
        if self.term_at(prev_index) != prev_term:
            return None
        last_new = prev_index + len(entries)
        if prev_index == self.last_index:
            self._extend(entries)
            return last_new
        for position, entry in enumerate(entries):
            term = self.term_at(entry[0])
            if term != entry[1]:
                if term is not None:
                    self._truncate(entry[0])
                self._extend(entries[position:])
                break
        return last_new

    def check_committed(self, entries: Sequence[Entry]) -> None:
        """Raises InvariantBroken if one of `entries` contradicts what is committed here."""
        for index, term, _, _ in entries:
            if index > self.commit:
                return
            if self.term_at(index) not in (None, term):
                raise InvariantBroken(
                    f"the leader has another entry {index} of term {term}, but {self.commit} is "
                    "committed: a member has lost data or was restored from an old copy"
                )

    def _extend(self, entries: Sequence[Entry]) -> None:
        self._entries += entries
        self._slice = None
        if any(map(_KIND_OF, entries)):
            self.unresolved.extend(e.index for e in entries if e.kind == EntryKind.CONF_CHANGE)

    def _truncate(self, index: int) -> None:
        """Drops the entries from `index` on: a new leader has others in their place."""
        assert index > self.commit, f"entry {index} is committed and would be replaced"
        del self._entries[index - self.base_index - 1 :]
        self.stable = min(self.stable, index - 1)
        self.in_flight = min(self.in_flight, index - 1)
        while self.unresolved and self.unresolved[-1] >= index:
            self.unresolved.pop()

    def commit_to(self, index: int) -> bool:
        """A quorum has everything up to `index`; True when that is news."""
        if index <= self.commit:
            return False
        if index > self.last_index:
            raise InvariantBroken(
                f"the leader counts entry {index} as held here, but the log ends at "
                f"{self.last_index}: this node has lost entries that it acknowledged"
            )
        self.commit = index
        return True

    def slice_from(self, start: int, max_bytes: int) -> tuple[list[Entry], int]:
        """Entries from `start` on, at most `max_bytes` of them but at least one, and their size.

        Followers that are level ask for the same slice, so the last one is kept.
        """
        kept = self._slice
        if kept is not None and kept[0] == start and kept[1] == max_bytes:
            return kept[2], kept[3]
        begin = start - self.base_index - 1
        end, size = begin, 0
        for entry in islice(self._entries, begin, None):
            size_with = size + ENTRY_OVERHEAD_BYTES + len(entry[3])
            if size_with > max_bytes and end > begin:
                break
            size = size_with
            end += 1
        entries = self._entries[begin:end]
        self._slice = (start, max_bytes, entries, size)
        return entries, size

    def take_unstable(self) -> list[Entry]:
        """The entries to be written next; they are in flight from now on."""
        entries = self._entries[self.stable - self.base_index :]
        self.in_flight = self.last_index
        return entries

    def written(self) -> None:
        """What was in flight is on disk, except what has been overwritten since."""
        self.stable = max(self.stable, self.in_flight)

    def has_committed(self) -> bool:
        """Whether there are entries to hand out: committed, on this disk, not handed out yet."""
        return self.handed < self.commit and self.handed < self.stable

    def take_committed(self, max_count: int) -> list[Entry]:
        """The next entries to apply, each handed out once."""
        end = min(self.commit, self.stable, self.handed + max_count)
        if end <= self.handed:
            return []
        entries = self._entries[self.handed - self.base_index : end - self.base_index]
        self.handed = end
        return entries

    def applied_to(self, index: int) -> None:
        """The state machine has reached `index`."""
        assert index <= self.handed, f"applied {index}, but only {self.handed} was handed out"
        if index > self.applied:
            self.applied = index
            while self.unresolved and self.unresolved[0] <= index:
                self.unresolved.popleft()

    def resolve_conf_change(self) -> None:
        """The oldest membership change that was handed out is applied or refused."""
        if self.unresolved and self.unresolved[0] <= self.handed:
            self.unresolved.popleft()

    def has_unapplied_committed_change(self) -> bool:
        """Whether the configuration in use is known to be out of date (rule R2)."""
        return bool(self.unresolved) and self.unresolved[0] <= self.commit

    def compact(self, index: int) -> None:
        """Forgets the entries up to `index`; costs one move of the remaining references."""
        assert index <= self.applied, f"compact to {index}, but only {self.applied} is applied"
        if index <= self.base_index:
            return
        term = self.term_at(index)
        assert term is not None, f"no term for {index}"
        del self._entries[: index - self.base_index]
        self.base_index, self.base_term = index, term
        self._slice = None

    def restore(self, index: int, term: int) -> None:
        """The log starts again behind a snapshot; nothing that was in flight counts any more."""
        assert index > self.commit, f"snapshot at {index}, but {self.commit} is committed"
        self.base_index, self.base_term = index, term
        self._entries = []
        self._slice = None
        self.unresolved.clear()
        self.commit = self.handed = self.stable = self.in_flight = index
