"""I49 (reliability): after a member is removed, nothing it sends changes anything.

Two exceptions, both Raft's own. A leader that was removed leads on in its own term until the
others know; that is how they learn of it. And a member whose log has the removal, but who has not
heard that it is committed, may be elected by those who have not heard either: it commits the
removal as its first act, so who has applied it may follow meanwhile. Everybody else who is removed
gets no vote and no follower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raft.messages import AppendReply, Message, VoteReply
from raft.types import ConfChangeKind, Entry
from tests.sim.books.inside import is_up
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("RemovedMeansGone",)


class RemovedMeansGone(Invariant):
    """Remembers for each process whom it knows as removed, and since when."""

    number = "I49"
    title = "After a member is removed, nothing it sends changes anything."
    source = "reliability, beyond the forty"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._gone: dict[str, dict[int, tuple[int, int]]] = {}
        """Process → removed member → (term, index) at which it knew."""
        self._knows: dict[int, int] = {}
        """Removed member → its own term when it knew."""

    def started(self, p: Process) -> None:
        self._gone[p.name] = {}
        self._read(p, p.machine.applied_index)

    def installed(self, p: Process, index: int, term: int) -> None:
        self._read(p, index)

    def _read(self, p: Process, index: int) -> None:
        for member_id in sorted(p.machine.removed_members):
            self._note(p, member_id, index)

    def _note(self, p: Process, member_id: int, index: int) -> None:
        self._gone.setdefault(p.name, {}).setdefault(member_id, (p.raft.term, index))
        if member_id == p.member_id:
            self._knows.setdefault(member_id, p.raft.term)

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        for entry, result in zip(entries, results, strict=True):
            change = result.conf_change
            if change is not None and result.conf_valid and change.kind == ConfChangeKind.REMOVE:
                self._note(p, change.node_id, entry.index)

    def _may_act(self, member_id: int, term: int, index: int) -> bool:
        """Whether this removed member may be a candidate or a leader of this term."""
        if term > self._knows.get(member_id, term):
            return False
        others = [q for q in self.world.processes.values() if q.member_id == member_id]
        return not any(is_up(q) and q.raft.last_index < index for q in others)

    def changed(self, p: Process) -> None:
        gone = self._gone.get(p.name)
        leader = p.raft.leader_id
        if not gone or leader not in gone or leader == p.member_id:
            return
        since, index = gone[leader]
        if p.raft.term > since and not self._may_act(leader, p.raft.term, index):
            raise self.violated(
                f"{p.name} follows member {leader:x} in term {p.raft.term}, though it had applied "
                f"its removal, entry {index}, in term {since}"
            )

    def sent(self, p: Process, message: Message) -> None:
        gone = self._gone.get(p.name)
        if not gone or message.to not in gone:
            return
        since, index = gone[message.to]
        if self._may_act(message.to, message.term, index):
            return
        if isinstance(message, VoteReply) and message.granted:
            raise self.violated(
                f"{p.name} gave its vote in term {message.term} to member {message.to:x}, whose "
                "removal it had applied"
            )
        later = message.term > since
        if later and isinstance(message, AppendReply) and not message.rejected:
            raise self.violated(
                f"{p.name} took entries up to {message.index} in term {message.term} from member "
                f"{message.to:x}, whose removal it had applied"
            )
