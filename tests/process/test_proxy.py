"""The proxy itself: each fault does to the bytes of a link what it says, and to no other link."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from kvstore.node.wire import VERSION, FrameError, FrameReader, Hello, Kind, frame, hello_frame
from tests.support.proxy import Cut, PeerProxy, Rules

pytestmark = pytest.mark.process

HELLO_AND = 1
"""Frames that arrive at the target before those of the test: the HELLO."""


class Target:
    """Stands for a member: keeps what it gets, one entry a connection, and can answer."""

    def __init__(self) -> None:
        self.got: list[bytearray] = []
        self.connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.got.append(bytearray())
            self.connections.append(connection)
            reader = threading.Thread(target=self._read, args=(connection, self.got[-1]))
            self._threads.append(reader)
            reader.start()

    def _read(self, connection: socket.socket, got: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                got += data

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join()


class Pair:
    """Members a and b behind a proxy; only b is there, and a dials."""

    def __init__(self) -> None:
        self.b = Target()
        self.proxy = PeerProxy(random.Random(1))
        self.url_a = f"http://127.0.0.1:{self.proxy.add('a', 1)}"
        self.port_b = self.proxy.add("b", self.b.port)

    def dial(self) -> socket.socket:
        """A connection of a to b, introduced."""
        before = len(self.b.got)
        line = socket.create_connection(("127.0.0.1", self.port_b), timeout=5)
        line.sendall(hello_frame(Hello(VERSION, 1, 1, 1, 2, (self.url_a,))))
        if self.proxy.link("a", "b").forward.cut is None:
            until(lambda: len(self.b.got) > before and self.b.got[-1])
        return line


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.proxy.close()
    pair.b.close()


def until(condition: object, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)


def frames(data: bytes) -> int:
    return len(list(FrameReader(1 << 20).feed(data)))


def ends(line: socket.socket) -> bool:
    """Whether the connection is reset or closed."""
    try:
        return line.recv(1) == b""
    except ConnectionResetError:
        return True


PING = frame(Kind.PING, 1)


def test_clean_links_pass_everything_both_ways(pair: Pair) -> None:
    with pair.dial() as line:
        line.sendall(PING * 1000)
        until(lambda: frames(pair.b.got[0]) == HELLO_AND + 1000)
        pair.b.connections[0].sendall(b"answer")
        assert line.recv(10) == b"answer"
    assert not pair.proxy.fired


def test_swallowed_bytes_vanish_in_one_direction_and_the_connection_stays(pair: Pair) -> None:
    with pair.dial() as line:
        with pair.proxy.hurting():
            pair.proxy.set("a", "b", Rules(cut=Cut.SWALLOW))
            line.sendall(PING)
            until(lambda: pair.proxy.fired["swallowed"] == 1)
            pair.b.connections[0].sendall(b"answer")
            assert line.recv(10) == b"answer"
            assert frames(pair.b.got[0]) == HELLO_AND
        assert ends(line), "a connection with a hole does not live on"
    with pair.dial() as line:
        line.sendall(PING)
        until(lambda: frames(pair.b.got[1]) == HELLO_AND + 1)


def test_answers_are_cut_alone(pair: Pair) -> None:
    with pair.dial() as line:
        pair.proxy.set("a", "b", Rules(), answers=Rules(cut=Cut.SWALLOW))
        pair.b.connections[0].sendall(b"answer")
        until(lambda: pair.proxy.fired["swallowed"] == 1)
        line.sendall(PING)
        until(lambda: frames(pair.b.got[0]) == HELLO_AND + 1)


def test_held_bytes_arrive_late(pair: Pair) -> None:
    with pair.dial() as line:
        with pair.proxy.hurting():
            pair.proxy.set("a", "b", Rules(cut=Cut.HOLD))
            line.sendall(PING)
            until(lambda: pair.proxy.fired["held"] == 1)
            assert frames(pair.b.got[0]) == HELLO_AND
        until(lambda: frames(pair.b.got[0]) == HELLO_AND + 1)


def test_a_refused_link_resets_what_is_there_and_what_comes(pair: Pair) -> None:
    with pair.dial() as line:
        pair.proxy.set("a", "b", Rules(cut=Cut.REFUSE))
        assert ends(line)
    with pair.dial() as line:
        assert ends(line)
    assert pair.proxy.fired["refused"] == 1
    assert len(pair.b.got) == 1


def test_only_the_named_link_is_hurt(pair: Pair) -> None:
    pair.proxy.set("b", "a", Rules(cut=Cut.REFUSE))
    pair.proxy.set("", "b", Rules(cut=Cut.REFUSE))
    with pair.dial() as line:
        line.sendall(PING)
        until(lambda: frames(pair.b.got[0]) == HELLO_AND + 1)
    with socket.create_connection(("127.0.0.1", pair.port_b), timeout=5) as line:
        line.sendall(frame(Kind.ASK_CLUSTER, "kvstore peer", VERSION))
        assert ends(line)


def test_delay_throttle_reset_tear_and_flip(pair: Pair) -> None:
    with pair.dial() as line:
        pair.proxy.set("a", "b", Rules(delay_s=0.2, jitter_s=0.05))
        began = time.monotonic()
        line.sendall(PING)
        until(lambda: frames(pair.b.got[0]) == HELLO_AND + 1)
        assert time.monotonic() - began >= 0.15
        pair.proxy.set("a", "b", Rules(bytes_per_s=10 * len(PING)))
        began = time.monotonic()
        line.sendall(PING * 2)
        until(lambda: frames(pair.b.got[0]) == HELLO_AND + 3)
        assert time.monotonic() - began >= 0.2
        pair.proxy.set("a", "b", Rules(flip_chance=1.0))
        line.sendall(PING)
        until(lambda: damaged(pair.b.got[0]))
        pair.proxy.set("a", "b", Rules(tear_chance=1.0))
        size = len(pair.b.got[0])
        line.sendall(PING)
        assert ends(line)
        until(lambda: len(pair.b.got[0]) == size + len(PING) // 2)
    pair.proxy.set("a", "b", Rules())
    with pair.dial() as line:
        pair.proxy.set("a", "b", Rules(reset_chance=1.0))
        line.sendall(PING)
        assert ends(line)
    assert set(pair.proxy.fired) == {"delayed", "throttled", "flipped", "torn", "reset"}


def damaged(data: bytes) -> bool:
    try:
        frames(data)
    except FrameError:
        return True
    return False
