"""The virtual network between members: every message is bytes, and may be late, lost or twice.

Each member keeps one link to each other member, as the real transport does: dialled for ever,
connected or not, everything unsent lost with the connection. What two members exchange on one
connection is delayed, and, as the seed has it, lost, doubled, replayed and put out of order; a
reset loses all that is under way. A link can be cut in one direction or clogged for a while.

Snapshot files travel by the product's own transfer code over a virtual stream (`streams`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgpack

from kvstore.errors import Code, EtcdError
from kvstore.machine import Member
from kvstore.node.peer_limits import PING_TIMEOUT_S, QUERY_TIMEOUT_S, RECONNECT_MAX_S
from kvstore.node.transport import Cluster, LocalMember
from kvstore.node.wire import FrameReader, cluster_frame, read_cluster, unpack
from raft.messages import InstallSnapshot, Message, from_wire, to_wire
from tests.sim.prng import Prng
from tests.sim.streams import Transfers
from tests.sim.world import MS, SECOND, World

if TYPE_CHECKING:
    from tests.sim.process import Process

__all__ = ("Link", "NetworkParams", "SimNetwork", "SimTransport")

_PING_TIMEOUT_NS: Final = int(PING_TIMEOUT_S * SECOND)
_RECONNECT_MIN_NS: Final = 50 * MS
_RECONNECT_MAX_NS: Final = int(RECONNECT_MAX_S * SECOND)
_REPLAYED_FROM: Final = 16
"""How many of the last messages of a connection may be delivered once more."""
_REFUSED_DIAL: Final = "nobody listens there"


@dataclass(frozen=True, slots=True)
class NetworkParams:
    """What a seed's network is like; rates are per 10,000 messages."""

    delay_ns: tuple[int, int] = (100_000, 2 * MS)
    slow_rate: int = 0
    slow_ns: int = 50 * MS
    """Some messages take up to this long instead."""
    loss_rate: int = 0
    double_rate: int = 0
    replay_rate: int = 0
    reset_rate: int = 0
    damage_rate: int = 0
    """Pieces of a snapshot transfer that arrive with a wrong bit."""
    ordered: bool = True
    """Whether messages of one connection keep their order, as over TCP."""
    capacity: int = 4096
    """Messages under way on one link; more are dropped."""


class SimNetwork:
    """All links between all members."""

    def __init__(self, world: World, params: NetworkParams) -> None:
        self.world = world
        self.params = params
        self.chance: Prng = world.prng.fork("network")
        self.at_url: dict[str, Process] = {}
        self.listening: dict[str, SimTransport] = {}
        """By process name."""
        self.calm = False
        """True once all faults have stopped: nothing is lost, doubled or slow any more."""
        self._cut: dict[tuple[str, str], int] = {}
        """Directions that are cut, and by how many faults at the same time."""
        self._clogged: dict[tuple[str, str], list[tuple[Callable[..., None], tuple[Any, ...]]]] = {}
        """What is held up in a direction: what to call once it goes on."""
        self.transfers = Transfers(self)

    def of(self, process: Process) -> _ProcessNetwork:
        """The network as one process sees it."""
        return _ProcessNetwork(self, process)

    # ---- faults ----------------------------------------------------------------------------

    def cut(self, source: str, target: str) -> None:
        """Nothing gets through in this direction."""
        pair = (source, target)
        self._cut[pair] = self._cut.get(pair, 0) + 1

    def mend(self, source: str, target: str) -> None:
        """Takes one `cut` back."""
        pair = (source, target)
        left = self._cut.get(pair, 0) - 1
        if left > 0:
            self._cut[pair] = left
        else:
            self._cut.pop(pair, None)

    def is_cut(self, source: str, target: str) -> bool:
        """Whether nothing gets through."""
        return (source, target) in self._cut

    def clog(self, source: str, target: str) -> None:
        """What goes in this direction is held up."""
        self._clogged.setdefault((source, target), [])

    def unclog(self, source: str, target: str) -> None:
        """What was held up goes on."""
        for forward, args in self._clogged.pop((source, target), []):
            forward(*args)

    def reset(self, source: str, target: str) -> None:
        """The connection from one to the other breaks; what is under way on it is lost."""
        transport = self.listening.get(source)
        link = transport.link_to(target) if transport is not None else None
        if link is not None and link.connected:
            self.world.fire("connection reset")
            link.disconnect("reset")

    def heal(self, names: Sequence[str]) -> None:
        """Between these members nothing is cut or held up any more."""
        for source in names:
            for target in names:
                self._cut.pop((source, target), None)
                self.unclog(source, target)

    def died(self, process: Process, *, notice: bool) -> None:
        """A process is gone. With `notice` its kernel still closes its connections."""
        transport = self.listening.pop(process.name, None)
        if transport is not None:
            transport.drop()
        self.transfers.died(process)
        for other in self.listening.values():
            link = other.link_to(process.name)
            if link is None or not (link.connected and notice):
                continue
            if not self.is_cut(process.name, other.process.name):
                other.process.later(self.delay_ns(), link.end, link.serial, "closed")

    # ---- carrying --------------------------------------------------------------------------

    def delay_ns(self) -> int:
        """How long the next thing takes from one member to another."""
        params = self.params
        chance = self.chance
        if not self.calm and params.slow_rate and chance.below(10_000) < params.slow_rate:
            self.world.fire("message slow")
            return chance.between(params.delay_ns[0], params.slow_ns)
        return chance.between(*params.delay_ns)

    def carry(self, source: str, target: str, event: Callable[..., None], *args: Any) -> bool:
        """Calls `event` at the other side after the delay; False if the direction is cut."""
        if (source, target) in self._cut:
            return False
        held = self._clogged.get((source, target))
        if held is not None:
            self.world.fire("message held up")
            held.append((self.world.after, (self.params.delay_ns[0], event, *args)))
        else:
            self.world.after(self.delay_ns(), event, *args)
        return True


class _ProcessNetwork:
    """`kvstore.node.transport.PeerNetwork` for one process."""

    def __init__(self, network: SimNetwork, process: Process) -> None:
        self._network = network
        self._process = process

    def connect(self, local: LocalMember) -> SimTransport:
        return SimTransport(self._network, self._process, local)

    async def fetch_cluster(self, url: str) -> Cluster:
        """Asks the member behind a peer URL; raises OSError or TimeoutError."""
        network, process = self._network, self._process
        answer: asyncio.Future[bytes] = process.loop.create_future()
        target = network.at_url.get(url)
        name = target.name if target is not None else ""

        def asked() -> None:
            listener = network.listening.get(name)
            if listener is None or listener.process.paused:
                if listener is None:
                    network.carry(name, process.name, process.later, 0, refused)
                return
            listener.process.loop.call_soon(told, listener)

        def told(listener: SimTransport) -> None:
            packed = cluster_frame(listener.local.cluster())
            network.carry(name, process.name, process.later, 0, answered, packed)

        def answered(packed: bytes) -> None:
            process.loop.call_soon(_settle, answer, packed, None)

        def refused() -> None:
            process.loop.call_soon(_settle, answer, b"", ConnectionRefusedError(_REFUSED_DIAL))

        network.carry(process.name, name, asked)
        async with asyncio.timeout(QUERY_TIMEOUT_S):
            packed = await answer
        (frame,) = FrameReader(len(packed)).feed(packed)
        return read_cluster(unpack(frame)[1])


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
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


class SimTransport:
    """`kvstore.node.transport.PeerTransport` of one incarnation of a process."""

    def __init__(self, network: SimNetwork, process: Process, local: LocalMember) -> None:
        self.network = network
        self.process = process
        self.local = local
        self.member_id = local.member_id
        self.links: dict[int, Link] = {}
        self.strangers: dict[int, Link] = {}
        self._left: dict[int, None] = {}

    # ---- what the member asks --------------------------------------------------------------

    async def start(self) -> None:
        """Begins to listen, which is also when those who watch are put in place."""
        self.network.listening[self.process.name] = self
        self.network.transfers.listen(self)
        self.process.wire_up()

    async def stop(self) -> None:
        """Closes everything; the others notice."""
        await self.network.transfers.close(self)
        if self.network.listening.get(self.process.name) is self:
            self.network.died(self.process, notice=True)

    def drop(self) -> None:
        """Everything is gone at once."""
        for link in (*self.links.values(), *self.strangers.values()):
            link.close()
        self.links.clear()
        self.strangers.clear()

    def update(self, members: Sequence[Member]) -> None:
        """The other members there are now; connections to others end."""
        present = {member.id: member for member in members if member.peer_urls}
        present.pop(self.member_id, None)
        for member_id in [each for each in self.links if each not in present]:
            self._left[member_id] = None
            gone = self.links.pop(member_id)
            gone.close()
            self._end_inbound(gone.target_name)
        for member_id, member in present.items():
            self._left.pop(member_id, None)
            link = self.links.get(member_id) or self.strangers.pop(member_id, None)
            if link is None:
                link = Link(self, member_id, member.peer_urls)
            link.urls = tuple(member.peer_urls)
            self.links[member_id] = link

    def _end_inbound(self, sender: str) -> None:
        """What a member that is one no more has dialled here ends at once."""
        transport = self.network.listening.get(sender)
        link = transport.link_to(self.process.name) if transport is not None else None
        if link is not None and link.connected_to(self):
            link.disconnect("no member any more")

    def send(self, peer_id: int, messages: Sequence[Message]) -> None:
        """Sends messages that came out of one turn together, or drops them."""
        if not self.process.alive:
            return
        world = self.network.world
        for message in messages:
            world.show("sent", self.process, message)
        link = self.reach(peer_id)
        if link is None or not link.connected:
            self.process.loop.call_soon(self.local.on_unreachable, peer_id)
            return
        link.send(messages)

    def receive(self, messages: Sequence[Message]) -> None:
        """Hands the member what has arrived for it."""
        self.local.on_messages(messages)
        for message in messages:
            self.network.world.show("received", self.process, message)

    async def send_snapshot(self, peer_id: int, message: InstallSnapshot, path: Path) -> bool:
        """Sends a snapshot file with its message in front; True when the peer has it whole."""
        link = self.reach(peer_id)
        if link is None:
            raise ConnectionError(f"member {peer_id:x} is not known")
        return await self.network.transfers.send(self, link, message, path)

    async def call(self, peer_id: int, method: str, payload: bytes, timeout_s: float) -> bytes:
        """Asks a peer; raises OSError or TimeoutError when no answer came."""
        link = self.reach(peer_id)
        if link is None or not link.connected:
            raise ConnectionError(f"not connected to member {peer_id:x}")
        return await link.call(method, payload, timeout_s)

    def active_since(self, peer_id: int) -> float | None:
        """Since when (loop time) the peer has been connected; None if it is not."""
        link = self.links.get(peer_id)
        return link.connected_at if link is not None else None

    # ---- links -----------------------------------------------------------------------------

    def reach(self, peer_id: int) -> Link | None:
        """The link to a member or to a stranger of this cluster."""
        return self.links.get(peer_id) or self.strangers.get(peer_id)

    def link_to(self, name: str) -> Link | None:
        """The link that leads to the machine of this name."""
        for link in (*self.links.values(), *self.strangers.values()):
            if link.target_name == name:
                return link
        return None

    def refuses(self, sender: SimTransport, target_id: int) -> bool:
        """Whether somebody may not come in (the rules of `peers.Peers.refusal`)."""
        if sender.local.cluster_id != self.local.cluster_id or target_id != self.member_id:
            return True
        sender_id = sender.member_id
        return (
            sender_id == self.member_id or sender_id in self._left or self.local.removed(sender_id)
        )

    def connected_by(self, sender: SimTransport) -> None:
        """A peer has shaken hands: it can be dialled back."""
        link = self.reach(sender.member_id)
        if link is None:
            urls = sender.local.config.advertise_peer_urls
            self.strangers[sender.member_id] = Link(self, sender.member_id, urls)
        else:
            link.nudge()

    def disconnected_by(self, sender_id: int) -> None:
        """A peer's connection is gone; a stranger is forgotten with it."""
        stranger = self.strangers.pop(sender_id, None)
        if stranger is not None:
            stranger.close()

    async def answer(
        self, link: Link, serial: int, number: int, method: str, payload: bytes
    ) -> None:
        """Answers a peer's question."""
        handler = self.local.answers.get(method)
        value, failure = b"", None
        if handler is None:
            failure = EtcdError(Code.UNIMPLEMENTED, f"unknown peer method {method!r}")
        else:
            try:
                value = await handler(payload)
            except EtcdError as error:
                failure = EtcdError(error.code, error.message)
        source = link.transport.process.name
        self.network.carry(self.process.name, source, link.answered, serial, number, value, failure)


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
            self._process.loop.call_soon(_settle, call, b"", error)

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
            self._process.loop.call_soon(_settle, waiting, value, error)
