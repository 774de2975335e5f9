"""Settings whose effect takes minutes, or several members, to see."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from .nodes import put, running, until
from .on_loop import on_loop


@on_loop
async def test_revisions_beyond_those_to_keep_are_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.node.maintenance.REVISION_COMPACTION_CHECK_S", 0.02)
    settings = {"auto_compaction_mode": "revision", "auto_compaction_retention": 10.0}
    async with running(tmp_path, "a", **settings) as nodes:
        node = nodes.by_name["a"]
        for _ in range(30):
            await put(node, b"k")
        await until(lambda: node.compact_revision == node.revision - 10)
        for _ in range(5):
            await put(node, b"k")
        await until(lambda: node.compact_revision == node.revision - 10)


@on_loop
@pytest.mark.parametrize("setting", ["compact_hash_check_s", "corrupt_check_s"])
async def test_hashes_are_compared_as_often_as_is_asked_for(tmp_path: Path, setting: str) -> None:
    settings = {"compact_hash_check_s": 0.0, setting: 0.05}
    async with running(tmp_path, "a", "b", **settings) as nodes:
        leader = await nodes.leader()
        await until(lambda: leader.running.duties.hash_checks >= 2)


@on_loop
@pytest.mark.parametrize("pre_vote", [True, False])
async def test_without_pre_vote_a_member_that_is_cut_off_raises_its_term(
    tmp_path: Path, pre_vote: bool
) -> None:
    async with running(tmp_path, "a", "b", "c", pre_vote=pre_vote) as nodes:
        leader = await nodes.leader()
        cut_off = next(node for node in nodes.by_name.values() if node is not leader)
        term = leader.term
        nodes.network.isolate(cut_off.member_id)
        if pre_vote:
            await until(lambda: not cut_off.leader_id)
            await asyncio.sleep(0.5)
            assert cut_off.term == term
        else:
            await until(lambda: cut_off.term > term + 1)
