"""What a layer on top of a member gets: batches, renewals of many leases, and the hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.machine import ABSENT, ANY_REVISION, BatchAction, BatchFailure, BatchItem, Change
from kvstore.node.limits import MAX_RENEWALS_PER_CALL
from kvstore.node.node import Node
from kvstore.pb import rpc_pb2

from .nodes import get, grant, put, running, until
from .on_loop import on_loop


class Notes:
    """An overlay that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.hold: set[int] = set()

    def changed(self, changes: Sequence[Change] | None) -> None:
        self.told.append(None if changes is None else [change.key for change in changes])

    def members_changed(self) -> None:
        """Not noted."""

    def led(self, leads: bool) -> None:
        self.told.append(leads)

    def renewed(self, lease_ids: Sequence[int], now: float) -> None:
        self.told.append(tuple(lease_ids))

    def held(self, lease_id: int) -> bool:
        return lease_id in self.hold


async def renew(node: Node, lease_ids: list[int]) -> list[int]:
    future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def done(ttls: Any, error: EtcdError | None) -> None:
        if error is not None:
            future.set_exception(EtcdError(error.code, error.message))
        else:
            future.set_result(ttls)

    node.renew_leases(lease_ids, done)
    return await future


def item(key: bytes, action: BatchAction = BatchAction.PUT_KEEP, **more: Any) -> BatchItem:
    return BatchItem(key, more.pop("expected", ANY_REVISION), action, **more)


@on_loop
async def test_a_batch_through_any_member_is_answered_item_by_item(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as nodes:
        leader = await nodes.leader()
        follower = next(node for node in nodes.by_name.values() if node is not leader)
        answer = await follower.submit_batch(
            [
                item(b"a", BatchAction.PUT_NEW_LEASE, value=b"1", lease=7, ttl_s=60),
                item(b"b", expected=3),
                item(b"c", value=b"1", expected=ABSENT),
            ]
        )
        assert answer.revision == 2
        assert [outcome.failure for outcome in answer.outcomes] == [
            BatchFailure.NONE,
            BatchFailure.CONFLICT,
            BatchFailure.NONE,
        ]
        assert (await get(leader, b"a")).kvs[0].lease == 7
        assert 7 in leader.lease_list()
        void = await follower.submit_batch([item(b"c")], if_term=leader.term + 1)
        assert void.outcomes == [(BatchFailure.VOID, 2)]
        assert void.revision == 2
        assert leader.machine.clock_ms > 1_600_000_000_000


@on_loop
async def test_a_batch_that_does_not_fit_is_refused_whole(tmp_path: Path) -> None:
    async with running(tmp_path, "a", quota_bytes=1, max_request_bytes=2_000) as nodes:
        node = nodes.by_name["a"]
        with pytest.raises(EtcdError) as error:
            await node.submit_batch([item(b"a")])
        assert error.value == errors.NO_SPACE
        await until(lambda: (node.member_id, rpc_pb2.NOSPACE) in node.alarms())
        answer = await node.submit_batch([item(b"a", BatchAction.DELETE)])
        assert answer.outcomes == [(BatchFailure.CONFLICT, 0)]
        with pytest.raises(EtcdError) as error:
            await node.submit_batch([item(b"a" * 2_000, BatchAction.DELETE)])
        assert error.value == errors.REQUEST_TOO_LARGE


@on_loop
async def test_many_leases_are_renewed_at_once_through_any_member(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as nodes:
        leader = await nodes.leader()
        leases = [await grant(leader, 30) for _ in range(3)]
        for node in nodes.by_name.values():
            assert await renew(node, [*leases, 404]) == [30, 30, 30, 0]
            assert await renew(node, []) == []
            with pytest.raises(EtcdError) as error:
                await renew(node, [1] * (MAX_RENEWALS_PER_CALL + 1))
            assert error.value == errors.REQUEST_TOO_LARGE


@on_loop
async def test_an_overlay_hears_of_changes_leadership_and_renewals(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        notes = Notes()
        node.support(notes)
        assert notes.told == [True]
        lease = await grant(node, 30)
        await put(node, b"k")
        assert notes.told.pop() == [b"k"]
        assert await renew(node, [lease, 404]) == [30, 0]
        assert notes.told.pop() == (lease,)


@on_loop
async def test_an_overlay_hears_of_a_lost_leadership(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as nodes:
        leader = await nodes.leader()
        notes = {node: Notes() for node in nodes.by_name.values()}
        for node, each in notes.items():
            node.support(each)
        heir = next(node for node in notes if node is not leader)
        await leader.move_leader(heir.member_id, 5.0)
        await until(lambda: True in notes[heir].told and False in notes[leader].told)
        assert [leads for leads in notes[leader].told if leads in (True, False)] == [True, False]


@on_loop
async def test_a_held_lease_survives_its_time(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        notes = Notes()
        lease, other = await grant(node, 1), await grant(node, 1)
        notes.hold.add(lease)
        node.support(notes)
        await until(lambda: other not in node.machine.leases)
        assert lease in node.machine.leases
        assert await renew(node, [lease]) == [1]
        notes.hold.clear()
        await until(lambda: lease not in node.machine.leases)


@on_loop
async def test_members_answer_questions_that_a_layer_on_top_added(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as nodes:
        asked, asking = nodes.by_name["a"], nodes.by_name["b"]

        async def double(question: Any) -> Any:
            return question * 2

        asked.answer("double", double)
        assert await asking.calls.ask(asked.member_id, "double", 21) == 42
