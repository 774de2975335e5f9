"""A proxy between the members of a cluster: hurts the bytes of each link on purpose, and counts.

Every member advertises a port of the proxy instead of its own. Who dials is known by its first
frame (HELLO names the sender's peer URLs), so each directed link has rules of its own: the link
from A to B is every connection that A dialled to B. Members send Raft messages only on
connections that they dialled themselves, so swallowing what A says on them is a cut from A to B
alone; B still reaches A on its own ones. The rules for the answers on a link are separate.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final

from kvstore.node.peer_limits import HANDSHAKE_BYTES_MAX
from kvstore.node.wire import FrameError, FrameReader, Kind, read_hello, unpack

__all__ = ("CLEAN", "STRANGER", "Cut", "PeerProxy", "Rules")

STRANGER: Final = ""
"""As the source of a link: whoever has not said which member it is (it asks for the cluster)."""

_PIECE_BYTES: Final = 64 * 1024
_PIECES_UNDER_WAY_MAX: Final = 64
"""Pieces that a delay keeps; while there are more, nothing is read: as a pipe that is full."""
_RESET: Final = struct.pack("ii", 1, 0)


class Cut(Enum):
    """How a link is dead."""

    SWALLOW = "swallowed"
    """Bytes vanish and the connection stays. One with a hole in it is reset when that ends."""
    HOLD = "held"
    """Bytes stand still and arrive when that ends: messages from the past."""
    REFUSE = "refused"
    """Connections are reset, new ones too."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What happens to the bytes of one direction of a link. Chances are per piece, 0 to 1."""

    cut: Cut | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """The delay is longer or shorter by up to this much; the order stays."""
    bytes_per_s: float | None = None
    reset_chance: float = 0.0
    tear_chance: float = 0.0
    """Half of the piece is passed on, then the connection is reset: inside a frame."""
    flip_chance: float = 0.0
    """One bit of the piece is the other way round."""


CLEAN: Final = Rules()


class _Link:
    """All connections that one member dialled to another."""

    def __init__(self) -> None:
        self.forward = CLEAN
        self.answers = CLEAN
        self.changed = asyncio.Event()
        self.connections: set[_Connection] = set()

    def apply(self, forward: Rules, answers: Rules) -> None:
        self.forward, self.answers = forward, answers
        self.changed.set()
        self.changed = asyncio.Event()
        for connection in list(self.connections):
            refused = Cut.REFUSE in (forward.cut, answers.cut)
            mended = connection.holed and Cut.SWALLOW not in (forward.cut, answers.cut)
            if refused or mended:
                connection.reset()


class PeerProxy:
    """Listens for the members, in a thread of its own. Its methods may be called from any."""

    def __init__(self, chance: random.Random) -> None:
        self.fired: Counter[str] = Counter()
        """Every fault that really happened, by kind."""
        self.chance = chance
        self._links: dict[tuple[str, str], _Link] = {}
        self._names: dict[int, str] = {}
        """By the port that a member advertises."""
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()

    def add(self, name: str, port: int) -> int:
        """Listens for the member `name`, which listens on `port` itself; the port to advertise."""
        return asyncio.run_coroutine_threadsafe(self._add(name, port), self._loop).result(10)

    def set(self, source: str, target: str, rules: Rules, answers: Rules = CLEAN) -> None:
        """The rules of the link from `source` to `target` from now on."""
        self._call(lambda: self.link(source, target).apply(rules, answers))

    def heal(self) -> None:
        """No more faults; connections from which bytes were taken are reset."""
        self._call(lambda: [link.apply(CLEAN, CLEAN) for link in self._links.values()])

    @contextmanager
    def hurting(self) -> Iterator[None]:
        """Whatever rules are set in this context end with it."""
        try:
            yield
        finally:
            self.heal()

    def close(self) -> None:
        """Ends every connection, and the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> PeerProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- in the proxy's thread -------------------------------------------------------------

    def link(self, source: str, target: str) -> _Link:
        return self._links.setdefault((source, target), _Link())

    def _call(self, change: Callable[[], object]) -> None:
        async def run() -> None:
            change()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _add(self, name: str, port: int) -> int:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(_Connection(self, reader, writer).run(name, port))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        advertised: int = server.sockets[0].getsockname()[1]
        self._names[advertised] = name
        return advertised

    def source_of(self, peer_urls: tuple[str, ...]) -> str:
        """The member that advertises these URLs."""
        ports = [int(url.rpartition(":")[2]) for url in peer_urls]
        return next((self._names[port] for port in ports if port in self._names), STRANGER)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Connection:
    """One connection through the proxy."""

    def __init__(
        self, proxy: PeerProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.proxy = proxy
        self.holed = False
        """Bytes are missing from it."""
        self._reader = reader
        self._writers = [writer]
        self._task: asyncio.Task[None] | None = None

    async def run(self, target: str, port: int) -> None:
        """Until either side ends it, or a fault does."""
        self._task = asyncio.current_task()
        link = None
        tasks: list[asyncio.Task[None]] = []
        try:
            first, source = await self._introduction()
            link = self.proxy.link(source, target)
            link.connections.add(self)
            if Cut.REFUSE in (link.forward.cut, link.answers.cut):
                self.proxy.fired[Cut.REFUSE.value] += 1
                self.reset()
                return
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            self._writers.append(writer)
            there = _Way(self, link, self._reader, writer, forward=True)
            back = _Way(self, link, reader, self._writers[0], forward=False)
            tasks += map(asyncio.create_task, (there.read(first), there.write()))
            tasks += map(asyncio.create_task, (back.read(b""), back.write()))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass  # the member behind is down, or a fault ended it: the same for who dialled
        finally:
            if link is not None:
                link.connections.discard(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in self._writers:
                writer.close()

    def reset(self) -> None:
        """Ends both sides at once, as a router that has lost its memory."""
        for writer in self._writers:
            raw = writer.get_extra_info("socket")
            if raw is not None:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        assert self._task is not None
        self._task.cancel()

    async def _introduction(self) -> tuple[bytes, str]:
        """What came first, and which member it is from."""
        frames, first = FrameReader(HANDSHAKE_BYTES_MAX), b""
        while data := await self._reader.read(_PIECE_BYTES):
            first += data
            try:
                for packed in frames.feed(data):
                    kind, fields = unpack(packed)
                    if kind == Kind.HELLO:
                        return first, self.proxy.source_of(read_hello(fields).peer_urls)
                    return first, STRANGER
            except FrameError:
                return first, STRANGER
        raise ConnectionError("it has said nothing")


class _Way:
    """One direction of a connection: pieces are read, hurt, and written when they are due."""

    def __init__(
        self,
        connection: _Connection,
        link: _Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        forward: bool,
    ) -> None:
        self.forward = forward
        self._connection = connection
        self._link = link
        self._reader = reader
        self._writer = writer
        self._pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES_UNDER_WAY_MAX)
        self._due = 0.0

    async def read(self, first: bytes) -> None:
        """Returns once the source has ended, and everything before that is written."""
        data = first or await self._reader.read(_PIECE_BYTES)
        while data:
            rules = await self._rules()
            if rules.cut is Cut.SWALLOW:
                self._connection.holed = True
                self._count(Cut.SWALLOW.value)
            else:
                data, is_last = self._hurt(data, rules)
                await self._pieces.put((self._when(rules, len(data)), data))
                if is_last:
                    await self._pieces.join()
                    self._connection.reset()
                    return
            data = await self._reader.read(_PIECE_BYTES)
        await self._pieces.join()

    async def write(self) -> None:
        """Passes the pieces on, each at its time."""
        loop = asyncio.get_running_loop()
        while True:
            due, data = await self._pieces.get()
            if (left_s := due - loop.time()) > 0:
                await asyncio.sleep(left_s)
            self._writer.write(data)
            await self._writer.drain()
            self._pieces.task_done()

    async def _rules(self) -> Rules:
        """What holds now; while everything is to stand still, waits."""
        counted = False
        link = self._link
        while (rules := link.forward if self.forward else link.answers).cut is Cut.HOLD:
            if not counted:
                counted = True
                self._count(Cut.HOLD.value)
            await link.changed.wait()
        return rules

    def _when(self, rules: Rules, size_bytes: int) -> float:
        """When a piece that has come now is passed on; never before the one before it."""
        due = asyncio.get_running_loop().time()
        if rules.delay_s:
            self._count("delayed")
            due += rules.delay_s + self._chance.uniform(-rules.jitter_s, rules.jitter_s)
        self._due = max(self._due, due)
        if rules.bytes_per_s is not None:
            self._count("throttled")
            self._due += size_bytes / rules.bytes_per_s
        return self._due

    def _hurt(self, data: bytes, rules: Rules) -> tuple[bytes, bool]:
        """What is passed on of a piece, and whether the connection ends there."""
        chance = self._chance
        if chance.random() < rules.reset_chance:
            self._count("reset")
            return b"", True
        if chance.random() < rules.tear_chance:
            self._count("torn")
            return data[: len(data) // 2], True
        if chance.random() < rules.flip_chance:
            self._count("flipped")
            at = chance.randrange(len(data))
            flipped = data[at] ^ 1 << chance.randrange(8)
            return b"".join((data[:at], bytes((flipped,)), data[at + 1 :])), False
        return data, False

    @property
    def _chance(self) -> random.Random:
        return self._connection.proxy.chance

    def _count(self, kind: str) -> None:
        self._connection.proxy.fired[kind] += 1
