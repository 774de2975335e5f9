"""The Lease service: grants and revocations are writes, keep-alives are not."""

from __future__ import annotations

from collections import deque

from kvstore.api import limits, validation
from kvstore.api.call import Call, MethodTable, Outlet
from kvstore.api.encoding import encoded
from kvstore.api.facade import Answer, Done, Node, Write
from kvstore.api.guard import Guard
from kvstore.errors import LEASE_NOT_FOUND, EtcdError
from kvstore.pb import rpc_pb2

__all__ = ("LeaseService",)

_SERVICE = "/etcdserverpb.Lease/"


class LeaseService:
    """LeaseGrant, LeaseRevoke, LeaseKeepAlive, LeaseTimeToLive, LeaseLeases."""

    def __init__(self, node: Node, guard: Guard) -> None:
        self._node = node
        self._guard = guard

    def register(self, table: MethodTable) -> None:
        """Adds the service's methods."""
        guard = self._guard
        table.unary(_SERVICE + "LeaseGrant", guard.unary(self.grant))
        table.unary(_SERVICE + "LeaseRevoke", guard.unary(self.revoke))
        table.unary(_SERVICE + "LeaseTimeToLive", guard.unary(self.time_to_live))
        table.unary(_SERVICE + "LeaseLeases", guard.unary(self.leases))
        table.session(_SERVICE + "LeaseKeepAlive", guard.session(self.keep_alive))

    def _answers(self, call: Call) -> Done:
        def done(answer: Answer, error: EtcdError | None) -> None:
            if error is None:
                call.reply(self._node.header(answer.revision) + answer.body)
            else:
                call.fail(error)

        return done

    def grant(self, call: Call) -> None:
        """Id 0 asks for one; it is chosen here, since every member must apply the same."""
        request = validation.parse(rpc_pb2.LeaseGrantRequest, call.payload)
        validation.check_quota(self._node, validation.LEASE_COST_BYTES)
        payload = call.payload
        if not request.ID:
            request.ID = self._node.new_lease_id()
            payload = encoded(request)
        self._node.write(Write.LEASE_GRANT, payload, self._answers(call))

    def revoke(self, call: Call) -> None:
        """Removes the lease and every key attached to it."""
        validation.parse(rpc_pb2.LeaseRevokeRequest, call.payload)
        self._node.write(Write.LEASE_REVOKE, call.payload, self._answers(call))

    async def time_to_live(self, call: Call) -> bytes:
        """A lease that does not exist is TTL −1, not an error."""
        request = validation.parse(rpc_pb2.LeaseTimeToLiveRequest, call.payload)
        response = rpc_pb2.LeaseTimeToLiveResponse(ID=request.ID)
        try:
            times = await self._node.lease_time_to_live(request.ID, request.keys)
        except EtcdError as error:
            if error != LEASE_NOT_FOUND:
                raise
            response.TTL = -1
        else:
            response.TTL = times.ttl
            response.grantedTTL = times.granted_ttl
            response.keys.extend(times.keys)
        return encoded(response, self._node.header(self._node.revision))

    def leases(self, call: Call) -> bytes:
        """This member's list, nearest deadline first as far as the member knows it."""
        validation.parse(rpc_pb2.LeaseLeasesRequest, call.payload)
        response = rpc_pb2.LeaseLeasesResponse()
        for lease_id in self._node.lease_list():
            response.leases.add(ID=lease_id)
        return encoded(response, self._node.header(self._node.revision))

    def keep_alive(self, outlet: Outlet) -> _KeepAliveSession:
        """One response per request, in order."""
        return _KeepAliveSession(self._node, outlet)


class _Renewal:
    """One keep-alive on its way; `response` is None until the lessor has answered."""

    __slots__ = ("header", "lease_id", "response")

    def __init__(self, header: bytes, lease_id: int) -> None:
        self.header = header
        self.lease_id = lease_id
        self.response: bytes | None = None


class _KeepAliveSession:
    """Renewals run side by side; their responses leave in the order of the requests."""

    def __init__(self, node: Node, outlet: Outlet) -> None:
        self._node = node
        self._outlet = outlet
        self._renewals: deque[_Renewal] = deque()
        self._half_closed = False
        self._failed = False

    @property
    def accepting(self) -> bool:
        return len(self._renewals) < limits.KEEP_ALIVES_IN_FLIGHT

    def received(self, payload: bytes) -> None:
        request = validation.parse_streamed(rpc_pb2.LeaseKeepAliveRequest, payload)
        # The header is of the moment before the renewal, as etcd has it.
        renewal = _Renewal(self._node.header(self._node.revision), request.ID)
        self._renewals.append(renewal)

        def done(ttl_s: int | None, error: EtcdError | None) -> None:
            if error is not None and error != LEASE_NOT_FOUND:
                self._failed = True
                self._outlet.finish(error)
                return
            # A dead lease is TTL 0, not an error, and the stream lives on.
            response = rpc_pb2.LeaseKeepAliveResponse(ID=renewal.lease_id, TTL=ttl_s or 0)
            renewal.response = encoded(response, renewal.header)
            if self._renewals and self._renewals[0] is renewal:
                self._outlet.wake()

        self._node.lease_keep_alive(request.ID, done)

    def half_closed(self) -> None:
        self._half_closed = True
        if not self._renewals:
            self._outlet.finish(None)

    def take(self, max_messages: int, max_bytes: int) -> list[bytes]:
        taken: list[bytes] = []
        size = 0
        renewals = self._renewals
        while renewals and len(taken) < max_messages and size < max_bytes:
            response = renewals[0].response
            if response is None:
                break
            renewals.popleft()
            taken.append(response)
            size += len(response)
        if self._half_closed and not renewals and not self._failed:
            self._outlet.finish(None)
        return taken

    def closed(self) -> None:
        self._renewals.clear()
