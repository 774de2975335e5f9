"""The other members over TCP: one dialled connection to each, one port for all of them.

Each member dials every other and sends on the connection it dialled; what comes in on the ones
that others dialled is only read and answered. So two members share two connections, and neither
side has to agree with the other on which one counts.

Who may come in: whoever names this cluster and this member, is not this member itself and was
not removed. A member that this one has not heard of yet (it may lag behind the entry that adds
it) is let in as a stranger, and dialled back at the address it gives: it may be the leader that
alone can tell us of itself. Raft decides which of its messages count.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import ssl
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from kvstore.machine import Member
from kvstore.node.peer_connection import Address, Framed
from kvstore.node.peer_limits import (
    FRAME_BYTES_MAX,
    QUERY_TIMEOUT_S,
    SNAPSHOT_BYTES_PER_S,
    STRANGERS_MAX,
)
from kvstore.node.peer_link import Dialer, Link
from kvstore.node.peer_server import Inbound, PeerServer
from kvstore.node.snapshot_transfer import (
    Depot,
    Reception,
    SnapshotRefusedError,
    send_snapshot,
)
from kvstore.node.threads import ThreadWorker
from kvstore.node.transport import Cluster, LocalMember
from kvstore.node.wire import MAGIC, VERSION, FrameError, Hello, Kind, Purpose, frame, read_cluster
from kvstore.storage.disk import OsDisk
from raft.messages import InstallSnapshot, Message

__all__ = ("Peers", "TcpNetwork")

_LOG = logging.getLogger(__name__)


class TcpNetwork:
    """How the members of a real cluster reach each other."""

    def __init__(
        self,
        *,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
        random: Callable[[], float] = random_module.random,
        snapshot_bytes_per_s: float = SNAPSHOT_BYTES_PER_S,
    ) -> None:
        """`random()` gives 0 to below 1, for pauses. The contexts serve `https` peer URLs."""
        self.server_tls = server_tls
        self.client_tls = client_tls
        self.random = random
        self.snapshot_bytes_per_s = snapshot_bytes_per_s

    def connect(self, local: LocalMember) -> Peers:
        """The transport of one member."""
        return Peers(local, self)

    async def fetch_cluster(self, url: str) -> Cluster:
        """Asks the member behind a peer URL; raises OSError or TimeoutError."""
        query = _Query()
        address = Address.of(url)
        context = address.context(url, self.client_tls)
        try:
            async with asyncio.timeout(QUERY_TIMEOUT_S):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: query, address.host, address.port, ssl=context)
                query.write(frame(Kind.ASK_CLUSTER, MAGIC, VERSION))
                return await query.answer
        finally:
            query.answer.cancel()
            query.abort("no answer was awaited any more")


class _Query(Framed):
    """The connection of somebody who asks for a cluster's members."""

    def __init__(self) -> None:
        super().__init__()
        self.trust(FRAME_BYTES_MAX)
        self.answer: asyncio.Future[Cluster] = asyncio.get_running_loop().create_future()

    def received(self, kind: int, fields: Sequence[Any]) -> None:
        if kind != Kind.CLUSTER:
            raise FrameError(f"frame kind {kind} in place of a cluster")
        cluster = read_cluster(fields)
        if not self.answer.done():
            self.answer.set_result(cluster)

    def ended(self, reason: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionError(reason))


class Peers:
    """The transport of one member; see `transport.PeerTransport` for what it promises."""

    def __init__(self, local: LocalMember, network: TcpNetwork) -> None:
        self.local = local
        self.metrics = local.metrics
        self.cluster_id = local.cluster_id
        self.member_id = local.member_id
        self._network = network
        self._server = PeerServer(self)
        self._dialer = Dialer(
            local.cluster_id,
            local.member_id,
            local.config.advertise_peer_urls,
            network.client_tls,
        )
        self._loop = asyncio.get_running_loop()
        self._links: dict[int, Link] = {}
        self._strangers: dict[int, Link] = {}
        self._left: set[int] = set()
        """Members that there were while this process ran, and are no more."""
        self._inbound: dict[int, Inbound] = {}
        self._reception: Reception | None = None
        self._depot: Depot | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        """Links that close."""
        self._sends: set[asyncio.Task[None]] = set()
        """Snapshots that are being sent."""

    # ---- life ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to listen on every --listen-peer-urls; raises OSError if one cannot be had."""
        config = self.local.config
        self._depot = Depot(
            self.cluster_id,
            self.member_id,
            self.local.snapshot_dir,
            OsDisk(sync=not config.unsafe_no_fsync),
            ThreadWorker("peer-snapshots"),
            self.local.on_snapshot,
        )
        try:
            for url in config.listen_peer_urls:
                address = Address.of(url)
                tls = address.context(url, self._network.server_tls)
                await self._server.start(address.host, address.port, tls)
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Closes everything."""
        links = [*self._links.values(), *self._strangers.values()]
        self._links.clear()
        self._strangers.clear()
        await asyncio.gather(*(link.close() for link in links))
        for send in self._sends:
            send.cancel()
        await asyncio.gather(*self._sends, return_exceptions=True)
        await self._server.stop()
        if self._reception is not None:
            self._reception.lost()
            await asyncio.wait((self._reception.task,))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._depot is not None:
            depot, self._depot = self._depot, None
            await depot.worker.close()

    @property
    def ports(self) -> list[int]:
        """The ports that peers may dial, once started."""
        return self._server.ports

    def update(self, members: Sequence[Member]) -> None:
        """The other members there are now; links and connections of all others end."""
        present = {member.id: member for member in members if member.peer_urls}
        present.pop(self.member_id, None)
        for member_id in self._links.keys() - present.keys():
            self._left.add(member_id)
            self._spawn(self._links.pop(member_id).close())
            inbound = self._inbound.pop(member_id, None)
            if inbound is not None:
                inbound.abort("it is no member any more")
        for member_id, member in present.items():
            self._left.discard(member_id)
            link = self._links.get(member_id) or self._strangers.pop(member_id, None)
            if link is None:
                link = self._link(member_id, member.peer_urls)
            link.urls = member.peer_urls
            self._links[member_id] = link

    def _link(self, peer_id: int, urls: Sequence[str]) -> Link:
        return Link(
            peer_id,
            urls,
            dialer=self._dialer,
            metrics=self.metrics,
            random=self._network.random,
            on_unreachable=self.local.on_unreachable,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- to peers --------------------------------------------------------------------------

    def send(self, peer_id: int, messages: Sequence[Message]) -> None:
        """Sends messages at once, or drops them."""
        link = self._reach(peer_id)
        if link is not None:
            link.send(messages)
        else:
            self._loop.call_soon(self.local.on_unreachable, peer_id)

    async def call(self, peer_id: int, method: str, payload: bytes, timeout_s: float) -> bytes:
        """Asks a peer; raises OSError or TimeoutError without an answer, else its EtcdError."""
        link = self._reach(peer_id)
        if link is None:
            raise ConnectionError(f"member {peer_id:x} is not known")
        return await link.call(method, payload, timeout_s)

    async def send_snapshot(self, peer_id: int, message: InstallSnapshot, path: Path) -> bool:
        """Sends a snapshot file; True once the peer has it whole, checked and durable.

        Raises OSError, TimeoutError or StorageError when it did not get so far.
        """
        link = self._reach(peer_id)
        if link is None or self._depot is None:
            raise ConnectionError(f"member {peer_id:x} is not known")
        began = time.perf_counter()
        send = self._loop.create_task(
            send_snapshot(
                self._dialer,
                link.current_url,
                message,
                path,
                depot=self._depot,
                rate=self._network.snapshot_bytes_per_s,
            )
        )
        self._sends.add(send)
        send.add_done_callback(self._sends.discard)
        try:
            await send
        except SnapshotRefusedError as error:
            _LOG.warning("member %x did not take the snapshot: %s", peer_id, error)
            return False
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise ConnectionError("this member is stopping") from None
        _LOG.info(
            "sent the snapshot of index %d to %x in %.1f s",
            message.meta.index,
            peer_id,
            time.perf_counter() - began,
        )
        return True

    def active_since(self, peer_id: int) -> float | None:
        """Since when (loop time) the peer has been connected; None if it is not."""
        link = self._links.get(peer_id)
        return None if link is None else link.connected_at

    def _reach(self, peer_id: int) -> Link | None:
        return self._links.get(peer_id) or self._strangers.get(peer_id)

    # ---- from peers (called by the server's connections) -----------------------------------

    def cluster(self) -> Cluster:
        """What anybody may know."""
        return self.local.cluster()

    def refusal(self, hello: Hello) -> str:
        """Why whoever says this may not come in; empty if it may."""
        sender = hello.sender
        if hello.cluster_id != self.cluster_id:
            return f"cluster {hello.cluster_id:x} is not this member's cluster {self.cluster_id:x}"
        if hello.target != self.member_id:
            return f"this is member {self.member_id:x}, not member {hello.target:x}"
        if sender == self.member_id or sender == 0:
            return f"{sender:x} is not the id of another member"
        if sender in self._left or self.local.removed(sender):
            return f"member {sender:x} was removed from the cluster"
        strange = sender not in self._links and sender not in self._strangers
        if strange and (not hello.peer_urls or len(self._strangers) >= STRANGERS_MAX):
            return f"member {sender:x} is not known here"
        busy = self._reception
        if hello.purpose == Purpose.SNAPSHOT and busy is not None and busy.sender != sender:
            return f"a snapshot from {busy.sender:x} is being received"
        return ""

    def connected(self, inbound: Inbound, hello: Hello) -> None:
        """A peer has shaken hands: its older connection ends, and it can be dialled."""
        sender = hello.sender
        older = self._inbound.get(sender)
        self._inbound[sender] = inbound
        if older is not None:
            older.abort("a newer connection took its place")
        link = self._reach(sender)
        if link is None:
            _LOG.info("member %x, of which there is no entry here yet, has connected", sender)
            self._strangers[sender] = self._link(sender, hello.peer_urls)
        else:
            link.nudge()

    def disconnected(self, inbound: Inbound, hello: Hello) -> None:
        """A peer's connection is gone."""
        sender = hello.sender
        if self._inbound.get(sender) is not inbound:
            return
        del self._inbound[sender]
        stranger = self._strangers.pop(sender, None)
        if stranger is not None:
            self._spawn(stranger.close())

    def receive_snapshot(self, inbound: Inbound, hello: Hello) -> Reception:
        """Begins to receive; an unfinished transfer of the same sender is given up."""
        assert self._depot is not None, "listening before it was started"
        before = self._reception
        if before is not None:
            before.give_up("a newer transfer of the same sender took its place")
        reception = Reception(inbound, hello, self._depot, before)
        self._reception = reception
        reception.task.add_done_callback(lambda _task: self._received(reception))
        return reception

    def _received(self, reception: Reception) -> None:
        if self._reception is reception:
            self._reception = None
