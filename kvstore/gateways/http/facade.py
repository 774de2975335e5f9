"""The running member as the HTTP side sees it: the part of `node.Node` that is read here.

A protocol rather than the class itself, so that the endpoints can be tried on any implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from kvstore.errors import EtcdError
from kvstore.pb import rpc_pb2

__all__ = ("Node", "Status", "WatchReadings")


class Status(Protocol):
    """A member's view of itself; sizes in bytes."""

    @property
    def version(self) -> str: ...
    @property
    def db_size(self) -> int: ...
    @property
    def db_in_use(self) -> int: ...
    @property
    def leader(self) -> int: ...
    @property
    def raft_index(self) -> int: ...
    @property
    def raft_term(self) -> int: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def is_learner(self) -> bool: ...
    @property
    def storage_version(self) -> str: ...
    @property
    def quota(self) -> int: ...


class WatchReadings(Protocol):
    """What the watch hub tells about itself."""

    @property
    def streams(self) -> int: ...
    @property
    def watchers(self) -> int: ...
    @property
    def slow_watchers(self) -> int: ...
    @property
    def pending(self) -> int: ...


class Node(Protocol):
    """One running member."""

    @property
    def member_id(self) -> int: ...
    @property
    def leader_id(self) -> int:
        """0 when none is known."""

    @property
    def is_leader(self) -> bool: ...
    @property
    def is_learner(self) -> bool: ...
    @property
    def revision(self) -> int: ...
    @property
    def compact_revision(self) -> int:
        """The newest compacted revision; -1 when nothing ever was."""

    @property
    def pending_proposals(self) -> int:
        """Changes handed in here that are not applied yet."""

    @property
    def remote_members(self) -> Sequence[int]:
        """Ids of all other members."""

    @property
    def connected_members(self) -> Sequence[int]:
        """Those of them that this member is connected to."""

    @property
    def cluster_version(self) -> str:
        """Such as `3.6.0`; empty while the members have not agreed on one."""

    @property
    def lease_count(self) -> int: ...
    @property
    def watches(self) -> WatchReadings: ...
    def range(
        self, request: rpc_pb2.RangeRequest, done: Callable[[Any, EtcdError | None], None]
    ) -> None:
        """Linearizable unless `request.serializable`."""

    def alarms(self) -> Sequence[tuple[int, int]]:
        """(member id, alarm type) of every active alarm."""

    def status(self) -> Status: ...
