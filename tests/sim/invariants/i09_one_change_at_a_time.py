"""I9 (raft-dev 2015 and etcd #7625): when a configuration change may be begun, and who may vote.

At most one change is unapplied in a leader's log; none is accepted before that term's first
commit; no node campaigns while a committed change is unapplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raft.types import Entry, EntryKind, Role
from tests.sim.books.inside import log_of
from tests.sim.books.tails import Tails
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("OneChangeAtATime",)

_CAMPAIGNS = frozenset((Role.PRE_CANDIDATE, Role.CANDIDATE))


class OneChangeAtATime(Invariant):
    """Keeps its own list of the changes in each log."""

    number = "I9"
    title = (
        "At most one configuration change is unapplied in a leader's log; none was accepted "
        "before that term's first commit; no node campaigns with a committed change unapplied."
    )
    source = "reliability R1, R2; etcd #7625"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._tails = Tails()
        self._changes: dict[str, list[tuple[int, int]]] = {}
        self._began: dict[str, tuple[int, int]] = {}
        """Process → (term it leads, index of that term's first entry)."""

    def started(self, p: Process) -> None:
        self._tails.forget(p)
        self._began.pop(p.name, None)
        self._changes[p.name] = []
        self.changed(p)

    def changed(self, p: Process) -> None:
        news = self._tails.news(p)
        changes = self._changes.setdefault(p.name, [])
        if news is not None:
            self._take(p, changes, *news)
        if not changes:
            return
        raft = p.raft
        applied = raft.applied_index
        while changes and changes[0][0] <= applied:
            del changes[0]
        if raft.role is Role.LEADER and len(changes) > 1:
            raise self.violated(
                f"{p.name} leads term {raft.term} with the configuration changes "
                f"{[index for index, _ in changes]} unapplied"
            )
        if raft.role in _CAMPAIGNS and changes and changes[0][0] <= raft.commit_index:
            raise self.violated(
                f"{p.name} campaigns in term {raft.term} although the committed configuration "
                f"change {changes[0][0]} is unapplied (applied: {applied})"
            )

    def _take(
        self, p: Process, changes: list[tuple[int, int]], start: int, entries: Sequence[Entry]
    ) -> None:
        raft = p.raft
        while changes and changes[-1][0] >= start:
            changes.pop()
        leads = raft.role is Role.LEADER
        began = self._began.get(p.name, (0, 0))
        for entry in entries:
            if leads and entry.term == raft.term != began[0]:
                began = self._began[p.name] = (entry.term, entry.index)
            if entry.kind != EntryKind.CONF_CHANGE:
                continue
            changes.append((entry.index, entry.term))
            if leads and began[0] == entry.term and log_of(p).commit < began[1]:
                raise self.violated(
                    f"{p.name} accepted configuration change {entry.index} in term "
                    f"{entry.term} before entry {began[1]}, its first, was committed"
                )
