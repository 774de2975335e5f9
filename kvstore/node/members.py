"""Carrying out membership changes: judge, propose, wait until applied.

One change at a time is what the log allows; while another is under way a new one is offered
again until its time is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.machine.membership import Member
from kvstore.node.limits import CONF_CHANGE_RETRY_S
from kvstore.node.membership import Judge, conf_change, learner_ready, member_id_of
from kvstore.node.remote import HASH_KV, PROMOTE, integer_of
from raft.types import ConfChange, ConfChangeKind

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("MemberChanges",)

_LOG = logging.getLogger(__name__)


class MemberChanges:
    """The cluster service's work. `unix_time` is asked only to make ids of new members unique."""

    def __init__(self, node: Node, unix_time: Callable[[], float]) -> None:
        self._node = node
        self._unix_time = unix_time

    def _judge(self) -> Judge:
        node = self._node
        return Judge(
            node.machine.members,
            node.member_id,
            node.clock(),
            node.running.peers.active_since,
            strict=node.config.strict_reconfig_check,
        )

    async def add(
        self, peer_urls: tuple[str, ...], is_learner: bool
    ) -> tuple[Member, list[Member]]:
        """Adds a voter or learner."""
        node = self._node
        self._judge().add(peer_urls, learner=is_learner, max_learners=node.config.max_learners)
        member_id = member_id_of(peer_urls, "", str(int(self._unix_time())))
        member = Member(member_id, "", peer_urls, (), is_learner)
        kind = ConfChangeKind.ADD_LEARNER if is_learner else ConfChangeKind.ADD_VOTER
        await self._change(conf_change(kind, member))
        _LOG.info("added member %x at %s", member_id, ", ".join(peer_urls))
        return node.machine.members.get(member_id, member), await node.members(False)

    async def remove(self, member_id: int) -> list[Member]:
        """Removes a member."""
        self._judge().remove(member_id)
        await self._change(conf_change(ConfChangeKind.REMOVE, Member(member_id)))
        _LOG.info("removed member %x", member_id)
        return await self._node.members(False)

    async def update(self, member_id: int, peer_urls: tuple[str, ...]) -> list[Member]:
        """Changes a member's peer URLs."""
        self._judge().update(member_id, peer_urls)
        member = Member(member_id, peer_urls=peer_urls)
        await self._change(conf_change(ConfChangeKind.UPDATE, member))
        return await self._node.members(False)

    async def promote(self, member_id: int) -> list[Member]:
        """Promotes a learner; only the leader can judge it, so others ask the leader."""
        node = self._node
        if node.is_leader:
            await self.promote_here(member_id)
        else:
            await node.calls.ask_leader(PROMOTE, member_id)
            await node.linearize()
        return await node.members(False)

    async def promote_here(self, member_id: int) -> None:
        """The leader's part of a promotion."""
        node = self._node
        if not node.is_leader:
            raise errors.NOT_LEADER
        self._judge().promote(member_id, ready=self._in_sync)
        change = conf_change(ConfChangeKind.ADD_VOTER, Member(member_id), promote=True)
        await self._change(change)
        _LOG.info("promoted member %x", member_id)

    def _in_sync(self, member_id: int) -> bool:
        raft = self._node.running.core.raft
        progress = raft.progress()
        learner = progress.get(member_id)
        return learner is not None and learner_ready(learner[0], raft.last_index)

    async def _change(self, build: Callable[[int], ConfChange]) -> None:
        """Proposes until Raft takes the change, then waits until it is applied."""
        node = self._node
        core = node.running.core
        loop = asyncio.get_running_loop()
        deadline = loop.time() + core.timing.request_s
        outcome: asyncio.Future[None] = loop.create_future()

        def done(_value: Any, error: EtcdError | None) -> None:
            if outcome.done():
                return
            if error is None:
                outcome.set_result(None)
            else:
                outcome.set_exception(EtcdError(error.code, error.message))

        while not core.change_membership(build, done):
            if loop.time() > deadline:
                raise errors.TIMEOUT
            await asyncio.sleep(CONF_CHANGE_RETRY_S)
        node.running.loop.wake()
        await outcome

    def answer_table(self) -> dict[str, Callable[[Any], Awaitable[Any]]]:
        """What other members may ask about members and their state."""

        async def promote(question: Any) -> Any:
            await self.promote_here(integer_of(question))

        async def hash_kv(question: Any) -> Any:
            revision = integer_of(question)
            if revision > self._node.revision:
                # Only behind, not different: what the leader has is on its way here.
                await self._node.linearize()
            return list(await self._node.hash_kv(revision))

        return {PROMOTE: promote, HASH_KV: hash_kv}
