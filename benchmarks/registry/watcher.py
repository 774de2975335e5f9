"""A subscriber that notes what it was told of whom, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc.aio

from benchmarks.registry.stage import Api
from kvstore.pb import registry_pb2 as pb

__all__ = ("Heard", "Watcher")


class Heard(NamedTuple):
    """One event."""

    at: float
    """Seconds of the monotonic clock."""
    event: str
    code: str
    stale: bool


class Watcher:
    """Reads one stream; `close` it."""

    def __init__(self, api: Api, service: str = "") -> None:
        """Watches a service, or all of the default namespace."""
        self.heard: dict[str, list[Heard]] = {}
        """By instance."""
        self.no_leader = False
        self.told = asyncio.Event()
        """Set with each response; who waits clears it."""
        request = pb.WatchRequest(
            service=pb.ServiceName(namespace="default", service=service),
            selection=pb.Selection(health=pb.Selection.ALL),
        )
        self._stream: Any = api.watch(request)
        self._ready = asyncio.Event()
        self._task = asyncio.ensure_future(self._read())

    async def ready(self) -> Watcher:
        """Returns when it has the state."""
        await asyncio.wait_for(self._ready.wait(), 60)
        return self

    async def _read(self) -> None:
        try:
            async for message in self._stream:
                self._take(time.monotonic(), pb.WatchResponse.FromString(message))
        except grpc.aio.AioRpcError:
            pass  # The member was stopped, which is the measurement's own doing.

    def _take(self, now: float, response: Any) -> None:
        self._ready.set()
        self.no_leader = response.header.no_leader
        for each in response.events:
            heard = Heard(now, each.event, each.reason.code, each.instance.stale)
            self.heard.setdefault(each.instance.name.id, []).append(heard)
        self.told.set()

    def first(self, id_: str, event: str, code: str = "") -> float | None:
        """When it heard first of something about an instance."""
        for each in self.heard.get(id_, ()):
            if each.event == event and code in ("", each.code):
                return each.at
        return None

    def heard_after(self, id_: str, event: str) -> float:
        """As `first`, of what it surely has heard."""
        at = self.first(id_, event)
        assert at is not None, f"{event} of {id_} was not told"
        return at

    def count(self, *events: str) -> int:
        """How many such events there were."""
        return sum(each.event in events for some in self.heard.values() for each in some)

    async def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until something is so, as far as it was told; False if it never was."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            self.told.clear()
            try:
                await asyncio.wait_for(self.told.wait(), deadline - time.monotonic())
            except TimeoutError:
                return holds()
        return True

    async def close(self) -> None:
        self._task.cancel()
        self._stream.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
