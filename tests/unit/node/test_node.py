"""Whole nodes: facade, loop, files and lifecycle, on a loopback network."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.machine import CommandKind
from kvstore.node.errors import StopKind
from kvstore.pb import rpc_pb2
from raft.messages import InstallSnapshot
from raft.node import RaftNode

from .nodes import Nodes, get, grant, keep_alive, put, running, until
from .on_loop import on_loop


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


@on_loop
async def test_commits_to_the_store_are_measured_one_by_one(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        sample = node.metrics.registry.get_sample_value
        name = "etcd_disk_backend_commit_duration_seconds"
        await until(lambda: node.machine.cluster_version)
        await put(node, b"first")
        before = (sample(f"{name}_count"), sample(f"{name}_sum"))
        began = time.perf_counter()
        for _ in range(10):
            await put(node, b"k")
        took_s = time.perf_counter() - began
        after = (sample(f"{name}_count"), sample(f"{name}_sum"))
        count, sum_s = (y - x for x, y in zip(before, after, strict=True))  # type: ignore[operator]
        assert 10 <= count <= 12
        assert 0 < sum_s < took_s


@on_loop
async def test_three_nodes_read_everywhere_what_was_written_anywhere(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as nodes:
        for name, node in nodes.by_name.items():
            await put(node, name.encode())
        for node in nodes.by_name.values():
            answer = await get(node, b"a", range_end=b"z")
            assert [kv.key for kv in answer.kvs] == [b"a", b"b", b"c"]


@on_loop
async def test_members_that_stop_together_do_not_wait_for_one_another(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c", heartbeat_ms=50, election_ms=700) as nodes:
        leader = await nodes.leader()
        others = [node for node in nodes.by_name.values() if node is not leader]
        began = time.perf_counter()
        # Told last, it still takes the others for its followers.
        await asyncio.gather(*(node.stop() for node in (*others, leader)))
        assert time.perf_counter() - began < 0.5


@on_loop
async def test_leadership_goes_to_the_next_voter_when_the_first_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, "a", "b", "c", heartbeat_ms=50, election_ms=700) as nodes:
        leader = await nodes.leader()
        transfer = leader.running.transfer
        asked: list[int] = []

        async def cut_off(target: int, timeout_s: float) -> bool:
            if not asked:
                nodes.network.isolate(target)
            asked.append(target)
            return await transfer(target, timeout_s)

        monkeypatch.setattr(leader.running, "transfer", cut_off)
        began = time.perf_counter()
        await leader.stop()
        assert time.perf_counter() - began < 0.5
        assert len(asked) == 2
        heir = next(node for node in nodes.by_name.values() if node.member_id == asked[1])
        assert heir.is_leader


@on_loop
async def test_stopping_the_leader_hands_over_and_it_comes_back_with_its_files(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, "a", "b", "c") as nodes:
        old = await nodes.leader()
        await put(old, b"before")
        await old.stop()
        assert (await old.wait_stopped()).kind is StopKind.ASKED
        new = await nodes.leader()
        assert new is not old
        await put(new, b"during")
        back = await nodes.start(old.config.name, nodes.urls("a", "b", "c"))
        assert len((await get(back, b"a", range_end=b"z")).kvs) == 2
        assert back.member_id == old.member_id


@on_loop
async def test_a_node_that_missed_too_much_is_sent_a_snapshot(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c", snapshot_catchup_entries=20) as nodes:
        leader = await nodes.leader()
        behind = next(node for node in nodes.by_name.values() if node is not leader)
        await behind.stop()
        for number in range(200):
            await put(leader, b"k%d" % number)
        back = await nodes.start(behind.config.name, nodes.urls("a", "b", "c"))
        await until(lambda: back.revision == leader.revision)
        assert nodes.network.snapshots == 1
        assert (await get(back, b"k199")).count == 1
        await put(back, b"after")
        await back.stop()
        again = await nodes.start(behind.config.name, nodes.urls("a", "b", "c"))
        assert (await get(again, b"after")).count == 1
        assert nodes.network.snapshots == 1


@on_loop
async def test_a_follower_that_needs_another_snapshot_at_once_gets_it(tmp_path: Path) -> None:
    """Raft asked for it as soon as it heard of the first; nobody listened, and it never again."""
    async with running(tmp_path, "a", "b") as nodes:
        leader = await nodes.leader()
        peer = next(each.member_id for each in nodes.by_name.values() if each is not leader)
        snapshots, heard = leader.running.snapshots, list[int | None]()

        def report(_raft: RaftNode, peer_id: int, index: int | None) -> None:
            heard.append(index)
            if len(heard) == 1:
                snapshots.send(peer_id)

        with patch.object(RaftNode, "report_snapshot", report):
            snapshots.send(peer)
            await until(lambda: len(heard) == 2)


@on_loop
async def test_a_snapshot_that_is_sent_once_more_does_not_take_the_first_one_with_it(
    tmp_path: Path,
) -> None:
    """The log begins behind that file: without it a power loss would be the member's end."""
    async with running(tmp_path, "a", "b", "c", snapshot_catchup_entries=20) as nodes:
        leader = await nodes.leader()
        behind = next(node for node in nodes.by_name.values() if node is not leader)
        await behind.stop()
        for number in range(200):
            await put(leader, b"k%d" % number)
        back = await nodes.start(behind.config.name, nodes.urls("a", "b", "c"))
        await until(lambda: back.revision == leader.revision)
        snapshots = back.running.snapshots
        file = snapshots.latest
        assert file is not None
        meta = back.running.opened.files.check_snapshot(file)
        message = InstallSnapshot(leader.member_id, back.member_id, leader.term, meta)
        snapshots.received(message, file.path)
        await back.running.copies.run(lambda: None)  # behind whatever it was told to remove
        assert file.path.exists()


@on_loop
async def test_a_watch_of_the_past_waits_while_the_store_is_replaced(tmp_path: Path) -> None:
    """There is a moment without an open store: to look into the past then was a failed disk."""
    async with running(tmp_path, "a") as nodes:
        node = await nodes.leader()
        await put(node, b"k")
        files = node.running.opened.files
        loop = asyncio.get_running_loop()
        take_next_store = files.take_next_store
        stream = node.watches.open(lambda: None)

        async def watch() -> None:
            create = rpc_pb2.WatchCreateRequest(key=b"k", start_revision=1)
            stream.request(rpc_pb2.WatchRequest(create_request=create))
            node.running.loop.turn_now()

        def with_a_watch_in_between() -> Any:
            files.close_store()
            asyncio.run_coroutine_threadsafe(watch(), loop).result(5)
            return take_next_store()

        files.take_next_store = with_a_watch_in_between  # type: ignore[method-assign]
        await node.defragment()
        await until(lambda: stream.pending == 2)
        assert not node.stopped
        events = rpc_pb2.WatchResponse.FromString(stream.take(2, 1 << 20)[1]).events
        assert [event.kv.key for event in events] == [b"k"]


@on_loop
async def test_without_a_quorum_requests_end_in_time_and_local_reads_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.node.timing.REQUEST_TIMEOUT_BASE_S", 0.5)
    async with running(tmp_path, "a", "b", "c") as nodes:
        leader = await nodes.leader()
        await put(leader, b"k")
        for node in list(nodes.by_name.values()):
            if node is not leader:
                await node.stop()
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(EtcdError) as write:
            await put(leader, b"lost")
        assert write.value.message.startswith("etcdserver: request timed out")
        assert 0.5 < loop.time() - began < 2
        assert (await get(leader, b"k", serializable=True)).count == 1
        assert leader.status().errors == ["etcdserver: no leader"]


@on_loop
async def test_leases_end_in_time_and_live_by_keep_alives_through_any_member(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, "a", "b", "c") as nodes:
        leader = await nodes.leader()
        follower = next(node for node in nodes.by_name.values() if node is not leader)
        kept, dropped = await grant(leader, 1), await grant(follower, 1)
        await put(follower, b"kept", lease=kept)
        await put(follower, b"dropped", lease=dropped)
        for _ in range(6):
            await asyncio.sleep(0.3)
            assert await keep_alive(follower, kept) == 1
        assert (await get(leader, b"kept")).count == 1
        assert (await get(leader, b"dropped")).count == 0
        assert await keep_alive(follower, dropped) == 0
        times = await follower.lease_time_to_live(kept, True)
        assert (times.granted_ttl, times.keys) == (1, [b"kept"])
        assert (await follower.lease_time_to_live(dropped, True)).ttl == -1
        assert follower.lease_list() == [kept]


@on_loop
async def test_a_member_is_added_as_learner_promoted_and_removed(tmp_path: Path) -> None:
    async with running(tmp_path, "a", strict_reconfig_check=False) as nodes:
        first = nodes.by_name["a"]
        await put(first, b"k")
        cluster = nodes.urls("a", "b")
        added, members = await first.member_add(list(cluster["b"]), True)
        assert added.is_learner
        assert len(members) == 2
        with pytest.raises(EtcdError) as error:
            await first.member_add(["http://c:2380"], True)
        assert error.value == errors.TOO_MANY_LEARNERS
        joined = await nodes.start("b", cluster, initial_cluster_state="existing")
        assert joined.member_id == added.id
        assert joined.cluster_id == first.cluster_id
        await until(lambda: joined.revision == first.revision and joined.is_learner)
        await until(lambda: joined.machine.members[added.id].name == "b")
        await joined.member_promote(added.id)
        assert not first.machine.members[added.id].is_learner
        await until(lambda: not joined.is_learner)
        await put(joined, b"two")
        await first.member_remove(added.id)
        reason = await asyncio.wait_for(joined.wait_stopped(), 5)
        assert reason.kind is StopKind.REMOVED
        assert not reason.fatal
        await joined.stop()
        assert await put(first, b"alone") > 0


@on_loop
async def test_members_publish_themselves_and_agree_on_a_version(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as nodes:
        node = nodes.by_name["b"]
        await until(lambda: all(m.client_urls for m in node.machine.members.values()))
        await until(lambda: node.cluster_version == "3.6.0")
        listed = await node.members(True)
        assert [m.id for m in listed] == sorted(m.id for m in listed)


@on_loop
async def test_the_quota_raises_an_alarm_that_refuses_puts_until_disarmed(tmp_path: Path) -> None:
    async with running(tmp_path, "a", quota_bytes=1 << 20) as nodes:
        node = nodes.by_name["a"]
        for number in range(40):
            await put(node, b"k%d" % number, bytes(20_000))
        assert node.over_quota(500_000)
        await until(lambda: node.alarms() == [(node.member_id, rpc_pb2.NOSPACE)])
        with pytest.raises(EtcdError) as error:
            await put(node, b"more")
        assert error.value == errors.NO_SPACE
        assert "alarm:NOSPACE" in node.status().errors[0]
        disarm = rpc_pb2.AlarmRequest(
            action=rpc_pb2.AlarmRequest.DEACTIVATE,
            memberID=node.member_id,
            alarm=rpc_pb2.NOSPACE,
        )
        await node.submit(CommandKind.ALARM, disarm.SerializeToString())
        assert await put(node, b"more") > 0


@on_loop
async def test_compaction_is_swept_in_the_background_and_defragment_gives_space_back(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, "a", compaction_sleep_ms=0.0) as nodes:
        node = nodes.by_name["a"]
        for _ in range(50):
            await put(node, b"same", bytes(100_000))
        before = node.status()
        request = rpc_pb2.CompactionRequest(revision=node.revision)
        await node.submit(CommandKind.COMPACT, request.SerializeToString())
        with pytest.raises(EtcdError) as error:
            await get(node, b"same", revision=3)
        assert error.value == errors.COMPACTED
        await until(lambda: node.machine.swept)
        await node.defragment()
        assert node.status().db_size < before.db_size // 2
        assert (await get(node, b"same")).kvs[0].version == 50
        assert await put(node, b"same") > 0


@on_loop
async def test_a_stop_waits_for_a_defragmentation_and_refuses_the_next(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        await put(node, b"k", b"1")
        both = [asyncio.ensure_future(node.defragment()) for _ in range(2)]
        await asyncio.sleep(0)
        await node.stop()
        first, second = await asyncio.gather(*both, return_exceptions=True)
        assert first is None
        assert second == errors.STOPPED
        (node,) = await nodes.start_all("a")
        assert (await get(node, b"k")).kvs[0].value == b"1"


@on_loop
async def test_hashes_of_members_are_equal_and_a_difference_raises_corrupt(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, "a", "b", "c") as nodes:
        leader = await nodes.leader()
        await put(leader, b"k")
        for node in nodes.by_name.values():
            await node.linearize()
        duties = leader.running.duties
        await duties.compare_hashes()
        assert (duties.hash_checks, duties.hash_not_compared) == (2, 0)
        bad = next(node for node in nodes.by_name.values() if node is not leader)
        store = bad.running.store
        txn = store.write()
        key, value = next(iter(store.read().scan("revisions")))
        txn.put("revisions", key, value + b"\x28\x01")
        txn.commit()
        await duties.compare_hashes()
        await until(lambda: (bad.member_id, rpc_pb2.CORRUPT) in leader.alarms())
        with pytest.raises(EtcdError) as error:
            await put(leader, b"k")
        assert error.value == errors.CORRUPT


@on_loop
async def test_a_large_range_leaves_room_for_others_and_comes_in_chunks(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        await asyncio.gather(*(put(node, b"k%05d" % n) for n in range(5000)))
        request = rpc_pb2.RangeRequest(key=b"k", range_end=b"l")
        pieces = [piece async for piece in node.range_chunks(request, 50_000)]
        whole = rpc_pb2.RangeResponse.FromString(b"".join(body for _, body, _ in pieces))
        assert whole.count == 5000
        assert [kv.key for kv in whole.kvs] == [b"k%05d" % n for n in range(5000)]
        assert [last for _, _, last in pieces] == [False] * (len(pieces) - 1) + [True]
        assert max(len(body) for _, body, _ in pieces) < 150_000
        limited = rpc_pb2.RangeRequest(key=b"k", range_end=b"l", limit=37)
        pieces = [piece async for piece in node.range_chunks(limited, 50_000)]
        part = rpc_pb2.RangeResponse.FromString(b"".join(body for _, body, _ in pieces))
        assert (len(part.kvs), part.count, part.more) == (37, 5000, True)


@on_loop
async def test_a_backup_stream_has_a_length_that_etcds_clients_accept(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        await put(node, b"k", bytes(100_000))
        chunks = [chunk async for chunk in node.snapshot_chunks(4096)]
        total = sum(len(blob) for blob, _ in chunks)
        assert total % 512 == 0
        assert chunks[-1][1] == 0
        assert chunks[0][1] == total - 4096


@on_loop
async def test_moving_leadership(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as nodes:
        leader = await nodes.leader()
        other = next(node for node in nodes.by_name.values() if node is not leader)
        with pytest.raises(EtcdError) as error:
            await other.move_leader(leader.member_id, 1.0)
        assert error.value == errors.NOT_LEADER
        with pytest.raises(EtcdError) as error:
            await leader.move_leader(12345, 1.0)
        assert error.value == errors.BAD_LEADER_TRANSFEREE
        await leader.move_leader(other.member_id, 2.0)
        await until(lambda: other.is_leader)


@on_loop
async def test_a_store_left_by_another_boot_is_rebuilt(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        await put(nodes.by_name["a"], b"k")
    mark = tmp_path / "a" / "member" / "db" / "store.mark"
    mark.unlink()
    nodes = Nodes(tmp_path)
    node = (await nodes.start_all("a"))[0]
    try:
        assert (await get(node, b"k")).count == 1
        assert list(mark.parent.glob("store.mdb.aside*"))
    finally:
        await nodes.stop_all()


@on_loop
async def test_a_failed_disk_ends_the_member_for_good(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]

        def fail(*_: Any) -> None:
            raise OSError(5, "Input/output error")

        node.running.opened.wal.write = fail  # type: ignore[method-assign]
        waiting = asyncio.ensure_future(put(node, b"k"))
        reason = await asyncio.wait_for(node.wait_stopped(), 5)
        assert reason.kind is StopKind.DISK
        assert reason.fatal
        assert node.stopped
        await node.stop()
        with pytest.raises(EtcdError) as error:
            await waiting
        assert error.value == errors.STOPPED
