"""Keep-alives and remaining times: answered by the leader, fetched from it by the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.machine import View
from kvstore.node.answers import LeaseTimes
from kvstore.node.limits import MAX_RENEWALS_PER_CALL
from kvstore.node.proposals import Done
from kvstore.node.remote import (
    RENEW,
    TIMES,
    UNREADABLE_ANSWER,
    integer_and_flag_of,
    integers_of,
)

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("LeaseCalls",)


class LeaseCalls:
    """What a member knows or asks about the deadlines of leases."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def keep_alive(self, lease_id: int, done: Done) -> None:
        """Renews a lease, here or at the leader; `done` gets the TTL, 0 if there is none."""
        running = self._node.running
        if self._node.stopped:
            done(None, errors.STOPPED)
            return
        if running.core.is_leader:
            running.core.renew_leases(((lease_id, done),))
        else:
            running.calls.renew(lease_id, done)
        running.loop.wake()

    def renew(self, lease_ids: Sequence[int], done: Done) -> None:
        """Renews many leases with one confirmation, or one question to the leader.

        `done` gets the list of their TTLs, 0 for each that there is not.
        """
        running = self._node.running
        if self._node.stopped:
            done(None, errors.STOPPED)
        elif not lease_ids:
            done([], None)
        elif len(lease_ids) > MAX_RENEWALS_PER_CALL:
            done(None, errors.REQUEST_TOO_LARGE)
        elif running.core.is_leader:
            running.core.renew_many(lease_ids, done)
            running.loop.wake()
        else:
            running.calls.renew_many(lease_ids, done)

    async def times(self, lease_id: int, keys: bool) -> LeaseTimes:
        """Remaining and granted time, as the leader counts it."""
        if self._node.is_leader:
            return await self._own_times(lease_id, keys)
        answer = await self._node.calls.ask_leader(TIMES, [lease_id, keys])
        match answer:
            case [int(ttl), int(granted_ttl), [*attached]]:
                return LeaseTimes(ttl, granted_ttl, attached)
        raise UNREADABLE_ANSWER

    async def _own_times(self, lease_id: int, keys: bool) -> LeaseTimes:
        """The leader's answer; LEADER_CHANGED from somebody who is not."""

        def reading(view: View) -> Any:
            if not keys:
                return []
            return (yield from view.lease_keys(lease_id))

        attached = await self._node.reading(reading, linearizable=True)
        core = self._node.running.core
        if not core.lessor.primary:
            raise errors.LEADER_CHANGED
        remaining = core.lessor.remaining_s(lease_id, core.clock())
        lease = core.machine.leases.get(lease_id)
        if remaining is None or lease is None:
            return LeaseTimes(-1, 0, [])
        return LeaseTimes(int(remaining), lease.ttl_s, attached)

    async def _own_renewals(self, lease_ids: list[int]) -> list[int]:
        """The leader's answer to a follower's batch of keep-alives: a TTL for each."""
        core = self._node.running.core
        if not core.is_leader:
            raise errors.NOT_PRIMARY_LESSOR
        if not lease_ids:
            return []
        outcome: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

        def done(ttls: Any, error: EtcdError | None) -> None:
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(EtcdError(error.code, error.message))
            else:
                outcome.set_result(ttls)

        core.renew_many(lease_ids, done)
        self._node.running.loop.wake()
        return await outcome

    def answer_table(self) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        """What other members may ask about leases."""

        async def renewals(question: Any) -> Any:
            return await self._own_renewals(integers_of(question))

        async def times(question: Any) -> Any:
            return list(await self._own_times(*integer_and_flag_of(question)))

        return {RENEW: renewals, TIMES: times}
