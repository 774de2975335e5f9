"""The standard health service: the name "" stands for the whole server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from kvstore.api import validation
from kvstore.api.call import Call, MethodTable
from kvstore.api.encoding import encoded
from kvstore.api.guard import Guard
from kvstore.errors import Code, EtcdError
from kvstore.pb import health_pb2

__all__ = ("HealthService",)

_SERVICE = "/grpc.health.v1.Health/"
_Response = health_pb2.HealthCheckResponse


class HealthService:
    """SERVING until told otherwise (shutdown, a defragmentation that blocks)."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._serving = True
        self._watchers: set[asyncio.Event] = set()

    def register(self, table: MethodTable) -> None:
        """Adds the service's methods."""
        table.unary(_SERVICE + "Check", self._guard.unary(self.check))
        table.stream(_SERVICE + "Watch", self._guard.stream(self.watch))

    def set_serving(self, serving: bool) -> None:
        """Changes the answer; those who watch are told."""
        self._serving = serving
        for changed in self._watchers:
            changed.set()

    def check(self, call: Call) -> bytes:
        """An unknown service name is NotFound."""
        request = validation.parse(health_pb2.HealthCheckRequest, call.payload)
        if request.service:
            raise EtcdError(Code.NOT_FOUND, "unknown service")
        return self._response()

    async def watch(self, call: Call) -> AsyncIterator[bytes]:
        """The present status, then every change; an unknown name may become known one day."""
        request = validation.parse_streamed(health_pb2.HealthCheckRequest, call.payload)
        changed = asyncio.Event()
        if request.service:
            yield encoded(_Response(status=_Response.SERVICE_UNKNOWN))
            await changed.wait()
        self._watchers.add(changed)
        try:
            sent: bool | None = None
            while True:
                if sent != self._serving:
                    sent = self._serving
                    yield self._response()
                    continue
                await changed.wait()
                changed.clear()
        finally:
            self._watchers.discard(changed)

    def _response(self) -> bytes:
        status = _Response.SERVING if self._serving else _Response.NOT_SERVING
        return encoded(_Response(status=status))
