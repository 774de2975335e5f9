"""The virtual network between members: every message is bytes, and may be late, lost or twice.

Each member keeps one link to each other member, as the real transport does (`link`); a reset loses
all that is under way on it. A link can be cut in one direction or clogged for a while.

Snapshot files travel by the product's own transfer code over a virtual stream (`streams`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kvstore.errors import Code, EtcdError
from kvstore.machine import Member
from kvstore.node.peer_limits import QUERY_TIMEOUT_S
from kvstore.node.transport import Cluster, LocalMember
from kvstore.node.wire import FrameReader, cluster_frame, read_cluster, unpack
from raft.messages import InstallSnapshot, Message
from tests.sim.link import Link, settle
from tests.sim.prng import Prng
from tests.sim.streams import Transfers
from tests.sim.world import MS, World

if TYPE_CHECKING:
    from tests.sim.process import Process

__all__ = ("NetworkParams", "SimNetwork", "SimTransport")

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
            process.loop.call_soon(settle, answer, packed, None)

        def refused() -> None:
            process.loop.call_soon(settle, answer, b"", ConnectionRefusedError(_REFUSED_DIAL))

        network.carry(process.name, name, asked)
        async with asyncio.timeout(QUERY_TIMEOUT_S):
            packed = await answer
        (frame,) = FrameReader(len(packed)).feed(packed)
        return read_cluster(unpack(frame)[1])


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
