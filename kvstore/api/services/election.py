"""The Election service: the leader is the oldest key under the election's name."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from kvstore.api import validation
from kvstore.api.call import Call, MethodTable
from kvstore.api.encoding import encoded
from kvstore.api.guard import Guard
from kvstore.api.keys import Keys
from kvstore.api.services import queue
from kvstore.errors import (
    COMPACTED,
    ELECTION_LEADER_FIELD,
    ELECTION_NO_LEADER,
    ELECTION_NOT_LEADER,
    EtcdError,
)
from kvstore.pb import kv_pb2, rpc_pb2, v3election_pb2

__all__ = ("ElectionService",)

_SERVICE = "/v3electionpb.Election/"


def _put_if_leading(leader: v3election_pb2.LeaderKey, value: bytes) -> rpc_pb2.TxnRequest:
    request = rpc_pb2.TxnRequest(compare=[queue.created_at(leader.key, leader.rev)])
    put = request.success.add().request_put
    put.key, put.value, put.lease = leader.key, value, leader.lease
    return request


class ElectionService:
    """Campaign, Proclaim, Leader, Observe, Resign."""

    def __init__(self, keys: Keys, guard: Guard) -> None:
        self._keys = keys
        self._guard = guard

    def register(self, table: MethodTable) -> None:
        """Adds the service's methods."""
        guard = self._guard
        table.unary(_SERVICE + "Campaign", guard.unary(self.campaign))
        table.unary(_SERVICE + "Proclaim", guard.unary(self.proclaim))
        table.unary(_SERVICE + "Leader", guard.unary(self.leader))
        table.stream(_SERVICE + "Observe", guard.stream(self.observe))
        table.unary(_SERVICE + "Resign", guard.unary(self.resign))

    async def campaign(self, call: Call) -> bytes:
        """Answers once this candidate leads."""
        request = validation.parse(v3election_pb2.CampaignRequest, call.payload)
        lease_id = await self._keys.session(request.lease)
        key = queue.participant(request.name, lease_id)
        leader = v3election_pb2.LeaderKey(name=request.name, key=key, lease=lease_id)
        enter = _put_if_leading(leader, request.value)  # rev 0: if the key does not exist
        enter.failure.add().request_range.key = key

        def leave(revision: int) -> None:
            # Whoever gives up must leave the line, or it would be elected later.
            self._keys.forget(queue.leaving(key, revision))

        def abandoned(late: rpc_pb2.TxnResponse) -> None:
            if late.succeeded:
                leave(late.header.revision)

        response = await self._keys.txn(enter, abandoned)
        header = response.header
        leader.rev = header.revision
        if not response.succeeded:
            leader.rev = response.responses[0].response_range.kvs[0].create_revision
        try:
            if not response.succeeded:
                existing = response.responses[0].response_range.kvs[0]
                if existing.value != request.value:
                    header = await self._proclaim(leader, request.value)
            await queue.wait_for_turn(self._keys, request.name + b"/", leader.rev)
        except BaseException:
            leave(leader.rev)
            raise
        return encoded(v3election_pb2.CampaignResponse(header=header, leader=leader))

    async def _proclaim(
        self, leader: v3election_pb2.LeaderKey, value: bytes
    ) -> rpc_pb2.ResponseHeader:
        response = await self._keys.txn(_put_if_leading(leader, value))
        if not response.succeeded:
            raise ELECTION_NOT_LEADER
        return response.header

    async def proclaim(self, call: Call) -> bytes:
        """Replaces the leader's value; fails for one that leads no more."""
        request = validation.parse(v3election_pb2.ProclaimRequest, call.payload)
        if not request.HasField("leader"):
            raise ELECTION_LEADER_FIELD
        header = await self._proclaim(request.leader, request.value)
        return encoded(v3election_pb2.ProclaimResponse(header=header))

    async def leader(self, call: Call) -> bytes:
        """The present leader's key and value."""
        request = validation.parse(v3election_pb2.LeaderRequest, call.payload)
        response = await self._keys.range(queue.oldest(request.name + b"/"))
        if not response.kvs:
            raise ELECTION_NO_LEADER
        return encoded(v3election_pb2.LeaderResponse(header=response.header, kv=response.kvs[0]))

    async def observe(self, call: Call) -> AsyncIterator[bytes]:
        """The present leader, then every proclamation and every successor; no word in between."""
        request = validation.parse_streamed(v3election_pb2.LeaderRequest, call.payload)
        prefix = request.name + b"/"
        while True:
            try:
                async with aclosing(self._reign(prefix)) as reign:
                    async for response in reign:
                        yield encoded(response)
            except EtcdError as error:
                if error != COMPACTED:
                    raise
                # History moved on under the watch: begin again with whoever leads now.

    async def _reign(self, prefix: bytes) -> AsyncGenerator[v3election_pb2.LeaderResponse, None]:
        """The values of one leader until its key is deleted; waits for one if there is none."""
        found = await self._keys.range(queue.oldest(prefix))
        if found.kvs:
            header, leader = found.header, found.kvs[0]
            seen = header.revision
        else:
            header, leader = await self._first_put(prefix, found.header.revision + 1)
            seen = leader.mod_revision
        yield v3election_pb2.LeaderResponse(header=header, kv=leader)
        async with aclosing(self._keys.watch(leader.key, b"", seen + 1)) as events:
            async for header, event in events:
                if event.type == kv_pb2.Event.DELETE:
                    return
                yield v3election_pb2.LeaderResponse(header=header, kv=event.kv)

    async def _first_put(
        self, prefix: bytes, revision: int
    ) -> tuple[rpc_pb2.ResponseHeader, kv_pb2.KeyValue]:
        watch = self._keys.watch(prefix, queue.prefix_end(prefix), revision)
        async with aclosing(watch) as events:
            async for header, event in events:
                if event.type == kv_pb2.Event.PUT:
                    return header, event.kv
        raise ELECTION_NO_LEADER

    async def resign(self, call: Call) -> bytes:
        """Steps down; one that leads no more resigns without effect."""
        request = validation.parse(v3election_pb2.ResignRequest, call.payload)
        if not request.HasField("leader"):
            raise ELECTION_LEADER_FIELD
        response = await self._keys.txn(queue.leaving(request.leader.key, request.leader.rev))
        return encoded(v3election_pb2.ResignResponse(header=response.header))
