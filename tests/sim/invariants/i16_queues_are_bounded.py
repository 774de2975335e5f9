"""I16 (etcd's raft.Config): what is in flight, uncommitted or queued stays within its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.node import limits
from raft.limits import ENTRY_OVERHEAD_BYTES, READS_WAITING_MAX
from raft.types import Role
from tests.sim.books.inside import progress_of, read_queue, state_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("QueuesAreBounded",)

_EVERY = 32
"""Steps between two looks, each at whoever is stepping; a queue that has outgrown its bound does
not shrink within a few."""


class QueuesAreBounded(Invariant):
    """The last one let in may be as large as a request, so that much is added to byte limits."""

    number = "I16"
    title = (
        "Inflight messages and bytes per follower, uncommitted bytes and every queue stay within "
        "their limits."
    )
    source = "etcd raft.Config"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._steps = 0

    def stepped(self, p: Process) -> None:
        self._steps += 1
        if self._steps % _EVERY:
            return
        if p.raft.role is Role.LEADER:
            self._check_leader(p)
        core = p.core
        reads = read_queue(p)
        proposals = core.proposals
        self._check(p, "reads waiting for a round", len(reads.waiting), READS_WAITING_MAX)
        self._check(p, "reads forwarded", len(reads.forwarded), READS_WAITING_MAX)
        self._check(p, "queued writes", proposals.queued, limits.MAX_QUEUED_WRITES + 1)
        self._check(p, "pending writes", len(proposals), limits.MAX_PENDING_WRITES + 1)
        self._check(p, "reads to be confirmed", len(core.rounds._arrived), limits.MAX_WAITING_READS)
        self._check(p, "pinned views", len(core.jobs._running), limits.MAX_PINNED_VIEWS)

    def _check_leader(self, p: Process) -> None:
        state = state_of(p)
        config = state.config
        largest = self._largest(p)
        for peer, progress in progress_of(p).items():
            name = f"{peer:x}"
            self._check(
                p, f"appends to {name}", progress.inflight_count, config.max_inflight_appends
            )
            self._check(
                p,
                f"bytes to {name}",
                progress.inflight_bytes,
                config.max_inflight_bytes + max(config.max_append_bytes, largest),
            )
        self._check(
            p,
            "uncommitted bytes",
            state.uncommitted_bytes,
            config.max_uncommitted_bytes + largest,
        )

    @staticmethod
    def _largest(p: Process) -> int:
        """The largest proposal that can be let in: one chunk, or one request that is larger."""
        request = int(p.config.max_request_bytes)
        return max(limits.PROPOSE_CHUNK_BYTES, request) + 64 * ENTRY_OVERHEAD_BYTES

    def _check(self, p: Process, what: str, found: int, limit: int) -> None:
        if found > limit:
            raise self.violated(f"{p.name} holds {found} {what}, more than {limit}")
