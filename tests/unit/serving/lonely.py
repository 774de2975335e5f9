"""A network without anybody else: enough for a member that is its own cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kvstore.machine import Member
from kvstore.metrics import Metrics
from kvstore.node.config import NodeConfig
from kvstore.node.node import Node
from kvstore.node.transport import Cluster, LocalMember
from raft.messages import InstallSnapshot, Message


class NoPeers:
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def update(self, members: Sequence[Member]) -> None: ...
    def send(self, peer_id: int, messages: Sequence[Message]) -> None: ...
    async def send_snapshot(self, peer_id: int, message: InstallSnapshot, path: Path) -> bool:
        return False

    async def call(self, peer_id: int, method: str, payload: bytes, timeout_s: float) -> bytes:
        raise OSError("nobody is there")

    def active_since(self, peer_id: int) -> float | None:
        return None


class NoNetwork:
    async def fetch_cluster(self, url: str) -> Cluster:
        raise OSError("nobody is there")

    def connect(self, local: LocalMember) -> NoPeers:
        return NoPeers()


def lonely_node(config: NodeConfig, metrics: Metrics) -> Node:
    return Node(config, metrics, network=NoNetwork())
