"""The node as coroutines over keys, for services that are recipes on top of the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from kvstore.api import limits
from kvstore.api.encoding import encoded
from kvstore.api.facade import Done, Node, Write
from kvstore.errors import CANCELED, COMPACTED, EtcdError
from kvstore.pb import kv_pb2, rpc_pb2

__all__ = ("SESSION_TTL_S", "Keys")

SESSION_TTL_S = 60
"""TTL of the lease that a lock or campaign without one gets; nobody keeps it alive."""


class Keys:
    """Txn, range, delete and watch as awaitable calls; responses are parsed, headers filled."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def _ask(
        self,
        begin: Callable[[Done], None],
        response: Any,
        abandoned: Callable[[Any], None] | None = None,
    ) -> Any:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(answer: Any, error: EtcdError | None) -> None:
            if error is None:
                response.ParseFromString(self._node.header(answer.revision) + answer.body)
            if waiter.done():  # the caller was cancelled
                if error is None and abandoned is not None:
                    abandoned(response)
            elif error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

        begin(done)
        await waiter
        return response

    async def txn(
        self,
        request: rpc_pb2.TxnRequest,
        abandoned: Callable[[rpc_pb2.TxnResponse], None] | None = None,
    ) -> rpc_pb2.TxnResponse:
        """Runs a transaction that writes.

        A caller that is cancelled meanwhile cannot know whether it will take effect;
        `abandoned` is then called with the response if it does.
        """
        payload = encoded(request)
        response: rpc_pb2.TxnResponse = await self._ask(
            lambda done: self._node.write(Write.TXN, payload, done),
            rpc_pb2.TxnResponse(),
            abandoned,
        )
        return response

    async def range(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        """Reads keys, linearizable."""
        response: rpc_pb2.RangeResponse = await self._ask(
            lambda done: self._node.range(request, done), rpc_pb2.RangeResponse()
        )
        return response

    async def delete(self, key: bytes) -> rpc_pb2.DeleteRangeResponse:
        """Deletes one key; a missing one is fine."""
        payload = encoded(rpc_pb2.DeleteRangeRequest(key=key))
        response: rpc_pb2.DeleteRangeResponse = await self._ask(
            lambda done: self._node.write(Write.DELETE_RANGE, payload, done),
            rpc_pb2.DeleteRangeResponse(),
        )
        return response

    def forget(self, request: rpc_pb2.TxnRequest) -> None:
        """Runs a transaction whose outcome nobody waits for; works in a cancelled task."""
        self._node.write(Write.TXN, encoded(request), lambda _answer, _error: None)

    async def session(self, lease_id: int) -> int:
        """The lease to attach keys to: the given one, or a new one of 60 s for id 0."""
        if lease_id:
            return lease_id
        request = rpc_pb2.LeaseGrantRequest(ID=self._node.new_lease_id(), TTL=SESSION_TTL_S)
        response: rpc_pb2.LeaseGrantResponse = await self._ask(
            lambda done: self._node.write(Write.LEASE_GRANT, encoded(request), done),
            rpc_pb2.LeaseGrantResponse(),
        )
        return int(response.ID)

    async def watch(
        self, key: bytes, range_end: bytes, start_revision: int
    ) -> AsyncGenerator[tuple[rpc_pb2.ResponseHeader, kv_pb2.Event], None]:
        """Events of keys from a revision on, each with the header it came under.

        Raises COMPACTED when history no longer reaches back to where the watch stands.
        """
        woken = asyncio.Event()
        stream = self._node.watches.open(woken.set)
        try:
            request = rpc_pb2.WatchRequest()
            request.create_request.key = key
            request.create_request.range_end = range_end
            request.create_request.start_revision = start_revision
            stream.request(request)
            while True:
                woken.clear()
                messages = stream.take(limits.TAKE_MESSAGES, limits.TAKE_BYTES)
                for message in messages:
                    response = rpc_pb2.WatchResponse.FromString(message)
                    if response.canceled:
                        raise COMPACTED if response.compact_revision else CANCELED
                    for event in response.events:
                        yield response.header, event
                if not messages:
                    await woken.wait()
        finally:
            stream.close()
