"""The seam between a member and its peers: what a transport is told, and what it must do.

The server's is in `peers`; tests and the simulator have their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kvstore.machine import Member
from kvstore.metrics import Metrics
from kvstore.node.config import NodeConfig
from raft.messages import InstallSnapshot, Message

__all__ = ("Cluster", "LocalMember", "PeerNetwork", "PeerTransport")


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a member tells about its cluster to somebody who is not connected yet."""

    cluster_id: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class LocalMember:
    """This member, as its transport knows it. All functions are called on the loop."""

    cluster_id: int
    member_id: int
    config: NodeConfig
    metrics: Metrics
    snapshot_dir: Path
    """Where received snapshot files are put, under the names that storage gives them."""
    on_messages: Callable[[Sequence[Message]], None]
    on_unreachable: Callable[[int], None]
    """A peer's connection was lost, or messages to it were dropped."""
    on_snapshot: Callable[[InstallSnapshot, Path], None]
    """A whole and verified snapshot file has arrived."""
    answers: Mapping[str, Callable[[bytes], Awaitable[bytes]]]
    """What peers may ask, by method name; called with the question, gives the answer."""
    cluster: Callable[[], Cluster]
    """The present members, for those who ask."""
    removed: Callable[[int], bool] = lambda _member_id: False
    """Whether a member was removed: it may not come back, whatever it says."""


class PeerTransport(Protocol):
    """Connections to the other members. Nothing here waits, except what is a coroutine."""

    async def start(self) -> None:
        """Begins to listen; raises OSError when an address cannot be had."""

    async def stop(self) -> None:
        """Closes everything."""

    def update(self, members: Sequence[Member]) -> None:
        """The other members there are now; connections to others end."""

    def send(self, peer_id: int, messages: Sequence[Message]) -> None:
        """Sends messages that came out of one turn together, or drops them."""

    async def send_snapshot(self, peer_id: int, message: InstallSnapshot, path: Path) -> bool:
        """Sends a snapshot file with its message in front; True when the peer has it whole."""

    async def call(self, peer_id: int, method: str, payload: bytes, timeout_s: float) -> bytes:
        """Asks a peer; raises OSError, EOFError or TimeoutError when no answer came."""

    def active_since(self, peer_id: int) -> float | None:
        """Since when (loop time) the peer has been connected; None if it is not."""


class PeerNetwork(Protocol):
    """How members reach each other."""

    async def fetch_cluster(self, url: str) -> Cluster:
        """Asks the member behind a peer URL; raises OSError, EOFError or TimeoutError."""

    def connect(self, local: LocalMember) -> PeerTransport:
        """The transport of one member."""
