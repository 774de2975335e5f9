"""What is new in a log since it was last looked at, without going through the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from raft.types import Entry
from tests.sim.books.inside import entries_between, entry_at, log_of, newest_entry

if TYPE_CHECKING:
    from tests.sim.process import Process

__all__ = ("Tails",)


class _Seen(NamedTuple):
    last: int
    newest: Entry | None
    commit: int


class Tails:
    """Remembers how every log ended; an entry is known by being the same object.

    Only what lies above the commit index of the last look can have been replaced: that no
    committed entry ever is, I8 sees to.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def forget(self, p: Process) -> None:
        """The next look goes through the whole log."""
        self._seen.pop(p.name, None)

    def news(self, p: Process) -> tuple[int, Sequence[Entry]] | None:
        """(the index from which the log may differ, its entries from there on); None: nothing."""
        log = log_of(p)
        last, newest = log.last_index, newest_entry(log)
        seen = self._seen.get(p.name)
        if seen is None:
            start = log.first_index
        elif seen.last == last and (newest is seen.newest or newest is None):
            return None
        elif log.base_index >= seen.last or entry_at(log, seen.last) is seen.newest:
            start = seen.last + 1
        else:
            start = seen.commit + 1
        self._seen[p.name] = _Seen(last, newest, log.commit)
        return start, entries_between(log, start, last)
