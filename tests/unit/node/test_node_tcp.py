"""Whole nodes over real sockets: the same member, the peers' TCP in place of the loopback."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from kvstore.node.errors import BadConfiguration, StopKind
from kvstore.node.node import Node
from kvstore.node.peers import Peers, TcpNetwork

from .nodes import get, grant, keep_alive, put, running, until
from .on_loop import on_loop


@on_loop
async def test_three_nodes_over_tcp_survive_the_loss_of_their_leader(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c", network=TcpNetwork()) as nodes:
        for name, node in nodes.by_name.items():
            await put(node, name.encode())
        old = await nodes.leader()
        await old.stop()
        new = await nodes.leader()
        await put(new, b"d")
        back = await nodes.start(old.config.name, nodes.urls("a", "b", "c"))
        answer = await get(back, b"a", range_end=b"z")
        assert [kv.key for kv in answer.kvs] == [b"a", b"b", b"c", b"d"]
        lease = await grant(back, 5)
        assert await keep_alive(back, lease) == 5
        assert (await back.lease_time_to_live(lease, False)).granted_ttl == 5


@on_loop
async def test_a_snapshot_over_tcp(tmp_path: Path) -> None:
    network = TcpNetwork()
    settings = {"snapshot_catchup_entries": 20, "network": network}
    async with running(tmp_path, "a", "b", "c", **settings) as nodes:
        leader = await nodes.leader()
        behind = next(node for node in nodes.by_name.values() if node is not leader)
        await behind.stop()
        for number in range(200):
            await put(leader, b"k%d" % number, bytes(5000))
        back = await nodes.start(behind.config.name, nodes.urls("a", "b", "c"))
        await until(lambda: back.revision == leader.revision)
        assert (await get(back, b"k199")).count == 1


@on_loop
async def test_joining_over_tcp_and_being_removed(tmp_path: Path) -> None:
    async with running(tmp_path, "a", network=TcpNetwork(), strict_reconfig_check=False) as nodes:
        first = nodes.by_name["a"]
        await put(first, b"k")
        cluster = nodes.urls("a", "b")
        added, _ = await first.member_add(list(cluster["b"]), False)
        joined = await nodes.start("b", cluster, initial_cluster_state="existing")
        assert joined.member_id == added.id
        assert (await get(joined, b"k")).count == 1
        await joined.member_remove(added.id)
        reason = await asyncio.wait_for(joined.wait_stopped(), 5)
        assert reason.kind is StopKind.REMOVED
        await joined.stop()
        assert await put(first, b"alone") > 0


@on_loop
async def test_a_peer_port_that_is_taken_is_named_and_the_member_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, "a", network=TcpNetwork()) as nodes:
        urls = nodes.urls("a")["a"]
        threads = threading.active_count()
        refused = Node(nodes.config("b", {"b": urls}), network=nodes.network)
        async with asyncio.timeout(2):
            with pytest.raises(BadConfiguration, match="cannot listen for peers at http://127"):
                await refused.start()
            await refused.stop()
        await until(lambda: threading.active_count() == threads)
        # Nor does it hold the data directory: with a port of its own it starts.
        await nodes.start("b", {"b": urls}, listen_peer_urls=nodes.urls("b")["b"])


@on_loop
async def test_a_start_that_is_called_off_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, network=TcpNetwork()) as nodes:
        listening = asyncio.Event()

        async def slow(_: Peers) -> None:
            listening.set()
            await asyncio.sleep(60)

        node = Node(nodes.config("a", nodes.urls("a")), network=nodes.network)
        with monkeypatch.context() as patch:
            patch.setattr(Peers, "start", slow)
            starting = asyncio.create_task(node.start())
            await listening.wait()
            starting.cancel()
            async with asyncio.timeout(2):
                with pytest.raises(asyncio.CancelledError):
                    await starting
        await nodes.start_all("a")
