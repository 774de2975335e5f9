"""I49 (reliability): after a member is removed, nothing it sends changes anything.

From the moment a process has applied the removal: it gives the removed member no vote, and does
not follow it in a term that began later. (A leader that was removed leads on in its own term
until the others know; that is how they learn of it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raft.messages import AppendReply, Message, VoteReply
from raft.types import ConfChangeKind, Entry
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("RemovedMeansGone",)


class RemovedMeansGone(Invariant):
    """Remembers for each process whom it knows as removed, and since which term."""

    number = "I49"
    title = "After a member is removed, nothing it sends changes anything."
    source = "reliability, beyond the forty"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._gone: dict[str, dict[int, int]] = {}

    def started(self, p: Process) -> None:
        self._gone[p.name] = dict.fromkeys(sorted(p.machine.removed_members), p.raft.term)

    def installed(self, p: Process, index: int, term: int) -> None:
        gone = self._gone.setdefault(p.name, {})
        for member_id in sorted(p.machine.removed_members):
            gone.setdefault(member_id, p.raft.term)

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        for result in results:
            change = result.conf_change
            if change is not None and result.conf_valid and change.kind == ConfChangeKind.REMOVE:
                self._gone.setdefault(p.name, {})[change.node_id] = p.raft.term

    def changed(self, p: Process) -> None:
        gone = self._gone.get(p.name)
        if gone:
            since = gone.get(p.raft.leader_id)
            if since is not None and p.raft.term > since and p.raft.leader_id != p.member_id:
                raise self.violated(
                    f"{p.name} follows member {p.raft.leader_id:x} in term {p.raft.term}, though "
                    f"it had applied its removal in term {since}"
                )

    def sent(self, p: Process, message: Message) -> None:
        gone = self._gone.get(p.name)
        if not gone or message.to not in gone:
            return
        if isinstance(message, VoteReply) and message.granted:
            raise self.violated(
                f"{p.name} gave its vote in term {message.term} to member {message.to:x}, whose "
                "removal it had applied"
            )
        later = message.term > gone[message.to]
        if later and isinstance(message, AppendReply) and not message.rejected:
            raise self.violated(
                f"{p.name} took entries up to {message.index} in term {message.term} from member "
                f"{message.to:x}, whose removal it had applied"
            )
