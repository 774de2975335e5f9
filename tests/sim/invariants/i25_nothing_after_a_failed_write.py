"""I25 (ATC'20): after a reported write or sync error the process has no further effect.

The disk may have dropped what it failed to write and call the next sync a success, so nothing
that the process remembers of its disk can be believed any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.messages import Message
from tests.sim.books.durable import durable_logs
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("NothingAfterAFailedWrite",)


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

    def started(self, p: Process) -> None:
        self._durable.begin(p)

    def stopped(self, p: Process, why: str) -> None:
        self._check_disk(p)
        self._durable.end(p)

    def stepped(self, p: Process) -> None:
        self._check_disk(p)

    def _check_disk(self, p: Process) -> None:
        effect = self._durable.after_failure(p)
        if effect:
            raise self.violated(f"{p.name} {effect} its log after its disk had failed")

    def sent(self, p: Process, message: Message) -> None:
        log = self._durable.of(p)
        if log is not None and log.failed:
            raise self.violated(
                f"{p.name} sent a {type(message).__name__} of term {message.term} after its disk "
                f"had failed: {log.failed}"
            )
