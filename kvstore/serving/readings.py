"""What the HTTP side may read of a running node, put together from the node's parts."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.gateways.http.facade import WatchReadings
from kvstore.node.answers import NodeStatus
from kvstore.node.node import Node
from kvstore.node.proposals import Done
from kvstore.pb import rpc_pb2

__all__ = ("NodeReadings",)


class NodeReadings:
    """The node behind `gateways.http.facade.Node`; front doors know nothing below the facade."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def member_id(self) -> int:
        return self._node.member_id

    @property
    def leader_id(self) -> int:
        return self._node.leader_id

    @property
    def is_leader(self) -> bool:
        return self._node.is_leader

    @property
    def is_learner(self) -> bool:
        return self._node.is_learner

    @property
    def revision(self) -> int:
        return self._node.revision

    @property
    def compact_revision(self) -> int:
        return self._node.machine.compact_revision

    @property
    def pending_proposals(self) -> int:
        return len(self._node.running.core.proposals)

    @property
    def remote_members(self) -> Sequence[int]:
        return [member for member in self._node.machine.members if member != self.member_id]

    @property
    def connected_members(self) -> Sequence[int]:
        active_since = self._node.running.peers.active_since
        return [member for member in self.remote_members if active_since(member) is not None]

    @property
    def cluster_version(self) -> str:
        return self._node.machine.cluster_version

    @property
    def watches(self) -> WatchReadings:
        return self._node.watches

    def range(self, request: rpc_pb2.RangeRequest, done: Done) -> None:
        self._node.range(request, done)

    def alarms(self) -> Sequence[tuple[int, int]]:
        return self._node.alarms()

    @property
    def lease_count(self) -> int:
        return len(self._node.machine.leases)

    def status(self) -> NodeStatus:
        return self._node.status()
