"""The peer port: who may connect, and what connected members say and ask."""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import Counter

from kvstore import faults
from kvstore.errors import TOO_MANY_REQUESTS, Code, EtcdError, detach
from kvstore.node.peer_connection import Framed
from kvstore.node.peer_limits import (
    ANSWERS_UNREAD_BYTES_MAX,
    CALLS_SERVED_MAX,
    CHUNK_BYTES,
    DIAL_TIMEOUT_S,
    FRAME_BYTES_MAX,
    HANDSHAKE_BYTES_MAX,
    INBOUND_CONNECTIONS_MAX,
    REFUSALS_REMEMBERED_MAX,
)
from kvstore.node.wire import (
    MAGIC,
    VERSION,
    FrameError,
    Hello,
    Kind,
    Purpose,
    check_types,
    cluster_frame,
    frame,
    read_hello,
)
from raft.messages import Message, from_wire

if TYPE_CHECKING:
    from kvstore.node.peers import Peers
    from kvstore.node.snapshot_transfer import Reception

__all__ = ("Inbound", "PeerServer")

_LOG = logging.getLogger(__name__)

_BACKLOG: Final = 128

Handler = Callable[[bytes], Awaitable[bytes]]


class PeerServer:
    """Listens for the other members."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._servers: list[asyncio.Server] = []
        self._open: dict[Inbound, None] = {}
        self._logged: set[tuple[object, ...]] = set()

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Listens on one address, exclusively; raises OSError that says what is in the way."""
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: Inbound(self, self._peers),
                host,
                port,
                backlog=_BACKLOG,
                # Two members on one port would each get half of the connections.
                reuse_port=False,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else DIAL_TIMEOUT_S,
            )
        except OSError as error:
            reason = "another process has it" if error.errno == errno.EADDRINUSE else str(error)
            raise OSError(
                error.errno, f"cannot listen for peers on {host}:{port}: {reason}"
            ) from error
        self._servers.append(server)

    @property
    def ports(self) -> list[int]:
        """The ports listened on."""
        return [each.getsockname()[1] for server in self._servers for each in server.sockets]

    async def stop(self) -> None:
        """Closes the port and every connection."""
        for server in self._servers:
            server.close()
        for inbound in list(self._open):
            inbound.abort("this member is stopping")
        # One turn for the transports to report their end.
        await asyncio.sleep(0)

    def took(self, inbound: Inbound) -> bool:
        """Counts a new connection; False when there are too many."""
        if len(self._open) >= INBOUND_CONNECTIONS_MAX:
            return False
        self._open[inbound] = None
        return True

    def lost(self, inbound: Inbound) -> None:
        """A connection is gone."""
        self._open.pop(inbound, None)

    def log_once(self, key: tuple[object, ...], text: str, *values: object) -> None:
        """A line for a refusal; who tries again and again is not logged again and again."""
        if key in self._logged:
            return
        if len(self._logged) >= REFUSALS_REMEMBERED_MAX:
            self._logged.clear()
        self._logged.add(key)
        _LOG.warning(text, *values)


class Inbound(Framed):
    """A connection that somebody else dialled."""

    def __init__(self, server: PeerServer, peers: Peers) -> None:
        super().__init__()
        self._server = server
        self._peers = peers
        self.hello: Hello | None = None
        """Who it is; None before the handshake."""
        self._reception: Reception | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._received_bytes: Counter | None = None

    # ---- the connection --------------------------------------------------------------------

    def opened(self) -> None:
        if not self._server.took(self):
            self.abort("too many connections")
            return
        self._timer = asyncio.get_running_loop().call_later(
            DIAL_TIMEOUT_S, self.abort, "it did not say who it is"
        )

    def data_received(self, data: bytes) -> None:
        if self._received_bytes is not None:
            self._received_bytes.inc(len(data))
        super().data_received(data)

    def received(self, kind: int, fields: Sequence[Any]) -> None:
        if self.hello is None:
            self._shake_hands(kind, fields)
        elif self._reception is not None:
            self._reception.received(kind, fields)
        elif kind == Kind.MESSAGES:
            self._messages(self.hello, fields)
        elif kind == Kind.CALL:
            check_types(fields, int, str, bytes)
            self._call(*fields)
        elif kind == Kind.PING:
            check_types(fields, int)
            self._answer(frame(Kind.PONG, fields[0]))
        else:
            raise FrameError(f"frame kind {kind} is not expected")

    def ended(self, reason: str) -> None:
        self._stop_timer()
        self._server.lost(self)
        for task in self._calls:
            task.cancel()
        if self._reception is not None:
            self._reception.lost()
        host = self.remote.rpartition(":")[0]
        if self.hello is None:
            self._server.log_once(
                # Without its details: garbage differs each time.
                (host, reason.partition(":")[0]),
                "closed a connection from %s: %s",
                self.remote,
                reason,
            )
            return
        self._peers.disconnected(self, self.hello)
        if reason.startswith("malformed"):
            sender = self.hello.sender
            self._peers.metrics.peer_received_failures.labels(f"{sender:x}").inc()
            _LOG.warning("closed the connection of member %x: %s", sender, reason)
        else:
            _LOG.debug("the connection of member %x ended: %s", self.hello.sender, reason)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- the handshake ---------------------------------------------------------------------

    def _shake_hands(self, kind: int, fields: Sequence[Any]) -> None:
        if kind == Kind.ASK_CLUSTER:
            check_types(fields, str, int)
            if fields[0] != MAGIC:
                raise FrameError("a question of another protocol")
            self.write(cluster_frame(self._peers.cluster()))
            self._stop_timer()
            self.close("answered")
            return
        if kind != Kind.HELLO:
            raise FrameError(f"frame kind {kind} in place of a HELLO")
        hello = read_hello(fields)
        refusal = self._refusal(hello)
        if refusal:
            self._server.log_once(
                (hello, refusal),
                "refused member %x of cluster %x at %s: %s",
                hello.sender,
                hello.cluster_id,
                self.remote,
                refusal,
            )
            self.write(frame(Kind.REFUSED, refusal))
            self.close("refused")
            return
        self._stop_timer()
        self.hello = hello
        self._received_bytes = self._peers.metrics.peer_received_bytes.labels(f"{hello.sender:x}")
        if hello.purpose == Purpose.SNAPSHOT:
            self.trust(CHUNK_BYTES + HANDSHAKE_BYTES_MAX)
            self._reception = self._peers.receive_snapshot(self, hello)
        else:
            self.trust(FRAME_BYTES_MAX)
            self._peers.connected(self, hello)
        self.write(frame(Kind.WELCOME, self._peers.cluster_id, self._peers.member_id))

    def _refusal(self, hello: Hello) -> str:
        """Why this one may not come in; empty if it may."""
        if hello.version != VERSION:
            return f"version {hello.version} of the peer protocol is not version {VERSION}"
        if hello.purpose not in tuple(Purpose):
            return f"no connection serves the purpose {hello.purpose}"
        return self._peers.refusal(hello)

    # ---- what members say ------------------------------------------------------------------

    def _messages(self, hello: Hello, fields: Sequence[Any]) -> None:
        check_types(fields, list)
        messages: list[Message] = []
        for packed in fields[0]:
            message = from_wire(packed)
            if message.sender != hello.sender or message.to != self._peers.member_id:
                raise FrameError(
                    f"a message from {message.sender:x} to {message.to:x} in the name of "
                    f"member {hello.sender:x}"
                )
            messages.append(message)
        if messages:
            faults.point("peer.received")
            self._peers.local.on_messages(messages)

    def _call(self, number: int, method: str, payload: bytes) -> None:
        handler = self._peers.local.answers.get(method)
        if handler is None:
            self._fail(number, EtcdError(Code.UNIMPLEMENTED, f"unknown peer method {method!r}"))
        elif len(self._calls) >= CALLS_SERVED_MAX:
            self._fail(number, TOO_MANY_REQUESTS)
        else:
            task = asyncio.get_running_loop().create_task(self._serve(number, handler, payload))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _serve(self, number: int, handler: Handler, payload: bytes) -> None:
        try:
            self._answer(frame(Kind.ANSWER, number, await handler(payload)))
        except EtcdError as error:
            detach(error)
            self._fail(number, error)
        except Exception:
            _LOG.exception("a question of a peer could not be answered")
            self._fail(number, EtcdError(Code.INTERNAL, "etcdserver: internal error"))

    def _fail(self, number: int, error: EtcdError) -> None:
        self._answer(frame(Kind.FAILURE, number, int(error.code), error.message))

    def _answer(self, data: bytes) -> None:
        if self.unsent_bytes() > ANSWERS_UNREAD_BYTES_MAX:
            self.abort("it does not read its answers")
        else:
            self.write(data)
