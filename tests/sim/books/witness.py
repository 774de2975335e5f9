"""The committed entries by index, as the first process told them: what everybody is held to."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from raft.types import ConfState, Entry, EntryKind
from tests.sim.books.inside import entries_between, entry_at, log_of

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("Conflict", "Witness", "witness_of")


class Conflict(NamedTuple):
    """Two processes hold different entries committed at one index."""

    process: str
    found: Entry
    known: Entry


class Witness:
    """Grows with every step of any process; never asks a process whether it is right."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.entries: dict[int, Entry] = {}
        self.last = 0
        """The highest index that anybody called committed."""
        self.reported: dict[int, int] = {}
        """Term of the process that told it → the highest index that was news in that term."""
        self.changes: list[int] = []
        """Indexes of committed membership changes, ascending."""
        self.confs: dict[int, ConfState] = {}
        """Index of a membership change → the configuration after it."""
        self.conflict: Conflict | None = None
        self._commit: dict[str, int] = {}
        self._probe: dict[str, int] = {}

    def forget(self, p: Process) -> None:
        """A process starts: all of its log that is committed is looked at again."""
        self._commit[p.name] = 0
        self._probe.pop(p.name, None)

    def follow(self, p: Process) -> None:
        """Takes in what this process calls committed; call it as often as you like."""
        log = log_of(p)
        commit = log.commit
        before = self._commit.get(p.name, 0)
        if commit == before:
            return
        self._commit[p.name] = commit
        for entry in entries_between(log, before + 1, commit):
            known = self.entries.setdefault(entry.index, entry)
            if known is not entry and known != entry:
                self.conflict = self.conflict or Conflict(p.name, entry, known)
        self._note(p, entries_between(log, self.last + 1, commit), commit)

    def take(self, p: Process, entries: Sequence[Entry]) -> None:
        """What a process applies is committed; it may be gone from memory before its next step."""
        for entry in entries:
            known = self.entries.setdefault(entry.index, entry)
            if known is not entry and known != entry:
                self.conflict = self.conflict or Conflict(p.name, entry, known)
        self._note(p, entries, entries[-1].index)

    def _note(self, p: Process, entries: Sequence[Entry], commit: int) -> None:
        for entry in entries:
            if entry.kind == EntryKind.CONF_CHANGE and entry.index not in self.changes:
                insort(self.changes, entry.index)
        if commit > self.last:
            self.last = commit
            term = p.raft.term
            self.reported[term] = max(self.reported.get(term, 0), commit)

    def probe(self, p: Process) -> None:
        """Looks at one old committed entry again, another one each time."""
        log = log_of(p)
        at = self._probe.get(p.name, 0) - 1
        if at <= log.base_index:
            at = log.commit
        self._probe[p.name] = at
        found, known = entry_at(log, at), self.entries.get(at)
        if found is not None and known is not None and found != known:
            self.conflict = self.conflict or Conflict(p.name, found, known)

    def term_at(self, index: int) -> int | None:
        """The term of a committed entry; None if nobody has told it."""
        entry = self.entries.get(index)
        return None if entry is None else entry.term

    def committed_before(self, term: int) -> int:
        """The highest index that was known to be committed in some earlier term."""
        return max((index for told, index in self.reported.items() if told < term), default=0)

    def adopt(self, index: int, conf: ConfState) -> None:
        """A process starts from a state that nobody has lived to tell of: a lone voter can have
        died between committing to its store and the next step."""
        if index not in self.entries:
            if index not in self.changes:
                insort(self.changes, index)
            self.confs.setdefault(index, conf)

    def conf_at(self, index: int) -> ConfState | None:
        """The configuration in force after `index`, as far as somebody has shown it."""
        change = max((at for at in self.changes if at <= index), default=0)
        return self.confs.get(change)


_latest: Witness | None = None


def witness_of(world: World) -> Witness:
    """The one list of a world; its invariants are made together and share it."""
    global _latest
    if _latest is None or _latest.world is not world:
        _latest = Witness(world)
    return _latest
