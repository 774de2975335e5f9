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
    detach,
)
from kvstore.node.limits import (
    LEASE_FORWARD_PAUSE_S,
    MAX_LEASE_BATCH,
    MAX_WAITING_READS,
    PEER_CALL_TIMEOUT_S,
)
from kvstore.node.proposals import Done
from kvstore.node.transport import LocalMember, PeerTransport

__all__ = (
    "HASH_KV",
    "PROMOTE",
    "RENEW",
    "TIMES",
    "UNREADABLE_ANSWER",
    "Handler",
    "LeaderCalls",
    "answer_call",
    "integer_and_flag_of",
    "integer_of",
    "integers_of",
    "read_answer",
)

_LOG = logging.getLogger(__name__)

RENEW = "lease_renew"
TIMES = "lease_times"
PROMOTE = "member_promote"
HASH_KV = "hash_kv"

UNREADABLE_QUESTION = EtcdError(Code.INVALID_ARGUMENT, "unreadable question of a member")
UNREADABLE_ANSWER = EtcdError(
    Code.INTERNAL, "etcdserver: unreadable answer of a member", outcome_known=False
)
_FAILURES = frozenset(int(code) for code in Code) - {int(Code.OK)}

Handler = Callable[[Any], Awaitable[Any]]


async def answer_call(handler: Handler, payload: bytes) -> bytes:
    """Runs a handler for a peer's question and packs what it returns or raises."""
    try:
        question = msgpack.unpackb(payload)
    except (ValueError, TypeError) as error:
        return _pack([False, int(Code.INVALID_ARGUMENT), f"unreadable question: {error}"])
    try:
        return _pack([True, await handler(question)])
    except EtcdError as error:
        detach(error)
        return _pack([False, int(error.code), error.message])


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def read_answer(answer: bytes) -> Any:
    """The value of an answer; raises the EtcdError that it carries, or UNREADABLE_ANSWER."""
    try:
        fields = msgpack.unpackb(answer)
    except (ValueError, TypeError):
        raise UNREADABLE_ANSWER from None
    match fields:
        case [True, value]:
            return value
        case [False, int(code), str(message)] if code in _FAILURES:
            known = CATALOGUE.get(message)
            raise known if known is not None else EtcdError(Code(code), message)
    raise UNREADABLE_ANSWER


def integer_of(question: Any) -> int:
    """A question that is one whole number; raises EtcdError for any other."""
    if type(question) is not int:
        raise UNREADABLE_QUESTION
    return question


def integers_of(question: Any) -> list[int]:
    """A question that is a list of whole numbers; raises EtcdError for any other."""
    if type(question) is not list:
        raise UNREADABLE_QUESTION
    return [integer_of(each) for each in question]


def integer_and_flag_of(question: Any) -> tuple[int, bool]:
    """A question that is a whole number and a flag; raises EtcdError for any other."""
    if type(question) is not list or len(question) != 2 or type(question[1]) is not bool:
        raise UNREADABLE_QUESTION
    return integer_of(question[0]), question[1]


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
        self._sending: dict[asyncio.Task[None], None] = {}
        """Calls under way, in the order in which they began: `close` cancels them in it."""

    async def ask(
        self,
        peer_id: int,
        method: str,
        question: Any,
        timeout_s: float = PEER_CALL_TIMEOUT_S,
    ) -> Any:
        """Asks one member once; no answer raises TIMEOUT."""
        if peer_id == self._own.member_id:
            return read_answer(await self._own.answers[method](_pack(question)))
        try:
            answer = await self._transport.call(peer_id, method, _pack(question), timeout_s)
        except (OSError, EOFError, TimeoutError) as error:
            _LOG.debug("no answer from %x to %s: %s", peer_id, method, error)
            raise TIMEOUT from error
        return read_answer(answer)

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
                    detach(error)
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
            self._sending[task] = None
            task.add_done_callback(lambda done: self._sending.pop(done, None))

    async def _renew(self, batch: dict[int, list[Done]]) -> None:
        try:
            ttls = await self.ask_leader(RENEW, list(batch))
            if type(ttls) is not list or len(ttls) != len(batch):
                raise UNREADABLE_ANSWER
        except EtcdError as error:
            detach(error)
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
                if type(ttls) is not list or len(ttls) != len(lease_ids):
                    raise UNREADABLE_ANSWER
            except EtcdError as error:
                done(None, error)
            else:
                done(ttls, None)

        if len(self._sending) >= MAX_WAITING_READS:
            done(None, TOO_MANY_REQUESTS)
            return
        task = asyncio.get_running_loop().create_task(ask())
        self._sending[task] = None
        task.add_done_callback(lambda done: self._sending.pop(done, None))

    def close(self) -> None:
        """Gives up on questions under way."""
        for task in list(self._sending):
            task.cancel()
