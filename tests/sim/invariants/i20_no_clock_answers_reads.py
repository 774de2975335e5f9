"""I20 (reliability R12): no read is answered on the strength of a clock.

There are no lease reads here (raft/node.py says why), so nobody can believe in a lease. What
such a belief would break is looked at all the same: linearizable reads never go back in true
time, by whomever they are served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.linear.history import Operation, Outcome, Range
from tests.sim.invariants.i18_reads_see_acknowledged_writes import only_reads
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ("NoClockAnswersReads",)


class NoClockAnswersReads(Invariant):
    """Reads among each other; I18 holds them against the writes."""

    number = "I20"
    title = "Linearizable reads never go back in true time, whoever serves them."
    source = "reliability R12"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._seen = 0
        self._floor: dict[tuple[int, int], int] = {}

    def invoked(self, op: Operation) -> None:
        request = op.request
        if only_reads(request) and not (isinstance(request, Range) and request.serializable):
            self._floor[(op.client, op.call)] = self._seen

    def completed(self, op: Operation) -> None:
        floor = self._floor.pop((op.client, op.call), None)
        if floor is None or op.outcome is not Outcome.OK or op.response is None:
            return
        revision = op.response.revision
        if revision < floor:
            raise self.violated(
                f"client {op.client} read at revision {revision}, though a read that was over "
                f"before it began had seen revision {floor}"
            )
        self._seen = max(self._seen, revision)
