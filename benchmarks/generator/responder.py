"""A server that answers every call with the same bytes at once: the generator's ceiling.

What a loop reaches against it is the most that the generator could ever show of a real server.
"""

from __future__ import annotations

import select
import socket
import struct

from benchmarks.generator.requests import framed
from kvstore.api.http2 import frames
from kvstore.api.http2.headers import encode

__all__ = ("Responder",)

_HEAD = struct.Struct(">BHBBL")
_WINDOW = 2**30


def _answer(message: bytes, status: bytes) -> tuple[bytes, ...]:
    """An answer's pieces, to be joined by the stream's four bytes."""
    head = encode(((b":status", b"200"), (b"content-type", b"application/grpc")))
    tail = encode(((b"grpc-status", status), (b"grpc-message", b"")))
    body = framed(message)

    def start(length: int, kind: int, flags: int) -> bytes:
        return length.to_bytes(3, "big") + bytes((kind, flags))

    return (
        start(len(head), frames.HEADERS, frames.END_HEADERS),
        head + start(len(body), frames.DATA, 0),
        body + start(len(tail), frames.HEADERS, frames.END_HEADERS | frames.END_STREAM),
        tail,
    )


class Responder:
    """Listens on a free port of loopback; `serve` runs until `stop` is set."""

    def __init__(self, message: bytes = bytes(40), status: bytes = b"0") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.calls = 0
        self._pieces = _answer(message, status)
        self._rests: dict[socket.socket, bytes] = {}
        self._stopped = False

    def stop(self) -> None:
        """Ends `serve` soon; from any thread."""
        self._stopped = True

    def serve(self) -> None:
        poll = select.epoll()
        poll.register(self._listener, select.EPOLLIN)
        by_file: dict[int, socket.socket] = {}
        try:
            while not self._stopped:
                for file, _ in poll.poll(0.1):
                    if file == self._listener.fileno():
                        one, _ = self._listener.accept()
                        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        one.sendall(
                            frames.settings([(frames.Setting.INITIAL_WINDOW_SIZE, _WINDOW)])
                            + frames.window_update(0, _WINDOW)
                        )
                        by_file[one.fileno()] = one
                        self._rests[one] = b"?"
                        poll.register(one, select.EPOLLIN)
                    elif not self._answer(by_file[file]):
                        poll.unregister(file)
                        by_file.pop(file).close()
        finally:
            poll.close()
            for one in (*by_file.values(), self._listener):
                one.close()

    def _answer(self, one: socket.socket) -> bool:
        """Reads once and answers the requests that are complete; False when the client is gone."""
        try:
            data = one.recv(256 * 1024)
        except OSError:
            return False
        if not data:
            return False
        rest = self._rests[one]
        if rest == b"?":
            # The preface arrives in one piece on loopback: the generator sends it in one.
            data = data[len(frames.PREFACE) :]
        elif rest:
            data = rest + data
        out: list[bytes] = []
        pieces, unpack = self._pieces, _HEAD.unpack_from
        position, end, taken = 0, len(data), 0
        while end - position >= 9:
            high, low, kind, flags, stream = unpack(data, position)
            stop = position + 9 + (high << 16 | low)
            if stop > end:
                break
            position = stop
            if kind == frames.DATA:
                taken += high << 16 | low
                if flags & frames.END_STREAM:
                    out.append(stream.to_bytes(4, "big").join(pieces))
        self._rests[one] = data[position:]
        self.calls += len(out)
        if taken:
            out.append(frames.window_update(0, taken))
        try:
            one.setblocking(True)
            one.sendall(b"".join(out))
        except OSError:
            return False
        return True


def main() -> None:
    responder = Responder()
    print(responder.port, flush=True)
    try:
        responder.serve()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
