"""Snapshot transfers: the product's own code on both sides of a virtual byte stream.

A stream delivers bytes in order or not at all. It ends when either side closes it, a process
dies, or the network resets it; when its direction is cut it falls silent, and the timeouts of
the transfer have to notice. Now and then a piece arrives damaged, which its checksum must show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore.node.peer_connection import Framed
from kvstore.node.peer_limits import (
    CHUNK_BYTES,
    DIAL_TIMEOUT_S,
    FRAME_BYTES_MAX,
    HANDSHAKE_BYTES_MAX,
    SNAPSHOT_BYTES_PER_S,
)
from kvstore.node.peer_link import Outgoing
from kvstore.node.snapshot_transfer import (
    Depot,
    Reception,
    SnapshotRefusedError,
    send_snapshot,
)
from kvstore.node.wire import VERSION, Hello, Purpose
from raft.messages import InstallSnapshot
from tests.sim.host import SimWorker

if TYPE_CHECKING:
    from tests.sim.link import Link
    from tests.sim.network import SimNetwork, SimTransport
    from tests.sim.process import Process

__all__ = ("Transfers",)


class _End:
    """One side of a stream, as far as `asyncio.Transport` is used."""

    def __init__(self, network: SimNetwork, process: Process, protocol: Framed) -> None:
        self.process = process
        self.protocol = protocol
        self.other: _End
        self._network = network
        self._incarnation = process.incarnation
        self._closing = False
        self._silent = False
        self._reading = True
        self._unread: list[bytes] = []
        self._last_ns = 0

    # asyncio.Transport

    def write(self, data: bytes) -> None:
        network = self._network
        if self._closing or self._silent or not self.process.alive:
            return
        if not network.calm:
            params, chance = network.params, network.chance
            if params.reset_rate and chance.below(10_000) < params.reset_rate:
                network.world.fire("transfer reset")
                self.abort()
                return
            if params.damage_rate and chance.below(10_000) < params.damage_rate:
                network.world.fire("transfer damaged")
                at = chance.below(len(data))
                data = data[:at] + bytes([data[at] ^ 1 << chance.below(8)]) + data[at + 1 :]
        self._carry(self.other.arrived, data)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._carry(self.other.lost)
            self.process.loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        unread, self._unread = self._unread, []
        for data in unread:
            self.process.loop.call_soon(self.protocol.data_received, data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever held back here."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    # the network's side

    def _carry(self, event: Any, *args: Any) -> None:
        network, own, target = self._network, self.process.name, self.other.process.name
        if network.is_cut(own, target):
            self._silent = True
            network.world.fire("transfer cut off")
            return
        arrival_ns = max(network.world.now_ns + network.delay_ns(), self._last_ns + 1)
        self._last_ns = arrival_ns
        network.world.at(arrival_ns, event, *args)

    def _gone(self) -> bool:
        return not self.process.alive or self.process.incarnation != self._incarnation

    def arrived(self, data: bytes) -> None:
        if self._gone() or self._closing:
            return
        if self._reading:
            self.process.loop.call_soon(self.protocol.data_received, data)
        else:
            self._unread.append(data)

    def lost(self) -> None:
        """The other side is gone."""
        if not self._gone() and not self._closing:
            self._closing = True
            self.process.loop.call_soon(
                self.protocol.connection_lost, ConnectionResetError("the other side is gone")
            )


class _Incoming(Framed):
    """The receiving side's connection, with the handshake behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.trust(CHUNK_BYTES + HANDSHAKE_BYTES_MAX)
        self.reception: Reception | None = None

    def received(self, kind: int, fields: Sequence[Any]) -> None:
        assert self.reception is not None, "a frame before the handshake"
        self.reception.received(kind, fields)

    def ended(self, reason: str) -> None:
        if self.reception is not None:
            self.reception.lost()


class _Post:
    """What a member has for receiving: at most one transfer at a time."""

    def __init__(self, transport: SimTransport) -> None:
        process, local = transport.process, transport.local
        self.transport = transport
        self.reception: Reception | None = None
        self.depot = Depot(
            local.cluster_id,
            local.member_id,
            local.snapshot_dir,
            process.session,
            SimWorker(process, "peer-snapshots"),
            local.on_snapshot,
        )

    def accept(self, sender: SimTransport, dialer: _Dialer, outgoing: Outgoing) -> None:
        """A sender has dialled; runs on the receiver's loop."""
        network = dialer.network
        before = self.reception
        if before is not None and before.sender != sender.member_id:
            dialer.answer(self.transport, outgoing, None)
            return
        if before is not None:
            before.give_up("a newer transfer of the same sender took its place")
        incoming = _Incoming()
        near = _End(network, self.transport.process, incoming)
        far = _End(network, sender.process, outgoing)
        near.other, far.other = far, near
        network.transfers.ends += [near, far]
        incoming.connection_made(near)  # type: ignore[arg-type]
        local = sender.local
        hello = Hello(
            VERSION,
            Purpose.SNAPSHOT,
            local.cluster_id,
            local.member_id,
            self.transport.member_id,
            tuple(local.config.advertise_peer_urls),
        )
        reception = Reception(incoming, hello, self.depot, before)
        incoming.reception = self.reception = reception
        reception.task.add_done_callback(lambda _task: self._ended(reception))
        dialer.answer(self.transport, outgoing, far)

    def _ended(self, reception: Reception) -> None:
        if self.reception is reception:
            self.reception = None

    async def close(self) -> None:
        """Gives up what is under way."""
        if self.reception is not None:
            self.reception.lost()
            await asyncio.wait((self.reception.task,))


class _Dialer:
    """What `send_snapshot` connects with."""

    def __init__(self, network: SimNetwork, sender: SimTransport, target: str) -> None:
        self.network = network
        self._sender = sender
        self._target = target
        self._welcome: asyncio.Future[_End | None] = sender.process.loop.create_future()

    async def dial(self, url: str, target: int, purpose: Purpose, connection: Outgoing) -> None:
        """Connects; raises OSError or TimeoutError."""
        network, own = self.network, self._sender.process.name
        network.carry(own, self._target, self._knock, target, connection)
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            end = await self._welcome
        if end is None:
            raise ConnectionRefusedError("the other side takes no snapshot now")
        connection.connection_made(end)  # type: ignore[arg-type]
        connection.trust(FRAME_BYTES_MAX)
        if not connection.welcome.done():
            connection.welcome.set_result((self._sender.local.cluster_id, target))
        await connection.welcome  # Raises ConnectionError if it was cut off at once.

    def _knock(self, target_id: int, connection: Outgoing) -> None:
        listener = self.network.listening.get(self._target)
        post = self.network.transfers.posts.get(self._target)
        if listener is None or post is None or post.transport is not listener:
            return
        if listener.refuses(self._sender, target_id):
            self.answer(listener, connection, None)
            return
        listener.process.loop.call_soon(post.accept, self._sender, self, connection)

    def answer(self, listener: SimTransport, connection: Outgoing, end: _End | None) -> None:
        """Tells the sender whether it may send."""
        self.network.carry(listener.process.name, self._sender.process.name, self._heard, end)

    def _heard(self, end: _End | None) -> None:
        process = self._sender.process
        if process.alive:
            process.loop.call_soon(self._take, end)

    def _take(self, end: _End | None) -> None:
        if not self._welcome.done():
            self._welcome.set_result(end)
        elif end is not None:
            end.abort()


class Transfers:
    """All snapshot transfers of the network."""

    def __init__(self, network: SimNetwork) -> None:
        self.posts: dict[str, _Post] = {}
        self.ends: list[_End] = []
        self._network = network

    def listen(self, transport: SimTransport) -> None:
        """A member takes snapshots from now on."""
        self.posts[transport.process.name] = _Post(transport)

    async def close(self, transport: SimTransport) -> None:
        """A member stops in order."""
        post = self.posts.get(transport.process.name)
        if post is not None and post.transport is transport:
            del self.posts[transport.process.name]
            await post.close()

    def died(self, process: Process) -> None:
        """A process is gone, and with it its ends of streams."""
        self.posts.pop(process.name, None)
        gone = [end for end in self.ends if end.process is process]
        self.ends = [end for end in self.ends if not (end._closing and end.other._closing)]
        for end in gone:
            if end.other.process.alive and not self._network.is_cut(
                process.name, end.other.process.name
            ):
                self._network.world.after(self._network.delay_ns(), end.other.lost)

    async def send(
        self, transport: SimTransport, link: Link, message: InstallSnapshot, path: Path
    ) -> bool:
        """Sends a snapshot file; True once the peer has it whole."""
        post = self.posts.get(transport.process.name)
        if post is None:
            raise ConnectionError("this member is stopping")
        dialer: Any = _Dialer(self._network, transport, link.target_name)
        url = link.urls[0]
        try:
            await send_snapshot(
                dialer, url, message, path, depot=post.depot, rate=SNAPSHOT_BYTES_PER_S
            )
        except SnapshotRefusedError:
            return False
        return True
