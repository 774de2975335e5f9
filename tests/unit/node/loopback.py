"""A network of members in one process: messages hop through the loop, links can be cut."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgpack

from kvstore.machine import Member
from kvstore.node.transport import Cluster, LocalMember
from raft.messages import InstallSnapshot, Message, from_wire, to_wire


class LoopbackNetwork:
    def __init__(self) -> None:
        self.running: dict[int, LoopbackTransport] = {}
        self.cuts: set[frozenset[int]] = set()
        self.snapshots = 0

    async def fetch_cluster(self, url: str) -> Cluster:
        await asyncio.sleep(0)
        for transport in self.running.values():
            if url in transport.local.config.advertise_peer_urls:
                return transport.local.cluster()
        raise ConnectionRefusedError(url)

    def connect(self, local: LocalMember) -> LoopbackTransport:
        return LoopbackTransport(self, local)

    def isolate(self, member_id: int) -> None:
        self.cuts |= {frozenset((member_id, other)) for other in self.running}


class LoopbackTransport:
    def __init__(self, network: LoopbackNetwork, local: LocalMember) -> None:
        self.network = network
        self.local = local
        self.members: dict[int, Member] = {}
        self.started = 0.0

    async def start(self) -> None:
        self.network.running[self.local.member_id] = self
        self.started = asyncio.get_running_loop().time()

    async def stop(self) -> None:
        self.network.running.pop(self.local.member_id, None)

    def update(self, members: Sequence[Member]) -> None:
        self.members = {member.id: member for member in members}

    def _peer(self, peer_id: int) -> LoopbackTransport | None:
        own = self.local.member_id
        peer = self.network.running.get(peer_id)
        if peer is None or frozenset((own, peer_id)) in self.network.cuts:
            return None
        return peer if peer_id in self.members and own in peer.members else None

    def send(self, peer_id: int, messages: Sequence[Message]) -> None:
        peer = self._peer(peer_id)
        if peer is None:
            self.local.on_unreachable(peer_id)
            return
        packed = msgpack.packb([to_wire(message) for message in messages])
        loop = asyncio.get_running_loop()
        loop.call_soon(self._deliver, peer_id, packed)

    def _deliver(self, peer_id: int, packed: bytes) -> None:
        peer = self._peer(peer_id)
        if peer is not None:
            peer.local.on_messages([from_wire(item) for item in msgpack.unpackb(packed)])

    async def send_snapshot(self, peer_id: int, message: InstallSnapshot, path: Path) -> bool:
        peer = self._peer(peer_id)
        if peer is None:
            return False
        self.network.snapshots += 1
        target = peer.local.snapshot_dir / path.name
        shutil.copyfile(path, target)
        await asyncio.sleep(0)
        peer.local.on_snapshot(message, target)
        return True

    async def call(self, peer_id: int, method: str, payload: bytes, timeout_s: float) -> bytes:
        peer = self._peer(peer_id)
        if peer is None:
            raise ConnectionRefusedError(peer_id)
        async with asyncio.timeout(timeout_s):
            return await peer.local.answers[method](payload)

    def active_since(self, peer_id: int) -> float | None:
        peer = self._peer(peer_id)
        return None if peer is None else max(peer.started, self.started)
