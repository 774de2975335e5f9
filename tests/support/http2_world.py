"""A connection of the HTTP/2 server whose socket is the test; what must hold is asserted inside."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from kvstore.api.call import MethodTable
from kvstore.api.http2 import frames, limits
from kvstore.api.http2.connection import Connection
from kvstore.api.http2.deadlines import Deadlines
from kvstore.api.http2.dispatch import Dispatcher
from kvstore.api.http2.frames import FrameSplitter
from tests.unit.api.http2.server import Methods

__all__ = ("World", "cut")

MAX_MESSAGE = 2000


class World:
    """A connection whose socket is the test."""

    def __init__(self, methods: Methods | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.methods = methods or Methods()
        self.table: MethodTable = self.methods.build()
        dispatcher = Dispatcher(self.table, MAX_MESSAGE, Deadlines(loop.time, loop.call_later))
        self.connection = Connection(dispatcher, "test", clock=lambda: 0.0, on_output=lambda: None)
        self.sent = FrameSplitter()
        self.goaways = 0

    async def feed(self, data: bytes) -> None:
        connection = self.connection
        connection.feed(data)
        await asyncio.sleep(0)
        for _ in range(3):
            connection.pump()
            written = b"".join(connection.out)
            connection.taken()
            for kind, _, _, payload in self.sent.feed(written):
                assert not self.goaways, "nothing may follow a GOAWAY"
                assert len(payload) <= frames.MAX_FRAME
                self.goaways += kind == frames.GOAWAY
        assert not self.sent.oversized
        assert self.goaways == connection.finished
        assert connection.queued_bytes >= 0
        assert 0 <= connection.held_bytes <= limits.HELD_BYTES + frames.MAX_FRAME

    async def end(self) -> None:
        """The socket closes: nothing may be left of any call."""
        connection = self.connection
        connection.lost()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not connection.streams
        assert connection.queued_bytes == 0
        assert connection.held_bytes == 0
        assert all(session.closes == 1 for session in self.methods.sessions)
        for method in self.table:
            assert method.started == sum(method.handled), method.path


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(each, len(data)) for each in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
