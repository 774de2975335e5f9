"""How members begin, begin again, and refuse to begin."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from kvstore.node.bootstrap import first_members
from kvstore.node.errors import (
    BadConfiguration,
    ClusterUnreachable,
    DataDirUnusable,
    ForeignDataDir,
    NotAMember,
    StartupError,
    StopKind,
)
from kvstore.node.files import MemberFiles
from kvstore.node.membership import cluster_id_of
from kvstore.node.snapshots import Snapshots
from kvstore.storage.disk import OsDisk
from kvstore.storage.errors import DirectoryLocked, WalCorrupt, WalMissing
from kvstore.storage.wal import Wal
from raft.types import HardState

from .nodes import Nodes, get, put, running, until
from .on_loop import on_loop


async def refusal(nodes: Nodes, name: str, *names: str, **settings: object) -> str:
    with pytest.raises(StartupError) as error:
        await nodes.start(name, nodes.urls(*names), **settings)
    return str(error.value)


@on_loop
async def test_flags_that_contradict_each_other(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    with pytest.raises(BadConfiguration, match="--initial-cluster names b"):
        await nodes.start("a", {"b": ("http://b:1",), "a": ()}, initial_cluster=nodes.urls("b"))
    with pytest.raises(BadConfiguration, match="must be the same"):
        await nodes.start("a", nodes.urls("a"), advertise_peer_urls=("http://other:1",))
    with pytest.raises(BadConfiguration, match="must be 'new' or 'existing'"):
        await nodes.start("a", nodes.urls("a"), initial_cluster_state="old")
    with pytest.raises(BadConfiguration, match="the same peer URLs"):
        await nodes.start("a", {"a": ("http://x:1",), "b": ("http://x:1",)})


@on_loop
async def test_a_refused_start_leaves_the_directory_free(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    with pytest.raises(BadConfiguration):
        await nodes.start("a", nodes.urls("a"), initial_cluster_state="existing")
    await nodes.start("a", nodes.urls("a"))
    await nodes.stop_all()


@on_loop
async def test_two_processes_cannot_use_one_directory(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        with pytest.raises(DirectoryLocked):
            await Nodes(tmp_path).start("a", nodes.urls("a"))


@on_loop
async def test_joining_needs_somebody_to_ask_and_to_be_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.node.bootstrap.JOIN_TIMEOUT_S", 0.1)
    nodes = Nodes(tmp_path)
    with pytest.raises(ClusterUnreachable, match="http://a:2380"):
        await nodes.start("b", nodes.urls("a", "b"), initial_cluster_state="existing")
    async with running(tmp_path, "a") as nodes:
        with pytest.raises(NotAMember, match="member add"):
            await nodes.start("b", nodes.urls("a", "b"), initial_cluster_state="existing")
        await nodes.by_name["a"].member_add(["http://b:2380"], True)
        with pytest.raises(BadConfiguration, match="has 2 members, --initial-cluster has 3"):
            await nodes.start("b", nodes.urls("a", "b", "c"), initial_cluster_state="existing")


@on_loop
async def test_a_member_that_lost_its_files_must_not_vote_again(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as nodes:
        lost = nodes.by_name.pop("c")
        leader = nodes.by_name["a"]
        await until(lambda: leader.machine.members[lost.member_id].client_urls)
        await lost.stop()
        shutil.rmtree(tmp_path / "c")
        with pytest.raises(NotAMember, match="member remove"):
            await nodes.start("c", nodes.urls("a", "b", "c"))
        with pytest.raises(NotAMember, match="what it promised is lost"):
            await nodes.start("c", nodes.urls("a", "b", "c"), initial_cluster_state="existing")


@on_loop
async def test_a_directory_of_another_cluster_is_refused_and_old_flags_are_not(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, "a") as nodes:
        await put(nodes.by_name["a"], b"k")
    nodes = Nodes(tmp_path)
    foreign = {"a": ("http://other:2380",)}
    with pytest.raises(ForeignDataDir, match="belongs to member"):
        await nodes.start("a", foreign)
    grown = nodes.urls("a", "b")
    node = await nodes.start("a", grown)
    await nodes.leader()
    assert (await get(node, b"k")).count == 1
    await nodes.stop_all()


@on_loop
@pytest.mark.parametrize(
    "flags",
    [
        {"initial_cluster": {}},
        {"initial_cluster": {}, "advertise_peer_urls": ("http://localhost:2380",)},
        {"initial_cluster": {"b": ("http://a:2380",)}},
        {"initial_cluster": {"a": ("http://a:2380", "http://more:2380")}},
        {"name": "renamed"},
        {"advertise_peer_urls": ("http://moved:2380",)},
        {"initial_cluster": {"b": ("http://b:1",)}, "initial_cluster_state": "existing"},
    ],
)
async def test_after_the_first_start_the_flags_that_found_a_cluster_do_not_matter(
    tmp_path: Path, flags: dict[str, Any]
) -> None:
    nodes = Nodes(tmp_path)
    node = (await nodes.start_all("a"))[0]
    await nodes.stop_all()
    nodes.settings.update(flags)
    again = await nodes.start("a", nodes.urls("a"))
    assert (again.cluster_id, again.member_id) == (node.cluster_id, node.member_id)
    await nodes.stop_all()


@on_loop
async def test_without_a_list_of_members_one_founds_a_cluster_of_its_own(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        cluster = nodes.urls("a")
        node = await nodes.start("a", cluster, initial_cluster={})
        assert node.cluster_id == cluster_id_of(first_members(cluster, "etcd-cluster"))
        await nodes.leader()


@on_loop
async def test_a_removed_member_does_not_start_again(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c", strict_reconfig_check=False) as nodes:
        leader = await nodes.leader()
        gone = next(node for node in nodes.by_name.values() if node is not leader)
        await leader.member_remove(gone.member_id)
        await asyncio.wait_for(gone.wait_stopped(), 5)
        await gone.stop()
        name, urls = gone.config.name, nodes.urls("a", "b", "c")
        if gone.member_id in gone.machine.removed_members:
            with pytest.raises(NotAMember, match="was removed"):
                await nodes.start(name, urls)
        else:
            # The commit of its removal never reached it; the others told it, and tell it again.
            again = await nodes.start(name, urls)
            reason = await asyncio.wait_for(again.wait_stopped(), 10)
            assert reason.kind is StopKind.REMOVED


class Killed(BaseException):
    """The process ends here; nothing under test may handle it."""


def kill_at(patch: pytest.MonkeyPatch, step: str) -> None:
    """Ends the process before this step of `MemberFiles`, with no orderly close."""

    def killed(*_: object, **__: object) -> None:
        raise Killed(step)

    patch.setattr(MemberFiles, step, killed)


FIRST_STEPS = ("begin", "open_store", "write_snapshot", "create_log", "_begun")


@pytest.mark.parametrize("unsafe", [False, True])
@on_loop
async def test_a_member_told_not_to_wait_for_the_disk_never_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsafe: bool
) -> None:
    waits: list[str] = []
    monkeypatch.setattr("os.fdatasync", lambda _fd: waits.append("file"))
    monkeypatch.setattr("os.fsync", lambda _fd: waits.append("directory"))
    for _ in ("new", "again"):
        async with running(tmp_path, "a", unsafe_no_fsync=unsafe) as nodes:
            node = nodes.by_name["a"]
            await put(node, b"k")
            await node.running.snapshots.make()
    assert set(waits) == (set() if unsafe else {"file", "directory"})


@pytest.mark.parametrize("step", FIRST_STEPS)
@on_loop
async def test_a_beginning_that_was_interrupted_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    nodes = Nodes(tmp_path)
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        for _ in range(2):
            with pytest.raises(Killed):
                await nodes.start("a", nodes.urls("a"))
    node = (await nodes.start_all("a"))[0]
    assert not (tmp_path / "a" / "member" / "beginning").exists()
    assert node.revision == 1
    await put(node, b"k")
    await nodes.stop_all()
    nodes = Nodes(tmp_path)
    assert (await get((await nodes.start_all("a"))[0], b"k")).count == 1
    await nodes.stop_all()


@pytest.mark.parametrize("step", ["begin", "open_store", "create_log", "_begun"])
@on_loop
async def test_joining_that_was_interrupted_is_done_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async with running(tmp_path, "a") as nodes:
        await nodes.by_name["a"].member_add(["http://b:2380"], True)
        with monkeypatch.context() as patch:
            kill_at(patch, step)
            with pytest.raises(Killed):
                await nodes.start("b", nodes.urls("a", "b"), initial_cluster_state="existing")
        node = await nodes.start("b", nodes.urls("a", "b"), initial_cluster_state="existing")
        await until(lambda: node.revision == nodes.by_name["a"].revision)
        assert not (tmp_path / "b" / "member" / "beginning").exists()


def files_of(directory: Path) -> dict[Path, bytes]:
    """Everything but the lock, which names whoever came last."""
    return {
        path: path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "lock"
    }


@pytest.mark.parametrize("state", ["new", "existing"])
@on_loop
async def test_a_member_without_its_log_directory_must_not_vote_again(
    tmp_path: Path, state: str
) -> None:
    logs = tmp_path / "mount" / "a"
    nodes = Nodes(tmp_path, wal_dir=logs)
    node = (await nodes.start_all("a"))[0]
    await put(node, b"k")
    await nodes.stop_all()
    moved = logs.rename(tmp_path / "unmounted")
    before = files_of(tmp_path)
    for missing in (True, False):
        if not missing:
            logs.mkdir()  # a mount point with nothing mounted
        with pytest.raises(WalMissing) as error:
            await nodes.start("a", nodes.urls("a"), initial_cluster_state=state)
        assert f"no log segment in {logs}, but " in str(error.value)
        assert "store.mdb shows that a member was here" in str(error.value)
        assert "put it back" in str(error.value)
        assert "member remove" in str(error.value)
        assert files_of(tmp_path) == before
    logs.rmdir()
    moved.rename(logs)
    nodes = Nodes(tmp_path, wal_dir=logs)
    assert (await get((await nodes.start_all("a"))[0], b"k")).count == 1
    await nodes.stop_all()


@pytest.mark.parametrize("left", ["store.mdb", "store.mark", "snap"])
@on_loop
async def test_any_remains_of_a_member_show_that_its_log_is_missing(
    tmp_path: Path, left: str
) -> None:
    # "snap" alone is also what an interrupted `snapshot restore` leaves.
    async with running(tmp_path, "a"):
        pass
    member = tmp_path / "a" / "member"
    shutil.rmtree(member / "wal")
    for path in [*(member / "db").iterdir(), *(member / "snap").iterdir()]:
        if left not in (path.name, path.parent.name):
            path.unlink()
    with pytest.raises(WalMissing, match="shows that a member was here"):
        await Nodes(tmp_path).start("a", {"a": ("http://a:2380",)})


@on_loop
async def test_a_learner_that_was_never_sent_anything_must_not_lose_its_log_either(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, "a") as nodes:
        await nodes.by_name["a"].member_add(["http://b:2380"], True)
        node = await nodes.start("b", nodes.urls("a", "b"), initial_cluster_state="existing")
        await node.stop()
        shutil.rmtree(tmp_path / "b" / "member" / "wal")
        with pytest.raises(WalMissing):
            await nodes.start("b", nodes.urls("a", "b"), initial_cluster_state="existing")


@on_loop
async def test_a_restored_directory_with_snapshot_and_log_alone_starts(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        await put(node, b"k")
        files = node.running.opened.files
        taken = await asyncio.to_thread(files.write_snapshot, node.cluster_id)
        identity = node.running.opened.wal.identity
    member = tmp_path / "a" / "member"
    shutil.rmtree(member / "db")
    shutil.rmtree(member / "wal")
    base = (taken.index, taken.term)
    hard_state = HardState(taken.term, 0, taken.index)
    Wal.create(OsDisk(), member / "wal", identity, base=base, hard_state=hard_state).close()
    nodes = Nodes(tmp_path)
    assert (await get((await nodes.start_all("a"))[0], b"k")).count == 1
    await nodes.stop_all()


@on_loop
async def test_forcing_a_new_cluster_keeps_the_data_and_drops_the_others(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as nodes:
        await put(nodes.by_name["a"], b"k")
        await until(lambda: nodes.by_name["b"].revision == 2)
    nodes = Nodes(tmp_path)
    node = await nodes.start("b", nodes.urls("a", "b", "c"), force_new_cluster=True)
    await nodes.leader()
    assert list(node.machine.members) == [node.member_id]
    assert (await get(node, b"k")).count == 1
    await put(node, b"more")
    await nodes.stop_all()
    again = await nodes.start("b", nodes.urls("a", "b", "c"))
    await nodes.leader()
    assert (await get(again, b"more")).count == 1
    await nodes.stop_all()


@on_loop
async def test_a_damaged_store_is_rebuilt_and_a_damaged_log_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        for number in range(50):
            await put(nodes.by_name["a"], b"k%d" % number)
    member = tmp_path / "a" / "member"
    store = member / "db" / "store.mdb"
    store.write_bytes(b"\xff" * store.stat().st_size)
    nodes = Nodes(tmp_path)
    node = (await nodes.start_all("a"))[0]
    assert (await get(node, b"k49")).count == 1
    await nodes.stop_all()
    segment = next((member / "wal").iterdir())
    damaged = bytearray(segment.read_bytes())
    damaged[2000] ^= 1
    segment.write_bytes(damaged)
    with pytest.raises(WalCorrupt, match="Replace this member"):
        await nodes.start("a", nodes.urls("a"))


@on_loop
async def test_a_log_that_lost_applied_entries_is_refused_however_often_it_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, "a") as nodes:
        for number in range(20):
            await put(nodes.by_name["a"], b"k%d" % number)
    member = tmp_path / "a" / "member"
    segment = next((member / "wal").iterdir())
    whole = segment.read_bytes()
    used = -(-len(whole.rstrip(b"\0")) // 512) * 512
    # Between two batches: what is left looks like a log that never had more.
    segment.write_bytes(whole[: used - 6 * 512])
    nodes = Nodes(tmp_path)
    for boot in ("this boot", "this boot", "after a power loss"):
        monkeypatch.setattr("kvstore.node.host.boot_id", lambda boot=boot: boot)
        with pytest.raises(WalCorrupt, match="acknowledged entries are lost") as error:
            await nodes.start("a", nodes.urls("a"))
        assert str(segment) in str(error.value)
        assert "member remove" in str(error.value)
        assert segment.stat().st_size == used - 6 * 512
    assert [path.name for path in (member / "db").glob("*.aside")] == []
    # With the file as it was, nothing is lost; missing zeros alone do no harm.
    segment.write_bytes(whole[:used])
    node = (await nodes.start_all("a"))[0]
    assert (await get(node, b"k19")).count == 1
    assert segment.stat().st_size == len(whole)
    await nodes.stop_all()


@on_loop
async def test_a_store_without_any_snapshot_to_rebuild_it_from_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        await put(nodes.by_name["a"], b"k")
    member = tmp_path / "a" / "member"
    shutil.rmtree(member / "db")
    for snapshot in (member / "snap").iterdir():
        snapshot.unlink()
    with pytest.raises(DataDirUnusable, match="no sound snapshot"):
        await Nodes(tmp_path).start("a", {"a": ("http://a:2380",)})


@on_loop
async def test_periodic_snapshots_cut_the_log_and_serve_a_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.node.snapshots.SNAPSHOT_CHECK_S", 0.02)
    settings = {"snapshot_count": 50, "snapshot_catchup_entries": 5}
    async with running(tmp_path, "a", snapshot_min_wal_bytes=100_000, **settings) as nodes:
        node = nodes.by_name["a"]
        snapshots: Snapshots = node.running.snapshots
        first = snapshots.latest
        for number in range(200):
            await put(node, b"k%d" % number, bytes(10_000))
        await until(lambda: snapshots.latest != first and snapshots.latest)
        assert snapshots.latest is not None
        assert snapshots.latest.index > 50
        files = tmp_path / "a" / "member" / "snap"
        await until(lambda: len(list(files.iterdir())) == 2)
    (tmp_path / "a" / "member" / "db" / "store.mark").unlink()
    nodes = Nodes(tmp_path)
    node = (await nodes.start_all("a"))[0]
    assert (await get(node, b"k", range_end=b"l", count_only=True)).count == 200
    await nodes.stop_all()


@on_loop
async def test_a_crash_between_the_steps_of_installing_a_snapshot_loses_nothing(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, "a", "b", "c", snapshot_catchup_entries=10) as nodes:
        leader = await nodes.leader()
        behind = next(node for node in nodes.by_name.values() if node is not leader)
        await behind.stop()
        for number in range(100):
            await put(leader, b"k%d" % number)
        name = behind.config.name
        # The log restarts behind the snapshot, and then the process dies.
        back = await nodes.start(name, nodes.urls("a", "b", "c"))

        def crash(*_: object) -> None:
            raise OSError(5, "the process is killed here")

        back.running.opened.files.rebuild_store = crash  # type: ignore[method-assign,assignment]
        assert (await asyncio.wait_for(back.wait_stopped(), 5)).fatal
        await back.stop()
        again = await nodes.start(name, nodes.urls("a", "b", "c"))
        await until(lambda: again.revision == leader.revision)
        assert (await get(again, b"k99")).count == 1


@on_loop
async def test_a_member_removed_while_it_was_away_finds_out(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c", strict_reconfig_check=False) as nodes:
        leader = await nodes.leader()
        away = next(node for node in nodes.by_name.values() if node is not leader)
        await away.stop()
        await leader.member_remove(away.member_id)
        await until(
            lambda: all(
                len(n.machine.members) == 2 for n in nodes.by_name.values() if n is not away
            )
        )
        back = await nodes.start(away.config.name, nodes.urls("a", "b", "c"))
        reason = await asyncio.wait_for(back.wait_stopped(), 5)
        assert reason.kind is StopKind.REMOVED
