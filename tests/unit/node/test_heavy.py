"""Requests that touch very many keys, on real files: nothing waits that need not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kvstore.machine import CommandKind
from kvstore.node.node import Node
from kvstore.pb import rpc_pb2

from .nodes import get, put, running
from .on_loop import on_loop

KEYS = 400


async def load(node: Node) -> None:
    await asyncio.gather(*(put(node, b"k%04d" % number, b"v" * 50) for number in range(KEYS)))


@on_loop
async def test_a_long_delete_is_committed_in_a_thread_and_puts_go_on(tmp_path: Path) -> None:
    small = (
        patch("kvstore.machine.draft.SLICE_DELETES", 2),
        patch("kvstore.machine.draft.CHANGES_MAX", 100),
        patch("kvstore.node.applying.LONG_BATCH_SLICES", 4),
    )
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        await load(node)
        woken = asyncio.Event()
        stream = node.watches.open(woken.set)
        create = rpc_pb2.WatchCreateRequest(key=b"k", range_end=b"l")
        stream.request(rpc_pb2.WatchRequest(create_request=create))
        with small[0], small[1], small[2]:
            request = rpc_pb2.DeleteRangeRequest(key=b"k", range_end=b"l").SerializeToString()
            delete = asyncio.ensure_future(node.submit(CommandKind.DELETE_RANGE, request))
            await asyncio.sleep(0)
            first = await put(node, b"x")
            assert not delete.done()
            result = await delete
        assert first == result.revision + 1
        assert rpc_pb2.DeleteRangeResponse.FromString(result.body).deleted == KEYS
        assert (await get(node, b"k", range_end=b"l")).count == 0
        assert node.running.store._long_thread is not None  # type: ignore[attr-defined]
        events: list[Any] = []
        while len(events) < KEYS:
            await asyncio.wait_for(woken.wait(), 5)
            woken.clear()
            for message in stream.take(100, 1 << 30):
                events += rpc_pb2.WatchResponse.FromString(message).events
        assert [event.kv.key for event in events] == [b"k%04d" % n for n in range(KEYS)]
        assert {event.kv.mod_revision for event in events} == {result.revision}


@on_loop
async def test_a_large_answer_is_put_together_elsewhere_and_is_the_same(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        await load(node)
        request = rpc_pb2.RangeRequest(key=b"k", range_end=b"l")
        answers = []
        for limit in (1 << 20, 1_000):
            with patch("kvstore.node.node.LARGE_ANSWER_BYTES", limit):
                answers.append(await node._awaited(lambda to: node.range_response(request, to)))
        assert answers[0] == answers[1]
        parsed = rpc_pb2.RangeResponse.FromString(answers[0])
        assert (parsed.count, len(parsed.kvs), parsed.header.revision) == (KEYS, KEYS, KEYS + 1)


@on_loop
async def test_turns_do_not_multiply_while_there_is_work(tmp_path: Path) -> None:
    """Each write to disk takes a turn out of order; only one more may ever be scheduled."""
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        loop = node.running.loop
        turns = 0
        real = loop._work

        def always_busy() -> bool:
            nonlocal turns
            turns += 1
            real()
            return True

        with patch.object(loop, "_work", always_busy):
            for number in range(30):
                await put(node, b"k%d" % number)
            before = turns
            for _ in range(20):
                await asyncio.sleep(0)
        assert turns - before <= 3 * 20
