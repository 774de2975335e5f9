"""I18 (etcd #7331; reliability R5): a linearizable read sees every write acknowledged before it.

In true time, by revisions: whatever answer any client had in hand before a read was sent, the
read's revision is at least that. And a leader confirms reads only with an index of its own term.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.messages import Message, ReadReply
from tests.linear.history import Delete, Operation, Outcome, Put, Range, Txn
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("ReadsSeeAcknowledgedWrites", "only_reads")


def only_reads(request: object) -> bool:
    """Whether a request is a read, alone or as a transaction of nothing else."""
    if isinstance(request, Txn):
        return all(only_reads(part) for part in (*request.success, *request.failure))
    return isinstance(request, Range)


class ReadsSeeAcknowledgedWrites(Invariant):
    """Notes the highest acknowledged revision when a read begins; one number per open read."""

    number = "I18"
    title = (
        "A linearizable read is served only by index ≥ every write acknowledged before the read "
        "began, and only after the leader committed in its term."
    )
    source = "etcd #7331; reliability R5"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._acknowledged = 0
        self._floor: dict[tuple[int, int], int] = {}

    def invoked(self, op: Operation) -> None:
        request = op.request
        if isinstance(request, Range) and request.serializable:
            return
        if isinstance(request, Put | Range | Delete | Txn):
            self._floor[(op.client, op.call)] = self._acknowledged

    def completed(self, op: Operation) -> None:
        floor = self._floor.pop((op.client, op.call), None)
        if floor is None or op.outcome is not Outcome.OK or op.response is None:
            return
        revision = op.response.revision
        if revision < floor:
            kind = "read" if only_reads(op.request) else "write"
            raise self.violated(
                f"client {op.client} got revision {revision} for a linearizable {kind} of "
                f"{op.request!r:.120}, though revision {floor} was acknowledged before it began"
            )
        if not only_reads(op.request):
            self._acknowledged = max(self._acknowledged, revision)

    def sent(self, p: Process, message: Message) -> None:
        if isinstance(message, ReadReply):
            term = p.raft.term_at(message.index)
            if p.raft.term == message.term and term is not None and term != message.term:
                raise self.violated(
                    f"{p.name}, leader of term {message.term}, confirmed reads at entry "
                    f"{message.index} of term {term}: nothing of its own term was committed"
                )
