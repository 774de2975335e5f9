"""The Lock service: a fair lock whose holder is the oldest key under its name."""

from __future__ import annotations

from kvstore.api import validation
from kvstore.api.call import Call, MethodTable
from kvstore.api.encoding import encoded
from kvstore.api.guard import Guard
from kvstore.api.keys import Keys
from kvstore.api.services import queue
from kvstore.errors import MUTEX_SESSION_EXPIRED
from kvstore.pb import rpc_pb2, v3lock_pb2

__all__ = ("LockService",)

_SERVICE = "/v3lockpb.Lock/"


class LockService:
    """Lock and Unlock."""

    def __init__(self, keys: Keys, guard: Guard) -> None:
        self._keys = keys
        self._guard = guard

    def register(self, table: MethodTable) -> None:
        """Adds the service's methods."""
        table.unary(_SERVICE + "Lock", self._guard.unary(self.lock))
        table.unary(_SERVICE + "Unlock", self._guard.unary(self.unlock))

    async def lock(self, call: Call) -> bytes:
        """Answers once the lock is held. The same lease locking twice holds it at once."""
        request = validation.parse(v3lock_pb2.LockRequest, call.payload)
        lease_id = await self._keys.session(request.lease)
        prefix = request.name + b"/"
        key = queue.participant(request.name, lease_id)
        acquire = rpc_pb2.TxnRequest(compare=[queue.created_at(key, 0)])
        put = acquire.success.add().request_put
        put.key, put.lease = key, lease_id
        acquire.failure.add().request_range.key = key
        for branch in (acquire.success, acquire.failure):
            branch.add().request_range.CopyFrom(queue.oldest(prefix))
        header = await self._acquire(acquire, prefix, key)
        return encoded(v3lock_pb2.LockResponse(header=header, key=key))

    async def _acquire(
        self, acquire: rpc_pb2.TxnRequest, prefix: bytes, key: bytes
    ) -> rpc_pb2.ResponseHeader:
        def leave(revision: int) -> None:
            # Whoever gives up must leave the line, or it would hold up those behind.
            self._keys.forget(queue.leaving(key, revision))

        def abandoned(late: rpc_pb2.TxnResponse) -> None:
            if late.succeeded:
                leave(late.header.revision)

        response = await self._keys.txn(acquire, abandoned)
        mine = response.header.revision
        if not response.succeeded:
            mine = response.responses[0].response_range.kvs[0].create_revision
        owner = response.responses[1].response_range.kvs
        if not owner or owner[0].create_revision == mine:
            return response.header
        try:
            await queue.wait_for_turn(self._keys, prefix, mine)
            held = await self._keys.range(rpc_pb2.RangeRequest(key=key))
        except BaseException:
            leave(mine)
            raise
        if not held.kvs:
            raise MUTEX_SESSION_EXPIRED
        return held.header

    async def unlock(self, call: Call) -> bytes:
        """Deletes the key, whoever asks; a missing one is fine."""
        request = validation.parse(v3lock_pb2.UnlockRequest, call.payload)
        validation.check_delete(rpc_pb2.DeleteRangeRequest(key=request.key))
        response = await self._keys.delete(request.key)
        return encoded(v3lock_pb2.UnlockResponse(header=response.header))
