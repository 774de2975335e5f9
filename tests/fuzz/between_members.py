"""Targets: what other members say, on the peer port and in answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import google_crc32c
import msgpack

from kvstore.errors import EtcdError
from kvstore.machine import Member
from kvstore.metrics import Metrics
from kvstore.node import remote, wire
from kvstore.node.config import NodeConfig
from kvstore.node.peer_connection import Address, AddressError
from kvstore.node.peer_limits import HANDSHAKE_BYTES_MAX
from kvstore.node.peer_link import Outgoing
from kvstore.node.peer_server import Inbound, PeerServer
from kvstore.node.peers import Peers, TcpNetwork
from kvstore.node.snapshot_transfer import Depot
from kvstore.node.threads import ThreadWorker
from kvstore.node.transport import Cluster, LocalMember
from kvstore.node.wire import FrameError, FrameReader, Hello, Kind, Purpose
from kvstore.storage.disk import OsDisk
from kvstore.storage.snapshot import SnapshotHeader, SnapshotWriter
from kvstore.storage.store import EngineInfo
from raft import messages
from raft.errors import WireError
from raft.messages import from_wire, to_wire
from raft.types import ConfState, Entry, EntryKind, SnapshotMeta
from tests.fuzz.on_disk import MSGPACK_WORDS
from tests.fuzz.registry import Feed, Refused, Target, plain
from tests.fuzz.sockets import FakeSocket, settle

__all__ = ("TARGETS",)

_CLUSTER, _OWN, _PEER = 0xC1, 1, 2
_META = SnapshotMeta(9, 2, ConfState((1, 2), (3,)))
_ENTRIES = [Entry(5, 2, EntryKind.NORMAL, b"data"), Entry(6, 3, EntryKind.CONF_CHANGE, b"")]
MESSAGES: tuple[messages.Message, ...] = (
    messages.RequestPreVote(_PEER, _OWN, 4, 8, 3),
    messages.PreVoteReply(_PEER, _OWN, 4, True),
    messages.RequestVote(_PEER, _OWN, 4, 8, 3, False),
    messages.VoteReply(_PEER, _OWN, 4, True),
    messages.Append(_PEER, _OWN, 4, 4, 2, 4, _ENTRIES),
    messages.AppendReply(_PEER, _OWN, 4, 6, True, 3, 2),
    messages.CommitNotice(_PEER, _OWN, 4, 3),
    messages.Heartbeat(_PEER, _OWN, 4, 3, 17),
    messages.HeartbeatReply(_PEER, _OWN, 4, 17, 3),
    messages.InstallSnapshot(_PEER, _OWN, 4, _META),
    messages.ForwardProposal(_PEER, _OWN, 4, 7, 8, [b"one", b"two"]),
    messages.ForwardConfChange(_PEER, _OWN, 4, 7, 8, b"change"),
    messages.ForwardRead(_PEER, _OWN, 4, [1, 2**64 - 1]),
    messages.ReadReply(_PEER, _OWN, 4, 6, [1, 2]),
    messages.TimeoutNow(_PEER, _OWN, 4),
)
"""One of each kind."""


def _unpacked(data: bytes) -> Any:
    """What stands in a frame, or a refusal: this is not what is under test."""
    try:
        return msgpack.unpackb(data)
    except (ValueError, TypeError) as error:
        raise Refused("not msgpack") from error


def _mend_list(data: bytes) -> bytes:
    """As much of the bytes as is msgpack, as one list: so that the fields are looked at."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=1 << 20)
    unpacker.feed(data)
    fields: list[Any] = []
    try:
        for _ in range(min(unpacker.read_array_header(), 20)):
            fields.append(unpacker.unpack())  # noqa: PERF401 - what came before an error counts
    except (ValueError, TypeError, msgpack.OutOfData):
        pass
    try:
        packed: bytes = msgpack.packb(fields)
    except (ValueError, TypeError, OverflowError):
        return data
    return packed


def _feed_raft_message(data: bytes) -> None:
    message = from_wire(_unpacked(data))
    packed = msgpack.packb(to_wire(message))
    assert from_wire(msgpack.unpackb(packed)) == message


def _feed_frames(data: bytes) -> None:
    """However the bytes are torn, the same frames come out of them, or the same refusal."""
    whole = _frames_of([data])
    step = len(data) // 2000 + 1
    assert _frames_of([data[at : at + step] for at in range(0, len(data), step)]) == whole
    if isinstance(whole[-1], str):
        raise FrameError(whole[-1])


def _frames_of(pieces: Sequence[bytes]) -> list[object]:
    reader, found = FrameReader(HANDSHAKE_BYTES_MAX), list[object]()
    try:
        for piece in pieces:
            for packed in reader.feed(piece):
                found.append(wire.unpack(packed))
    except FrameError as error:
        return [*found, str(error)]
    return [*found, None]


def _body(framed: bytes) -> bytes:
    """What is in a frame."""
    (packed,) = wire.FrameReader(len(framed)).feed(framed)
    return packed


def _feed_hello(data: bytes) -> None:
    kind, fields = wire.unpack(data)
    if kind == Kind.HELLO:
        hello = wire.read_hello(fields)
        if hello.version == wire.VERSION:
            assert wire.read_hello(wire.unpack(_body(wire.hello_frame(hello)))[1]) == hello
    elif kind == Kind.CLUSTER:
        cluster = wire.read_cluster(fields)
        assert wire.read_cluster(wire.unpack(_body(wire.cluster_frame(cluster)))[1]) == cluster
    else:
        raise Refused("another kind")


def _hello(purpose: int = Purpose.PEER) -> bytes:
    urls = ("http://127.0.0.1:1",)
    return wire.hello_frame(Hello(wire.VERSION, purpose, _CLUSTER, _PEER, _OWN, urls))


def _cluster() -> bytes:
    member = Member(_OWN, "one", ("http://a:2380",), ("http://a:2379",), False)
    return wire.cluster_frame(Cluster(_CLUSTER, (member,)))


# ---- the peer port ------------------------------------------------------------------------------


async def _echo(payload: bytes) -> bytes:
    return payload


def _local_member(directory: Path) -> LocalMember:
    config = NodeConfig(
        name="one",
        data_dir=directory,
        listen_peer_urls=("http://127.0.0.1:0",),
        advertise_peer_urls=("http://127.0.0.1:1",),
        advertise_client_urls=(),
        initial_cluster={},
        unsafe_no_fsync=True,
    )
    return LocalMember(
        cluster_id=_CLUSTER,
        member_id=_OWN,
        config=config,
        metrics=Metrics(),
        snapshot_dir=directory / "snap",
        on_messages=lambda _messages: None,
        on_unreachable=lambda _peer: None,
        on_snapshot=lambda _message, path: path.unlink(),
        answers={"echo": _echo},
        cluster=lambda: Cluster(_CLUSTER, ()),
        removed=lambda _member: False,
    )


class _NoDialer:
    """Nobody can be reached: what is under test is who comes in."""

    async def dial(self, *_arguments: object) -> None:
        raise ConnectionRefusedError("nobody is there")


class _Port:
    """What inputs are fed to, one connection each."""

    alike = True
    """However an input is torn, its outcome is the same."""

    def __init__(self, _directory: Path) -> None:
        """Called on the loop."""

    def connect(self) -> Any:
        return _Answers()

    async def rest(self) -> None:
        """Waits for what the input has set going."""
        await settle()

    def refusal(self, sock: FakeSocket) -> str:
        """Why the input was refused; empty if it was not."""
        return "cut" if sock.aborted else ""

    async def close(self) -> None:
        """The campaign is over."""


class _PeerPort(_Port):
    def __init__(self, directory: Path) -> None:
        snapshots = directory / "snap"
        snapshots.mkdir()
        local = _local_member(directory)
        self._peers = peers = Peers(local, TcpNetwork())
        peers._dialer = _NoDialer()  # type: ignore[assignment]
        peers.update([Member(_PEER, "two", ("http://127.0.0.1:1",), (), False)])
        self._worker = ThreadWorker("fuzz-snapshots")
        peers._depot = Depot(
            _CLUSTER, _OWN, snapshots, OsDisk(sync=False), self._worker, local.on_snapshot
        )
        self._server = PeerServer(peers)
        self._directory = snapshots

    def connect(self) -> Any:
        return Inbound(self._server, self._peers)

    async def rest(self) -> None:
        reception = self._peers._reception
        if reception is not None:
            if reception._message is None or reception._missing_bytes:
                reception.lost()
            with contextlib.suppress(asyncio.CancelledError):
                await reception.task
            # The thread takes its jobs in order: behind this one, everything is cleaned up.
            await self._worker.run(lambda: None)
            assert not list(self._directory.iterdir()), "a file is left"
        await settle()

    async def close(self) -> None:
        await self._peers.stop()


class _SnapshotPort(_PeerPort):
    alike = False  # what comes behind the file finds a thread at work, or its work done

    def refusal(self, sock: FakeSocket) -> str:
        return "" if sock.written.endswith(wire.frame(Kind.RECEIVED, True, "")) else "not taken"


@contextmanager
def _on_loop(make: Callable[[Path], _Port]) -> Iterator[Feed]:
    """A connection for each input, which comes whole, and again in pieces."""
    with TemporaryDirectory() as directory, asyncio.Runner() as runner:

        async def start() -> _Port:
            return make(Path(directory))

        port = runner.run(start())

        async def once(pieces: list[bytes]) -> str:
            sock = FakeSocket(port.connect())
            for piece in pieces:
                sock.feed(piece)
                await asyncio.sleep(0)
            await port.rest()
            refusal = port.refusal(sock)
            sock.lose()
            await settle()
            return refusal

        def feed(data: bytes) -> None:
            refusal = runner.run(once([data]))
            step = len(data) // 500 + 1
            torn = [data[at : at + step] for at in range(0, len(data), step)]
            again = runner.run(once(torn))
            assert again == refusal or not port.alike
            if refusal:
                raise Refused(refusal)

        try:
            yield feed
        finally:
            runner.run(port.close())


class _Answers(Outgoing):
    """The dialling side of a peer connection, which any server may answer."""

    def answered(self, kind: int, fields: Sequence[Any]) -> None:
        if kind == Kind.PONG:
            wire.check_types(fields, int)
        else:
            super().answered(kind, fields)

    def ended(self, reason: str) -> None:
        super().ended(reason)
        if self.welcome.done() and not self.welcome.cancelled():
            self.welcome.exception()


def _calls() -> list[bytes]:
    messages_frame = wire.frame(Kind.MESSAGES, [to_wire(each) for each in MESSAGES])
    return [
        _hello(),
        _hello() + messages_frame,
        _hello() + wire.frame(Kind.CALL, 1, "echo", b"x") + wire.frame(Kind.PING, 7),
        _hello() + wire.frame(Kind.CALL, 1, "none", b"x"),
        wire.frame(Kind.ASK_CLUSTER, wire.MAGIC, wire.VERSION),
    ]


# ---- snapshots on the way -----------------------------------------------------------------------


def _transfer() -> bytes:
    """Everything that a sender of a snapshot says."""
    with TemporaryDirectory() as directory:
        header = SnapshotHeader(
            _META.index, _META.term, _META.conf, _CLUSTER, EngineInfo("lmdb", "0.9", 4096)
        )
        with SnapshotWriter(OsDisk(sync=False), Path(directory), header) as writer:
            writer.write(bytes(1000))
            content = writer.finish().read_bytes()
    chunks = [content[at : at + 400] for at in range(0, len(content), 400)]
    announced = to_wire(messages.InstallSnapshot(_PEER, _OWN, 4, _META))
    return b"".join(
        (
            _hello(Purpose.SNAPSHOT),
            wire.frame(Kind.SNAPSHOT, announced, len(content)),
            *(wire.frame(Kind.CHUNK, google_crc32c.value(each), each) for each in chunks),
        )
    )


# ---- answers of the leader ----------------------------------------------------------------------


async def _renew(question: Any) -> Any:
    return remote.integers_of(question)


async def _times(question: Any) -> Any:
    return list(remote.integer_and_flag_of(question))


async def _hash(question: Any) -> Any:
    return remote.integer_of(question)


def _feed_question(data: bytes) -> None:
    """A question of a peer, to handlers that read it as the node's do; each wants another kind."""
    refusals = []
    for handler in (_renew, _times, _hash):
        answer = _run(remote.answer_call(handler, data))
        try:
            remote.read_answer(answer)
        except EtcdError as error:
            refusals.append(error)
    if len(refusals) == 3:
        raise refusals[0]


def _feed_answer(data: bytes) -> None:
    remote.read_answer(data)


def _run(coroutine: Any) -> Any:
    """A coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def _feed_peer_url(data: bytes) -> None:
    Address.of(data.decode("utf-8", "replace"))


_FRAME_WORDS = (
    *MSGPACK_WORDS,
    *(wire.frame(kind) for kind in Kind),
    b"\xacecho",
    b"\xffff\xff",
    wire.MAGIC.encode(),
)

TARGETS = (
    Target(
        "raft message",
        plain(_feed_raft_message),
        (WireError, Refused),
        lambda: [msgpack.packb(to_wire(each)) for each in MESSAGES],
        MSGPACK_WORDS,
        memory_mib=8,
        mend=_mend_list,
    ),
    Target(
        "peer frames",
        plain(_feed_frames),
        (FrameError,),
        lambda: [*_calls(), _cluster()],
        _FRAME_WORDS,
        memory_mib=8,
        cost=4,
    ),
    Target(
        "peer hello",
        plain(_feed_hello),
        (FrameError, Refused),
        lambda: [_body(_hello()), _body(_cluster())],
        MSGPACK_WORDS,
        mend=_mend_list,
    ),
    Target(
        "peer port",
        lambda: _on_loop(_PeerPort),
        (Refused,),
        _calls,
        _FRAME_WORDS,
        cost=20,
    ),
    Target(
        "peer answers",
        lambda: _on_loop(_Port),
        (Refused,),
        lambda: [
            wire.frame(Kind.WELCOME, _CLUSTER, _OWN) + wire.frame(Kind.PONG, 3),
            wire.frame(Kind.REFUSED, "no"),
        ],
        _FRAME_WORDS,
        cost=10,
    ),
    Target(
        "snapshot transfer",
        lambda: _on_loop(_SnapshotPort),
        (Refused,),
        lambda: [_transfer()],
        _FRAME_WORDS,
        cost=40,
    ),
    Target(
        "peer question",
        plain(_feed_question),
        (EtcdError,),
        lambda: [msgpack.packb(each) for each in ([1, 2**63 - 1], [], [7, True], [7, False])],
        MSGPACK_WORDS,
        mend=_mend_list,
    ),
    Target(
        "peer answer",
        plain(_feed_answer),
        (EtcdError,),
        lambda: [msgpack.packb(each) for each in ([True, [1, 2]], [True, None], [False, 14, "no"])],
        MSGPACK_WORDS,
        label=lambda error: error.code.name if isinstance(error, EtcdError) else "?",
        mend=_mend_list,
    ),
    Target(
        "peer URL",
        plain(_feed_peer_url),
        (AddressError,),
        lambda: [b"http://10.0.0.1:2380", b"https://[::1]:1", b"http://host"],
        (b"http://", b":", b"[", b"]", b"@", b"/", b"%25", "é".encode(), b"65536", b"\0"),
    ),
)
