"""I25 (ATC'20): after a reported write or sync error the process has no further effect.

The disk may have dropped what it failed to write and call the next sync a success, so nothing
that the process remembers of its disk can be believed any more. The error is reported when the
loop learns of it; the thread that met it does so a little earlier, and must not go on writing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.messages import Message
from tests.sim.books.durable import durable_logs
from tests.sim.books.inside import turns
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("NothingAfterAFailedWrite",)

_REPORTED_WITHIN_NS = 2_000_000_000
"""How long word of a failure may take from the thread to the loop: twice the slowest disk."""
_STEP_NS = 100_000_000
"""A longer time between two steps was a pause, and does not count as such."""


class NothingAfterAFailedWrite(Invariant):
    """Watches the log's disk, which is where promises are kept, and what leaves the process."""

    number = "I25"
    title = (
        "After a reported write or sync error the process performs no further effect of any kind."
    )
    source = "ATC'20"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._durable = durable_logs(world)
        self._since: dict[str, tuple[int, int]] = {}
        """Process → (true time of its last step, time it has run since its disk failed)."""

    def started(self, p: Process) -> None:
        self._durable.begin(p)
        self._since.pop(p.name, None)

    def stopped(self, p: Process, why: str) -> None:
        self._check_disk(p)
        self._durable.end(p)

    def stepped(self, p: Process) -> None:
        if not self._durable.failures:
            return
        log = self._durable.of(p)
        if log is not None and log.failed:
            now = self.world.now_ns
            last, ran = self._since.get(p.name, (now, 0))
            self._since[p.name] = (now, ran + min(now - last, _STEP_NS))
            self._check_disk(p)

    def _check_disk(self, p: Process) -> None:
        effect = self._durable.after_failure(p)
        if effect:
            raise self.violated(f"{p.name} {effect} its log after its disk had failed")

    def sent(self, p: Process, message: Message) -> None:
        if not self._durable.failures:
            return
        log = self._durable.of(p)
        if log is None or not log.failed:
            return
        overdue = self._since.get(p.name, (0, 0))[1] > _REPORTED_WITHIN_NS
        if overdue or not turns(p):
            raise self.violated(
                f"{p.name} sent a {type(message).__name__} of term {message.term} after its disk "
                f"had failed: {log.failed}"
            )
