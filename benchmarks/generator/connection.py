"""One HTTP/2 connection of the generator: many calls under way, none of them waited for."""

from __future__ import annotations

import socket
import struct
from array import array
from collections import Counter
from collections.abc import Callable
from time import perf_counter

from benchmarks.generator.requests import Request
from kvstore.api.http2 import frames
from kvstore.api.http2.flow import DEFAULT_WINDOW
from kvstore.api.http2.frames import Setting
from kvstore.api.http2.headers import Field, HeaderDecoder

__all__ = ("Connection", "LostError")

RECEIVE_WINDOW = 64 * 1024 * 1024
"""Of the connection; what was read is given back at half of it."""
STREAM_WINDOW = 2**31 - 1
READ_BYTES = 256 * 1024
OK = "ok"
NOT_YET = "no status"

_HEAD = struct.Struct(">BHBBL")


class LostError(Exception):
    """The server has closed the connection, or has broken a rule of HTTP/2."""


def _meaning(fields: tuple[Field, ...] | None) -> str:
    """OK or the failure in a header list; NOT_YET for mere response headers."""
    found = {name: value.decode(errors="replace") for name, value in fields or ()}
    status = found.get(b"grpc-status")
    if status is not None:
        return OK if status == "0" else f"grpc-status {status}: {found.get(b'grpc-message', '')}"
    http = found.get(b":status")
    return NOT_YET if http == "200" else f"HTTP status {http}"


class Connection:
    """`submit` puts calls out as windows allow, `receive` takes what has come.

    `on_data(stream, payload)` sees every DATA frame where a job has use for it.
    """

    __slots__ = (
        "_backlog", "_decoder", "_given_back", "_held", "_initial_window", "_next_stream",
        "_out", "_rest", "_send_window", "done", "failures", "latencies", "most_streams",
        "on_data", "pending", "received_bytes", "sent", "socket", "was_blocked", "writes",
    )  # fmt: skip

    def __init__(self, port: int, on_data: Callable[[int, bytes], None] | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            frames.PREFACE
            + frames.settings(
                [(Setting.ENABLE_PUSH, 0), (Setting.INITIAL_WINDOW_SIZE, STREAM_WINDOW)]
            )
            + frames.window_update(0, RECEIVE_WINDOW - DEFAULT_WINDOW)
        )
        self.socket.setblocking(False)
        self.on_data = on_data
        self.pending: dict[int, float] = {}
        """When each open call was sent, by stream."""
        self.latencies = array("d")
        self.failures: Counter[str] = Counter()
        self.done = self.sent = self.writes = self.received_bytes = 0
        self.most_streams = 2**31
        self.was_blocked = False
        """For the loop that polls: what it last knew of `blocked`."""
        self._decoder = HeaderDecoder(_meaning, 1 << 20)
        self._next_stream = 1
        self._send_window = self._initial_window = DEFAULT_WINDOW
        self._given_back = 0
        self._rest = b""
        self._backlog = b""
        self._out: list[bytes] = []
        self._held: Request | None = None

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    @property
    def blocked(self) -> bool:
        """The socket has not taken everything: `flush` again when it is writable."""
        return bool(self._backlog)

    def submit(self, count: int, take: Callable[[], Request | None]) -> int:
        """Sends up to `count` calls, as many as the windows allow; how many it sent."""
        out, pending = self._out, self.pending
        stream = self._next_stream
        window = self._send_window
        now = perf_counter()
        writes = sent = 0
        count = min(count, self.most_streams - len(pending))
        while sent < count:
            request = self._held or take()
            if request is None:
                break
            pieces, size, revisions = request
            if size > window:
                assert size <= self._initial_window, "a request larger than a stream's window"
                self._held = request
                break
            self._held = None
            window -= size
            out.append(stream.to_bytes(4, "big").join(pieces))
            pending[stream] = now
            stream += 2
            sent += 1
            writes += revisions
        self._next_stream = stream
        self._send_window = window
        self.sent += sent
        self.writes += writes
        if out:
            self.flush()
        return sent

    def open_stream(self, request: Request) -> int:
        """Sends a first message on a stream that stays open; the stream's number."""
        stream = self._next_stream
        self._next_stream += 2
        self.say(stream.to_bytes(4, "big").join(request[0]), request[1])
        self.pending[stream] = perf_counter()
        return stream

    def say(self, frame_bytes: bytes, size: int) -> None:
        """Queues frames with `size` bytes of DATA; `flush` sends them."""
        assert size <= self._send_window, "more than the connection's window"
        self._send_window -= size
        self._out.append(frame_bytes)

    def flush(self) -> None:
        """Writes what is queued, as far as the socket takes it."""
        data = b"".join((self._backlog, *self._out)) if self._backlog else b"".join(self._out)
        self._out.clear()
        try:
            count = self.socket.send(data) if data else 0
        except BlockingIOError:
            count = 0
        self._backlog = data[count:]

    def receive(self) -> int:
        """Reads once; how many calls have ended. Raises LostError."""
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LostError(str(error)) from error
        if not data:
            raise LostError("closed by the server")
        now = perf_counter()
        if self._rest:
            data = self._rest + data
        pending, latencies = self.pending, self.latencies
        unpack, read_block, on_data = _HEAD.unpack_from, self._decoder.read, self.on_data
        position, end = 0, len(data)
        received = done = 0
        while end - position >= 9:
            high, low, kind, flags, stream = unpack(data, position)
            start = position + 9
            stop = start + (high << 16 | low)
            if stop > end:
                break
            position = stop
            if kind == 0:
                received += stop - start
                if on_data is not None:
                    on_data(stream, data[start:stop])
                if flags & 1:
                    self._ended(stream, "no trailers")
                    done += 1
            elif kind == 1 and flags & 0x2C == 4:
                status = read_block(data[start:stop])
                if flags & 1:
                    done += 1
                    if status == OK and stream in pending:
                        latencies.append(now - pending.pop(stream))
                    else:
                        self._ended(stream, status)
                elif status != NOT_YET:
                    self.failures[status] += 1
            else:
                done += self._rare(kind, flags, stream, data[start:stop])
        self._rest = data[position:]
        self.done += done
        self.received_bytes += received
        self._given_back += received
        if self._given_back > RECEIVE_WINDOW // 2:
            self._out.append(frames.window_update(0, self._given_back))
            self._given_back = 0
        if self._out:
            self.flush()
        return done

    def _ended(self, stream: int, why: str) -> None:
        """A call that has not ended well."""
        self.failures[why if self.pending.pop(stream, None) else f"{why}, stream not open"] += 1

    def _rare(self, kind: int, flags: int, stream: int, payload: bytes) -> int:
        """Everything that is no part of a usual answer; how many calls it ended."""
        if kind == frames.PING:
            if not flags & frames.ACK:
                self._out.append(frames.ping(payload, ack=True))
        elif kind == frames.WINDOW_UPDATE:
            # A stream's own window never runs out: no request is larger than a fresh one.
            if stream == 0:
                self._send_window += int.from_bytes(payload, "big")
        elif kind == frames.SETTINGS:
            if not flags & frames.ACK:
                for name, value in frames.parse_settings(payload):
                    if name == Setting.INITIAL_WINDOW_SIZE:
                        self._initial_window = value
                    elif name == Setting.MAX_CONCURRENT_STREAMS:
                        self.most_streams = value
                self._out.append(frames.SETTINGS_ACK)
        elif kind == frames.RST_STREAM:
            # After trailers it only says that our half is of no interest any more.
            if stream in self.pending:
                self._ended(stream, f"reset with code {int.from_bytes(payload, 'big')}")
                return 1
        elif kind == frames.GOAWAY:
            raise LostError(f"GOAWAY {payload[8:].decode(errors='replace')}")
        else:
            raise LostError(f"frame of type {kind} with flags {flags:#x} is not expected")
        return 0
