"""What every call must pass before its method runs, in etcd's order.

1. A learner serves only Status, serializable Range and the Snapshot stream.
2. `client-api-version` metadata must be text; it is counted.
3. A call with `hasleader: true` is refused while no leader is known, and a stream that was
   opened with it ends after three checks in a row without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from kvstore.api import limits
from kvstore.api.call import (
    Call,
    Outlet,
    Session,
    SessionHandler,
    StreamHandler,
    UnaryAnswer,
    UnaryHandler,
)
from kvstore.api.facade import Node
from kvstore.errors import (
    INVALID_CLIENT_API_VERSION,
    NO_LEADER,
    NOT_SUPPORTED_FOR_LEARNER,
)

__all__ = ("Guard", "LeaderMonitor")


class LeaderMonitor:
    """Tells streams that want a leader when there has been none for three checks in a row."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._period_s = node.config.election_ms / 1000
        self._misses = 0
        self._watching: dict[int, Callable[[], None]] = {}
        self._last_ticket = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, lost: Callable[[], None]) -> int:
        """Calls `lost` once when the leader stays away; returns a ticket for `remove`."""
        self._last_ticket += 1
        self._watching[self._last_ticket] = lost
        if self._timer is None:
            self._misses = 0
            self._schedule()
        return self._last_ticket

    def remove(self, ticket: int) -> None:
        """Forgets an `add`; the clock stops with the last one."""
        self._watching.pop(ticket, None)
        if not self._watching and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._period_s, self._check)

    def _check(self) -> None:
        self._timer = None
        self._misses = 0 if self._node.leader_id else self._misses + 1
        if self._misses >= limits.LEADER_CHECKS:
            self._misses = 0
            lost, self._watching = self._watching, {}
            for callback in lost.values():
                callback()
        if self._watching:
            self._schedule()


class Guard:
    """Wraps handlers with the checks, and counts clients by version."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._monitor = LeaderMonitor(node)
        self.clients: dict[tuple[str, str], int] = {}
        """Calls by (unary or stream, client-api-version)."""
        self._last: tuple[str, Mapping[str, str | bytes], tuple[str, str]] = ("", {}, ("", ""))
        """The last call's kind, metadata and label, if it required no leader. Transports share
        one mapping among calls with the same headers, and most calls are like the one before."""

    def admit(self, kind: str, metadata: Mapping[str, str | bytes]) -> bool:
        """Checks 2 and 3; returns whether the call requires a leader."""
        last_kind, last_metadata, label = self._last
        if metadata is last_metadata and kind is last_kind:
            self.clients[label] += 1
            return False
        version = metadata.get("client-api-version", "unknown")
        # Header values are ASCII by gRPC's rules; both transports show others as mangled text.
        if not isinstance(version, str) or not version.isascii():
            raise INVALID_CLIENT_API_VERSION
        label = (kind, version)
        clients = self.clients
        if label not in clients and len(clients) >= limits.MAX_CLIENT_VERSIONS:
            label = (kind, "other")
        clients[label] = clients.get(label, 0) + 1
        if metadata.get("hasleader") != "true":
            self._last = (kind, metadata, label)
            return False
        if not self._node.leader_id:
            raise NO_LEADER
        return True

    def refuse_learner(self) -> None:
        """Check 1."""
        if self._node.is_learner:
            raise NOT_SUPPORTED_FOR_LEARNER

    def unary(self, handler: UnaryHandler, *, learner: bool = False) -> UnaryHandler:
        """A unary handler behind the checks; `learner`: a learner serves it too."""
        node = self._node

        def guarded(call: Call) -> UnaryAnswer:
            if node.is_learner and not learner:
                raise NOT_SUPPORTED_FOR_LEARNER
            self.admit("unary", call.metadata)
            return handler(call)

        return guarded

    def stream(self, handler: StreamHandler, *, learner: bool = False) -> StreamHandler:
        """A server-streaming handler behind the checks."""

        async def guarded(call: Call) -> AsyncIterator[bytes]:
            if not learner:
                self.refuse_learner()
            messages = handler(call)
            if self.admit("stream", call.metadata):
                messages = _until_lost(messages, self._monitor)
            try:
                async for message in messages:
                    yield message
            finally:
                await _close(messages)

        return guarded

    def session(self, handler: SessionHandler) -> SessionHandler:
        """A bidirectional handler behind the checks."""

        def guarded(outlet: Outlet) -> Session:
            self.refuse_learner()
            if not self.admit("stream", outlet.metadata):
                return handler(outlet)
            session = handler(outlet)
            ticket = self._monitor.add(lambda: outlet.finish(NO_LEADER))
            return _Monitored(session, lambda: self._monitor.remove(ticket))

        return guarded


class _Monitored:
    """A session that leaves the leader monitor when it closes."""

    def __init__(self, session: Session, leave: Callable[[], None]) -> None:
        self._session = session
        self._leave = leave
        self.received = session.received
        self.half_closed = session.half_closed
        self.take = session.take

    @property
    def accepting(self) -> bool:
        return self._session.accepting

    def closed(self) -> None:
        self._leave()
        self._session.closed()


async def _close(messages: AsyncIterator[bytes]) -> None:
    close: Any = getattr(messages, "aclose", None)
    if close is not None:
        await close()


async def _until_lost(
    messages: AsyncIterator[bytes], monitor: LeaderMonitor
) -> AsyncIterator[bytes]:
    """Passes messages on until the monitor calls; then raises NO_LEADER."""
    lost = asyncio.Event()
    ticket = monitor.add(lost.set)
    loss = asyncio.ensure_future(lost.wait())
    pending: asyncio.Task[bytes] | None = None
    try:
        while True:
            pending = asyncio.ensure_future(_next(messages))
            await asyncio.wait((pending, loss), return_when=asyncio.FIRST_COMPLETED)
            if not pending.done():
                raise NO_LEADER
            try:
                message = pending.result()
            except StopAsyncIteration:
                return
            yield message
    finally:
        monitor.remove(ticket)
        loss.cancel()
        if pending is not None and not pending.done():
            pending.cancel()
            await asyncio.wait((pending,))
        await _close(messages)


async def _next(messages: AsyncIterator[bytes]) -> bytes:
    return await anext(messages)
