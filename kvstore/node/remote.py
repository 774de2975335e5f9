"""What members ask of each other beside Raft: renewals, lease times, promotions, hashes.

Only the leader keeps lease deadlines and sees how far learners are, so a follower passes such
questions on. A question is a method name and msgpack; an answer is [True, value] or
[False, code, message], an EtcdError of the other side.

Keep-alives that arrive in one loop turn travel in one call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgpack

from kvstore.errors import (
    CATALOGUE,
    NO_LEADER,
    NOT_PRIMARY_LESSOR,
    TIMEOUT,
    TOO_MANY_REQUESTS,
    Code,
    EtcdError,
)
from kvstore.node.limits import (
    LEASE_FORWARD_PAUSE_S,
    MAX_LEASE_BATCH,
    MAX_WAITING_READS,
    PEER_CALL_TIMEOUT_S,
)
from kvstore.node.proposals import Done
from kvstore.node.transport import LocalMember, PeerTransport

__all__ = ("HASH_KV", "PROMOTE", "RENEW", "TIMES", "Handler", "LeaderCalls", "answer_call")

_LOG = logging.getLogger(__name__)

RENEW = "lease_renew"
TIMES = "lease_times"
PROMOTE = "member_promote"
HASH_KV = "hash_kv"

Handler = Callable[[Any], Awaitable[Any]]


async def answer_call(handler: Handler, payload: bytes) -> bytes:
    """Runs a handler for a peer's question and packs what it returns or raises."""
    try:
        question = msgpack.unpackb(payload)
    except ValueError as error:
        return _pack([False, int(Code.INVALID_ARGUMENT), f"unreadable question: {error}"])
    try:
        return _pack([True, await handler(question)])
    except EtcdError as error:
        return _pack([False, int(error.code), error.message])


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _unpack(answer: bytes) -> Any:
    """The value of an answer; raises the EtcdError that it carries."""
    fields = msgpack.unpackb(answer)
    if fields[0]:
        return fields[1]
    _, code, message = fields
    known = CATALOGUE.get(message)
    raise known if known is not None else EtcdError(Code(code), message)


class LeaderCalls:
    """Questions to whoever leads, which may be this member by the time they are asked."""

    def __init__(
        self,
        transport: PeerTransport,
        own: LocalMember,
        leader: Callable[[], int],
        timeout_s: float,
    ) -> None:
        self._transport = transport
        self._own = own
        self._leader = leader
        self._timeout_s = timeout_s
        self._renewals: dict[int, list[Done]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def ask(self, peer_id: int, method: str, question: Any) -> Any:
        """Asks one member once; no answer raises TIMEOUT."""
        if peer_id == self._own.member_id:
            return _unpack(await self._own.answers[method](_pack(question)))
        try:
            answer = await self._transport.call(
                peer_id, method, _pack(question), PEER_CALL_TIMEOUT_S
            )
        except (OSError, EOFError, TimeoutError) as error:
            _LOG.debug("no answer from %x to %s: %s", peer_id, method, error)
            raise TIMEOUT from error
        return _unpack(answer)

    async def ask_leader(self, method: str, question: Any) -> Any:
        """Asks the leader until somebody answers; NO_LEADER or TIMEOUT when time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        failure: EtcdError = NO_LEADER
        while loop.time() < deadline:
            leader = self._leader()
            if leader:
                try:
                    return await self._ask_while_it_leads(leader, method, question)
                except EtcdError as error:
                    if error not in (TIMEOUT, NOT_PRIMARY_LESSOR):
                        raise
                    failure = TIMEOUT
            await asyncio.sleep(LEASE_FORWARD_PAUSE_S)
        raise failure

    async def _ask_while_it_leads(self, leader: int, method: str, question: Any) -> Any:
        """`ask`, but somebody who hangs is given up when another leads: leases wait for this."""
        asking = asyncio.ensure_future(self.ask(leader, method, question))
        try:
            while not (await asyncio.wait((asking,), timeout=LEASE_FORWARD_PAUSE_S))[0]:
                if self._leader() not in (leader, 0):
                    raise TIMEOUT
            return asking.result()
        finally:
            asking.cancel()

    def renew(self, lease_id: int, done: Done) -> None:
        """Has the leader renew a lease; `done` gets its TTL, 0 when there is none."""
        if len(self._renewals) >= MAX_WAITING_READS:
            done(None, TOO_MANY_REQUESTS)
            return
        self._renewals.setdefault(lease_id, []).append(done)

    def flush(self) -> None:
        """Sends the renewals that came together."""
        while self._renewals:
            lease_ids = list(self._renewals)[:MAX_LEASE_BATCH]
            batch = {lease_id: self._renewals.pop(lease_id) for lease_id in lease_ids}
            task = asyncio.get_running_loop().create_task(self._renew(batch))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _renew(self, batch: dict[int, list[Done]]) -> None:
        try:
            ttls = await self.ask_leader(RENEW, list(batch))
        except EtcdError as error:
            for dones in batch.values():
                for done in dones:
                    done(None, error)
            return
        for dones, ttl in zip(batch.values(), ttls, strict=True):
            for done in dones:
                done(ttl, None)

    def renew_many(self, lease_ids: Sequence[int], done: Done) -> None:
        """Has the leader renew leases in one call; `done` gets the list of their TTLs."""

        async def ask() -> None:
            try:
                ttls = await self.ask_leader(RENEW, list(lease_ids))
            except EtcdError as error:
                done(None, error)
            else:
                done(ttls, None)

        if len(self._sending) >= MAX_WAITING_READS:
            done(None, TOO_MANY_REQUESTS)
            return
        task = asyncio.get_running_loop().create_task(ask())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def close(self) -> None:
        """Gives up on questions under way."""
        for task in self._sending:
            task.cancel()
