"""The Watch service: requests to the hub, the hub's encoded responses to the transport."""

from __future__ import annotations

from kvstore.api import validation
from kvstore.api.call import MethodTable, Outlet
from kvstore.api.facade import Node
from kvstore.api.guard import Guard
from kvstore.pb import rpc_pb2

__all__ = ("WatchService",)


class WatchService:
    """Opens a session per stream."""

    def __init__(self, node: Node, guard: Guard) -> None:
        self._node = node
        self._guard = guard

    def register(self, table: MethodTable) -> None:
        """Adds the service's method."""
        table.session("/etcdserverpb.Watch/Watch", self._guard.session(self.watch))

    def watch(self, outlet: Outlet) -> _WatchSession:
        """One stream, any number of watchers."""
        return _WatchSession(self._node, outlet)


class _WatchSession:
    """A half-closed stream goes on sending: only the client's leaving ends it."""

    def __init__(self, node: Node, outlet: Outlet) -> None:
        self._stream = node.watches.open(outlet.wake)
        self.take = self._stream.take
        self.closed = self._stream.close

    @property
    def accepting(self) -> bool:
        return self._stream.accepts_requests

    def received(self, payload: bytes) -> None:
        self._stream.request(validation.parse_streamed(rpc_pb2.WatchRequest, payload))

    def half_closed(self) -> None:
        pass
