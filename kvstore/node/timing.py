"""The time constants of a member, and which of the timeouts a late write is answered with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvstore.errors import (
    TIMEOUT,
    TIMEOUT_CONNECTION_LOST,
    TIMEOUT_LEADER_FAILURE,
    EtcdError,
)
from kvstore.node.limits import REQUEST_TIMEOUT_BASE_S
from raft.types import NO_NODE

__all__ = ("Timing", "timeout_error")


@dataclass(frozen=True, slots=True)
class Timing:
    """Ticks are Raft's time, seconds the clock's."""

    tick_ms: int
    election_ticks: int

    @property
    def tick_s(self) -> float:
        """Seconds between two ticks; the leader sends heartbeats this often."""
        return self.tick_ms / 1000

    @property
    def election_s(self) -> float:
        """The election timeout in seconds."""
        return self.tick_s * self.election_ticks

    @property
    def request_s(self) -> float:
        """How long a request may wait for its outcome."""
        return REQUEST_TIMEOUT_BASE_S + 2 * self.election_s


def timeout_error(
    started: float,
    *,
    own_id: int,
    leader_id: int,
    leader_seen_at: float,
    election_s: float,
    voters: Sequence[int],
    connected_since: Callable[[int], float | None],
) -> EtcdError:
    """What a client learns of a write that arrived at `started` and was never answered.

    A leader that became known shortly after the write says that the one before failed. A leader,
    or a quorum, that was not connected all the while says that the connection was lost.
    """

    def connected(peer: int) -> bool:
        since = connected_since(peer)
        return peer == own_id or (since is not None and since <= started)

    if leader_seen_at - 2 * election_s < started < leader_seen_at:
        return TIMEOUT_LEADER_FAILURE
    if leader_id == NO_NODE:
        return TIMEOUT
    if leader_id == own_id:
        reached = sum(1 for voter in voters if connected(voter))
        return TIMEOUT if reached > len(voters) // 2 else TIMEOUT_CONNECTION_LOST
    return TIMEOUT if connected(leader_id) else TIMEOUT_CONNECTION_LOST
