"""Snapshot files between members: a connection of its own, checked pieces, one at a time.

The sender puts the InstallSnapshot message in front of the file. The receiver writes beside its
snapshots, and only when the whole file is there, synced, and read back by checksum does it give
it its name, hand message and path on, and say so to the sender. Whatever goes wrong before
leaves no file, and both sides log it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c

from kvstore import faults
from kvstore.node.peer_connection import Framed
from kvstore.node.peer_limits import (
    CHUNK_BYTES,
    CHUNKS_UNWRITTEN_BYTES_MAX,
    SNAPSHOT_IDLE_S,
    SNAPSHOT_STILL_BUSY_S,
)
from kvstore.node.peer_link import Dialer, Outgoing
from kvstore.node.threads import Worker
from kvstore.node.wire import FrameError, Hello, Kind, Purpose, check_types, frame
from kvstore.storage.disk import Disk
from kvstore.storage.errors import StorageError
from kvstore.storage.snapshot import SnapshotReceiver
from raft.messages import InstallSnapshot, from_wire, to_wire

__all__ = ("Depot", "Reception", "SnapshotRefusedError", "send_snapshot")

_LOG = logging.getLogger(__name__)


class SnapshotRefusedError(ConnectionError):
    """The receiver has not taken the snapshot, and said why."""


@dataclass(frozen=True, slots=True)
class Depot:
    """Where received snapshot files go, and who is told."""

    cluster_id: int
    member_id: int
    directory: Path
    disk: Disk
    worker: Worker
    """The thread that reads and writes snapshot files."""
    on_snapshot: Callable[[InstallSnapshot, Path], None]


# ---- sending ----------------------------------------------------------------------------------


class _Sending(Outgoing):
    def __init__(self) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[str] = loop.create_future()
        """Empty when the receiver has it all, else its complaint."""
        self.heard_at = loop.time()
        self._room = asyncio.Event()
        self._room.set()

    def answered(self, kind: int, fields: Sequence[Any]) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        if kind == Kind.RECEIVED:
            check_types(fields, bool, str)
            if not self.outcome.done():
                self.outcome.set_result("" if fields[0] else fields[1] or "refused")
        elif kind != Kind.BUSY:
            super().answered(kind, fields)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._room.clear()

    def drained(self) -> None:
        self._room.set()

    def ended(self, reason: str) -> None:
        super().ended(reason)
        self._room.set()
        if not self.outcome.done():
            self.outcome.set_result(f"the connection ended: {reason}")

    async def room(self) -> None:
        """Waits until the socket takes more; raises TimeoutError when it does not."""
        try:
            async with asyncio.timeout(SNAPSHOT_IDLE_S):
                await self._room.wait()
        except TimeoutError as error:
            raise TimeoutError("the receiver of the snapshot does not read on") from error

    async def verdict(self) -> str:
        """Waits for the outcome as long as the receiver shows that it is alive."""
        loop = asyncio.get_running_loop()
        self.heard_at = loop.time()
        while not self.outcome.done():
            left_s = self.heard_at + SNAPSHOT_IDLE_S - loop.time()
            if left_s <= 0:
                raise TimeoutError("the receiver of the snapshot has fallen silent")
            await asyncio.wait((self.outcome,), timeout=left_s)
        return self.outcome.result()


async def send_snapshot(
    dialer: Dialer, url: str, message: InstallSnapshot, path: Path, *, depot: Depot, rate: float
) -> None:
    """Streams a snapshot file to `message.to`, at no more than `rate` bytes per second.

    Returns once the receiver has it whole. Raises SnapshotRefusedError with its complaint,
    another OSError, TimeoutError, or StorageError when the file cannot be read.
    """
    loop = asyncio.get_running_loop()
    connection = _Sending()
    worker = depot.worker
    file = await worker.run(lambda: depot.disk.open(path))
    try:
        faults.point("transfer.before_send")
        await dialer.dial(url, message.to, Purpose.SNAPSHOT, connection)
        size_bytes = await worker.run(file.size)
        connection.write(frame(Kind.SNAPSHOT, to_wire(message), size_bytes))
        started, sent_bytes = loop.time(), 0
        while sent_bytes < size_bytes and not connection.outcome.done():
            piece = await worker.run(partial(file.read_at, sent_bytes, CHUNK_BYTES))
            if not piece:
                raise OSError(f"{path} has become shorter while it was sent")
            connection.write(frame(Kind.CHUNK, google_crc32c.value(piece), piece))
            sent_bytes += len(piece)
            faults.point("transfer.chunk_sent")
            await connection.room()
            ahead_s = started + sent_bytes / rate - loop.time()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
        complaint = await connection.verdict()
        if complaint:
            raise SnapshotRefusedError(complaint)
        faults.point("transfer.sent")
    finally:
        connection.abort("the snapshot transfer is over")
        await worker.run(file.close)


# ---- receiving --------------------------------------------------------------------------------


class Reception:
    """One snapshot coming in."""

    def __init__(
        self, connection: Framed, hello: Hello, depot: Depot, before: Reception | None
    ) -> None:
        """`before`: an earlier one of the same sender, which has to clean up first."""
        self.sender = hello.sender
        self._connection = connection
        self._depot = depot
        self._message: InstallSnapshot | None = None
        self._missing_bytes = 0
        self._pieces: deque[bytes] = deque()
        self._unwritten_bytes = 0
        self._arrived = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._receive(before))

    def lost(self) -> None:
        """The connection is gone."""
        self.task.cancel()

    def received(self, kind: int, fields: Sequence[Any]) -> None:
        """A frame of the sender; raises FrameError or WireError."""
        if self._message is None:
            self._begin(kind, fields)
        elif kind == Kind.CHUNK:
            check_types(fields, int, bytes)
            self._take(*fields)
        else:
            raise FrameError(f"frame kind {kind} in place of a piece of the snapshot")
        self._arrived.set()

    def _begin(self, kind: int, fields: Sequence[Any]) -> None:
        if kind != Kind.SNAPSHOT:
            raise FrameError(f"frame kind {kind} in place of a snapshot")
        check_types(fields, list, int)
        message = from_wire(fields[0])
        if not isinstance(message, InstallSnapshot):
            raise FrameError("a message in front of a snapshot that does not announce it")
        if message.sender != self.sender or message.to != self._depot.member_id:
            raise FrameError(f"a snapshot from {message.sender:x} to {message.to:x}")
        if fields[1] <= 0:
            raise FrameError(f"a snapshot of {fields[1]} bytes")
        self._message, self._missing_bytes = message, fields[1]
        _LOG.info(
            "receiving the snapshot of index %d from %x, %d bytes",
            message.meta.index,
            self.sender,
            self._missing_bytes,
        )

    def _take(self, checksum: int, piece: bytes) -> None:
        if google_crc32c.value(piece) != checksum:
            self.give_up("a piece of it came with a wrong checksum")
            return
        if not 0 < len(piece) <= self._missing_bytes:
            raise FrameError("a snapshot longer than announced")
        self._missing_bytes -= len(piece)
        self._pieces.append(piece)
        self._unwritten_bytes += len(piece)
        if self._unwritten_bytes > CHUNKS_UNWRITTEN_BYTES_MAX:
            self._connection.pause_receiving(True)

    def give_up(self, text: str) -> None:
        """Ends the transfer with a complaint to the sender."""
        _LOG.warning("the snapshot from %x was not taken: %s", self.sender, text)
        self._connection.write(frame(Kind.RECEIVED, False, text))
        self._connection.close("the snapshot transfer is over")
        self.task.cancel()

    async def _receive(self, before: Reception | None) -> None:
        if before is not None:
            await asyncio.wait((before.task,))
        try:
            message = await self._announced()
            faults.point("transfer.announced")
            path = await self._write(message)
            faults.point("transfer.received")
        except (StorageError, OSError, TimeoutError) as error:
            self.give_up(str(error) or "the sender has fallen silent")
            return
        try:
            self._depot.on_snapshot(message, path)
            self._connection.write(frame(Kind.RECEIVED, True, ""))
        finally:
            self._connection.close("the snapshot transfer is over")

    async def _announced(self) -> InstallSnapshot:
        while self._message is None:
            await self._next()
        return self._message

    async def _next(self) -> None:
        async with asyncio.timeout(SNAPSHOT_IDLE_S):
            await self._arrived.wait()
        self._arrived.clear()

    async def _write(self, message: InstallSnapshot) -> Path:
        """Writes and checks the file; returns where it is."""
        depot, meta = self._depot, message.meta
        worker = depot.worker
        opened: list[SnapshotReceiver] = []
        try:
            await worker.run(
                lambda: opened.append(
                    SnapshotReceiver(depot.disk, depot.directory, index=meta.index, term=meta.term)
                )
            )
            receiver = opened[0]
            await self._write_pieces(receiver)
            still_busy = asyncio.get_running_loop().create_task(self._say_busy())
            try:
                path, header = await worker.run(receiver.finish)
            finally:
                still_busy.cancel()
        finally:
            # Removes what is unfinished. The worker is one thread, so this comes behind the job
            # under way, even behind the one that opens the file.
            await worker.run(partial(_remove_unfinished, opened))
        if header.cluster_id != depot.cluster_id or header.conf != meta.conf:
            await worker.run(lambda: depot.disk.unlink(path))
            raise OSError("the file is not the snapshot that was announced")
        return path

    async def _write_pieces(self, receiver: SnapshotReceiver) -> None:
        while self._pieces or self._missing_bytes:
            if not self._pieces:
                await self._next()
                continue
            data = b"".join(self._pieces)
            self._pieces.clear()
            await self._depot.worker.run(partial(receiver.write, data))
            self._unwritten_bytes -= len(data)
            faults.point("transfer.chunk_received")
            self._connection.pause_receiving(self._unwritten_bytes > CHUNKS_UNWRITTEN_BYTES_MAX)

    async def _say_busy(self) -> None:
        while True:
            await asyncio.sleep(SNAPSHOT_STILL_BUSY_S)
            self._connection.write(frame(Kind.BUSY))


def _remove_unfinished(opened: Sequence[SnapshotReceiver]) -> None:
    for receiver in opened:
        receiver.__exit__(None, None, None)
