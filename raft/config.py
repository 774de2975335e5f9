"""How one node is set up; checked once, constant afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from raft.limits import (
    APPEND_BYTES_MAX,
    INFLIGHT_APPENDS_MAX,
    INFLIGHT_BYTES_MAX,
    UNCOMMITTED_BYTES_MAX,
)
from raft.types import NO_NODE

__all__ = ("Config",)


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of a node. Times are counted in ticks; how long a tick is, the caller decides.

    `random(n)` gives a number from 0 to n-1. It spreads election timeouts and is the only source
    of chance in the core: same seed, same inputs, same outputs.
    Raises ValueError for settings that cannot work.
    """

    node_id: int
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    check_quorum: bool = True
    max_append_bytes: int = APPEND_BYTES_MAX
    max_inflight_appends: int = INFLIGHT_APPENDS_MAX
    max_inflight_bytes: int = INFLIGHT_BYTES_MAX
    max_uncommitted_bytes: int = UNCOMMITTED_BYTES_MAX
    random: Callable[[int], int] = field(kw_only=True)

    def __post_init__(self) -> None:
        if self.node_id <= NO_NODE:
            raise ValueError(f"node_id must be positive, not {self.node_id}")
        if self.heartbeat_ticks < 1:
            raise ValueError(f"heartbeat_ticks must be at least 1, not {self.heartbeat_ticks}")
        if self.election_ticks <= self.heartbeat_ticks:
            raise ValueError(
                f"election_ticks ({self.election_ticks}) must exceed "
                f"heartbeat_ticks ({self.heartbeat_ticks}), or every pause unseats the leader"
            )
        for name in (
            "max_append_bytes",
            "max_inflight_appends",
            "max_inflight_bytes",
            "max_uncommitted_bytes",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
