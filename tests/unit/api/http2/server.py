"""A server with one method of each kind, to be treated badly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from kvstore.api.call import Call, MethodTable, Outlet
from kvstore.errors import EMPTY_KEY
from tests.unit.api.http2.raw import PATH


class Reflection:
    """A session that sends back what it gets; tests read and set its attributes."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.accepting = True
        self.taking = True
        self.held: list[bytes] = []
        self.received_count = 0
        self.half_closes = 0
        self.closes = 0

    def received(self, payload: bytes) -> None:
        if payload == b"fail":
            raise EMPTY_KEY
        if payload == b"crash":
            raise ZeroDivisionError("a secret")
        self.received_count += 1
        self.held.append(payload)
        self.outlet.wake()

    def half_closed(self) -> None:
        self.half_closes += 1
        self.outlet.finish(None)

    def take(self, max_messages: int, max_bytes: int) -> list[bytes]:
        if not self.taking:
            return []
        taken: list[bytes] = []
        size = 0
        while self.held and len(taken) < max_messages and (not taken or size < max_bytes):
            taken.append(self.held.pop(0))
            size += len(taken[-1])
        return taken

    def closed(self) -> None:
        self.closes += 1


class Methods:
    """The table and what the handlers leave behind."""

    def __init__(self) -> None:
        self.sessions: list[Reflection] = []
        self.kept: list[Call] = []
        self.drawn = 0
        self.stream_ends = 0
        self.ticks: asyncio.Queue[bytes] = asyncio.Queue()

    def build(self) -> MethodTable:
        table = MethodTable()
        table.unary(PATH + "Echo", lambda call: call.payload)
        table.unary(PATH + "Large", lambda call: bytes(int(call.payload)))
        table.unary(PATH + "Keep", self.kept.append)
        table.unary(PATH + "Sleep", self._sleep)
        table.unary(PATH + "Fail", self._fail)
        table.stream(PATH + "Count", self._count)
        table.stream(PATH + "Ticks", self._tick)
        table.session(PATH + "Reflect", self._reflect)
        return table

    async def _sleep(self, call: Call) -> bytes:
        await asyncio.sleep(30)
        return b""

    def _fail(self, call: Call) -> bytes:
        raise EMPTY_KEY

    async def _count(self, call: Call) -> AsyncIterator[bytes]:
        """Messages of a thousand bytes, as many as asked for."""
        try:
            for number in range(int(call.payload)):
                self.drawn = number
                yield b"%04d" % number + bytes(996)
        finally:
            self.stream_ends += 1

    async def _tick(self, call: Call) -> AsyncIterator[bytes]:
        """A message whenever a test puts one into `ticks`."""
        while True:
            yield await self.ticks.get()

    def _reflect(self, outlet: Outlet) -> Any:
        self.sessions.append(Reflection(outlet))
        return self.sessions[-1]
