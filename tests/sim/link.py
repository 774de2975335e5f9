"""The connection that a member keeps to one other: dialled for ever, and what it carries.

Everything unsent is lost with the connection. What is on its way on one connection is delayed,
and, as the seed has it, lost, doubled, replayed and put out of order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgpack

from kvstore.errors import EtcdError
from kvstore.node.peer_limits import PING_TIMEOUT_S, RECONNECT_MAX_S
from raft.messages import Message, from_wire, to_wire
from tests.sim.world import MS, SECOND

if TYPE_CHECKING:
    from tests.sim.network import SimTransport

__all__ = ("Link", "settle")

_PING_TIMEOUT_NS: Final = int(PING_TIMEOUT_S * SECOND)
_RECONNECT_MIN_NS: Final = 50 * MS
_RECONNECT_MAX_NS: Final = int(RECONNECT_MAX_S * SECOND)
_REPLAYED_FROM: Final = 16
"""How many of the last messages of a connection may be delivered once more."""


def settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    """Gives a future its outcome, unless it has one."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)


def _brief(message: Message) -> str:
    """A message for the trace."""
    fields = [
        str(len(field)) if isinstance(field, list | tuple | bytes) else str(field)
        for field in message[2:]
    ]
    return f"{type(message).__name__}({','.join(fields)})"


class Link:
    """The connection that a member keeps to one other."""

    def __init__(self, transport: SimTransport, peer_id: int, urls: Sequence[str]) -> None:
        self.transport = transport
        self.peer_id = peer_id
        self.urls = tuple(urls)
        self.connected_at: float | None = None
        self.serial = 0
        """Which connection this is; whatever belongs to an earlier one is void."""
        self._network = transport.network
        self._process = transport.process
        self._peer: SimTransport | None = None
        self._closed = False
        self._attempts = 0
        self._dial_serial = 0
        self._under_way = 0
        self._last_arrival_ns = 0
        self._recent: list[bytes] = []
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._calls_made = 0
        self._silent_since_ns = 0
        self._dial_in(self._network.delay_ns())

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._peer is not None

    def connected_to(self, peer: SimTransport | None) -> bool:
        """Whether there is a connection, and it leads to this incarnation."""
        return peer is not None and self._peer is peer

    @property
    def target_name(self) -> str:
        """The machine that the link leads to; empty when nobody has the address."""
        process = self._network.at_url.get(self.urls[0])
        return process.name if process is not None else ""

    # ---- connecting ------------------------------------------------------------------------

    def _dial_in(self, delay_ns: int) -> None:
        self._dial_serial += 1
        self._process.later(delay_ns, self._dial, self._dial_serial)

    def nudge(self) -> None:
        """The peer gave a sign of life: dialling it again is worth while now."""
        if not self.connected and not self._closed:
            self._dial_in(self._network.delay_ns())

    def _dial(self, dial_serial: int) -> None:
        if self._closed or self.connected or dial_serial != self._dial_serial:
            return
        network, own, target = self._network, self._process.name, self.target_name
        self._attempts += 1
        peer = network.listening.get(target)
        open_both_ways = not (network.is_cut(own, target) or network.is_cut(target, own))
        if (
            peer is None
            or peer.process.paused
            or not open_both_ways
            or peer.refuses(self.transport, self.peer_id)
        ):
            pause_ns = min(_RECONNECT_MIN_NS << min(self._attempts, 8), _RECONNECT_MAX_NS)
            self._dial_in(network.chance.between(pause_ns // 2, pause_ns))
            return
        self._process.later(network.delay_ns(), self._welcomed, dial_serial, peer)
        peer.process.later(network.delay_ns(), peer.connected_by, self.transport)

    def _welcomed(self, dial_serial: int, peer: SimTransport) -> None:
        if self._closed or self.connected or dial_serial != self._dial_serial:
            return
        if self._network.listening.get(peer.process.name) is not peer:
            self._dial_in(_RECONNECT_MIN_NS)
            return
        self._peer = peer
        self.serial += 1
        self._attempts = 0
        self._under_way = 0
        self._last_arrival_ns = 0
        self._silent_since_ns = 0
        self.connected_at = self._process.clock.now()
        self._process.later(SECOND, self._ping, self.serial)

    def _ping(self, serial: int) -> None:
        """Notices a peer that has been silent for too long."""
        if serial != self.serial or self._peer is None:
            return
        network, own, target = self._network, self._process.name, self.target_name
        gone = network.listening.get(target) is not self._peer
        silent = gone or self._peer.process.paused
        if silent or network.is_cut(own, target) or network.is_cut(target, own):
            now_ns = network.world.now_ns
            self._silent_since_ns = self._silent_since_ns or now_ns
            if now_ns - self._silent_since_ns >= _PING_TIMEOUT_NS:
                self.disconnect("silent")
                return
        else:
            self._silent_since_ns = 0
        self._process.later(SECOND, self._ping, serial)

    def end(self, serial: int, why: str) -> None:
        """The other side has ended this connection."""
        if serial == self.serial and self.connected:
            self.disconnect(why)

    def disconnect(self, why: str) -> None:
        """The connection is gone; it is dialled again."""
        peer = self._peer
        if peer is None:
            return
        self._let_go(ConnectionError(why))
        if peer.process.alive:
            peer.process.later(
                self._network.delay_ns(), peer.disconnected_by, self.transport.member_id
            )
        self._process.loop.call_soon(self.transport.local.on_unreachable, self.peer_id)
        self._dial_in(self._network.chance.between(_RECONNECT_MIN_NS // 2, _RECONNECT_MIN_NS))

    def close(self) -> None:
        """Ends the link for good."""
        peer, self._closed = self._peer, True
        self._let_go(ConnectionError("closed"))
        if peer is not None and peer.process.alive:
            peer.process.later(
                self._network.delay_ns(), peer.disconnected_by, self.transport.member_id
            )

    def _let_go(self, error: OSError) -> None:
        self._peer = None
        self.serial += 1
        self.connected_at = None
        self._recent.clear()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            self._process.loop.call_soon(settle, call, b"", error)

    # ---- messages --------------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> None:
        """Sends what left in one turn as one piece."""
        network, params = self._network, self._network.params
        world = network.world
        payload: bytes = msgpack.packb([to_wire(message) for message in messages])
        if network.calm:
            self._carry(payload)
            return
        chance = network.chance
        if self._under_way >= params.capacity:
            world.fire("link over capacity")
            self._process.loop.call_soon(self.transport.local.on_unreachable, self.peer_id)
            return
        if params.reset_rate and chance.below(10_000) < params.reset_rate:
            world.fire("connection reset")
            self.disconnect("reset")
            return
        if params.loss_rate and chance.below(10_000) < params.loss_rate:
            world.fire("message lost")
            return
        self._carry(payload)
        if params.double_rate and chance.below(10_000) < params.double_rate:
            world.fire("message doubled")
            self._carry(payload)
        if params.replay_rate:
            if self._recent and chance.below(10_000) < params.replay_rate:
                world.fire("message replayed")
                self._carry(chance.pick(self._recent))
            self._recent.append(payload)
            del self._recent[:-_REPLAYED_FROM]

    def _carry(self, payload: bytes) -> None:
        network = self._network
        pair = (self._process.name, self.target_name)
        if pair in network._cut:
            network.world.fire("message cut off")
            return
        self._under_way += 1
        held = network._clogged.get(pair)
        if held is not None:
            network.world.fire("message held up")
            held.append((self._forward, (self.serial, payload)))
        else:
            self._forward(self.serial, payload)

    def _forward(self, serial: int, payload: bytes) -> None:
        network = self._network
        arrival_ns = network.world.now_ns + network.delay_ns()
        if network.params.ordered or network.calm:
            arrival_ns = self._last_arrival_ns = max(arrival_ns, self._last_arrival_ns + 1)
        network.world.at(arrival_ns, self._deliver, serial, payload)

    def _deliver(self, serial: int, payload: bytes) -> None:
        peer = self._peer
        if serial != self.serial or peer is None:
            return
        self._under_way -= 1
        world, own, target = self._network.world, self._process.name, peer.process.name
        if not peer.process.alive or self._network.listening.get(target) is not peer:
            # The machine is back, but knows of no such connection.
            self._network.carry(target, own, self._process.later, 0, self.end, serial, "reset")
            return
        if (own, target) in self._network._cut:
            world.fire("message cut off")
            return
        messages = [from_wire(item) for item in msgpack.unpackb(payload)]
        world.log(f"{own}>{target} {' '.join(map(_brief, messages))}")
        peer.process.loop.call_soon(peer.receive, messages)

    # ---- questions -------------------------------------------------------------------------

    async def call(self, method: str, payload: bytes, timeout_s: float) -> bytes:
        """Asks the peer; raises OSError or TimeoutError without an answer, else its EtcdError."""
        self._calls_made += 1
        number = self._calls_made
        answer: asyncio.Future[bytes] = self._process.loop.create_future()
        self._calls[number] = answer
        source, target = self._process.name, self.target_name
        try:
            async with asyncio.timeout(timeout_s):
                self._network.carry(
                    source, target, self._asked, self.serial, number, method, payload
                )
                return await answer
        finally:
            self._calls.pop(number, None)

    def _asked(self, serial: int, number: int, method: str, payload: bytes) -> None:
        peer = self._peer
        if serial != self.serial or peer is None or not peer.process.alive:
            return
        if self._network.listening.get(peer.process.name) is not peer:
            return
        loop = peer.process.loop
        loop.call_soon(lambda: loop.create_task(peer.answer(self, serial, number, method, payload)))

    def answered(self, serial: int, number: int, value: bytes, error: EtcdError | None) -> None:
        """An answer has come; one that nobody waits for any more is dropped."""
        waiting = self._calls.get(number)
        if serial == self.serial and waiting is not None and self._process.alive:
            self._process.loop.call_soon(settle, waiting, value, error)
