"""I50 (reliability): what is kept for a client is bounded while the client stalls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.watch import limits
from tests.sim.books.inside import streams_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("StalledClientsAreBounded",)

_EVERY = 32
"""Steps between two looks, each at whoever is stepping; a stream that has outgrown its bound
stays so while nobody reads."""


class StalledClientsAreBounded(Invariant):
    """Each watch stream: messages, bytes, watchers.

    A response is let in while there is room, so one response (its fragments, and its size) may
    stand above the bound; answers without events are bounded by their number alone.
    """

    number = "I50"
    title = "Memory of every per-client structure is bounded while the client stalls."
    source = "reliability, beyond the forty"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._steps = 0

    def stepped(self, p: Process) -> None:
        self._steps += 1
        if self._steps % _EVERY:
            return
        one_response = int(p.config.max_request_bytes) + 1024**2
        for messages, size_bytes, watchers in streams_of(p):
            if messages > limits.ANSWERS_QUEUED_MAX + limits.BUFFERED_RESPONSES_MAX:
                raise self.violated(f"{p.name} keeps {messages} messages for one watch stream")
            if size_bytes > limits.BUFFERED_BYTES_MAX + one_response:
                raise self.violated(f"{p.name} keeps {size_bytes} bytes for one watch stream")
            if watchers > limits.WATCHERS_PER_STREAM_MAX:
                raise self.violated(f"{p.name} keeps {watchers} watchers of one stream")
