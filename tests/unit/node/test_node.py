"""Whole nodes: facade, loop, files and lifecycle, on a loopback network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.machine import CommandKind
from kvstore.node.errors import StopKind
from kvstore.node.node import Node
from kvstore.pb import rpc_pb2

from .nodes import Nodes, get, grant, keep_alive, put, running, until

Test = Callable[..., Coroutine[Any, Any, None]]


def on_loop(test: Test) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run


@on_loop
async def test_one_node_writes_reads_and_remembers(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        assert await put(node, b"k", b"one") == 2
        answer = await get(node, b"k")
        assert answer.kvs[0].value == b"one"
        assert answer.header.revision == 2
        assert (answer.header.cluster_id, answer.header.member_id) == (
            node.cluster_id,
            node.member_id,
        )
        ids = (node.cluster_id, node.member_id)
    nodes = Nodes(tmp_path)
    node = (await nodes.start_all("a"))[0]
    try:
        assert (node.cluster_id, node.member_id) == ids
        assert (await get(node, b"k")).kvs[0].value == b"one"
        assert await put(node, b"k", b"two") == 3
    finally:
        await nodes.stop_all()
