"""Heartbeats over gRPC: one call, or a stream whose answers come in the order of its requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from kvstore.api import limits, validation
from kvstore.api.call import Outlet
from kvstore.api.encoding import encoded
from kvstore.api.services.registry_messages import instance_name
from kvstore.errors import EtcdError
from kvstore.pb import registry_pb2 as pb
from kvstore.registry.service import RegistryService

__all__ = ("HeartbeatSession", "answer_heartbeat")

Answered = Callable[[bytes, EtcdError | None], None]
"""Gets the encoded response, or an error."""


def answer_heartbeat(
    registry: RegistryService, request: Any, header: Callable[[], Any], answered: Answered
) -> None:
    """Has the leases of a request renewed; `answered` is called once."""

    def done(ttls: list[int] | None, error: EtcdError | None) -> None:
        if ttls is None:
            answered(b"", error)
        else:
            answered(encoded(pb.HeartbeatResponse(header=header(), ttl_s=ttls)), None)

    registry.beat(request.leases, [instance_name(each) for each in request.instances], done)


class _Beat:
    """One request on its way; `response` is None until it is answered."""

    __slots__ = ("response",)

    def __init__(self) -> None:
        self.response: bytes | None = None


class HeartbeatSession:
    """Requests run side by side; their responses leave in the order of the requests."""

    def __init__(
        self, registry: RegistryService, header: Callable[[], Any], outlet: Outlet
    ) -> None:
        self._registry = registry
        self._header = header
        self._outlet = outlet
        self._beats: deque[_Beat] = deque()
        self._half_closed = False
        self._failed = False

    @property
    def accepting(self) -> bool:
        return len(self._beats) < limits.KEEP_ALIVES_IN_FLIGHT

    def received(self, payload: bytes) -> None:
        request = validation.parse_streamed(pb.HeartbeatRequest, payload)
        beat = _Beat()
        self._beats.append(beat)

        def answered(response: bytes, error: EtcdError | None) -> None:
            if error is not None:
                self._failed = True
                self._outlet.finish(error)
                return
            beat.response = response
            if self._beats and self._beats[0] is beat:
                self._outlet.wake()

        answer_heartbeat(self._registry, request, self._header, answered)

    def half_closed(self) -> None:
        self._half_closed = True
        if not self._beats:
            self._outlet.finish(None)

    def take(self, max_messages: int, max_bytes: int) -> list[bytes]:
        taken: list[bytes] = []
        size = 0
        while self._beats and len(taken) < max_messages and size < max_bytes:
            response = self._beats[0].response
            if response is None:
                break
            self._beats.popleft()
            taken.append(response)
            size += len(response)
        if self._half_closed and not self._beats and not self._failed:
            self._outlet.finish(None)
        return taken

    def closed(self) -> None:
        self._beats.clear()
