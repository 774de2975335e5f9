"""A file operation that fails at the wrong moment: the member ends, and the next start is sound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore import faults
from kvstore.errors import EtcdError
from kvstore.node.errors import StopKind
from kvstore.node.node import Node
from kvstore.storage.errors import DiskFailed, StoreCorrupt
from tests.support.power import another_boot, store_path

from .nodes import Nodes, get, put, running
from .on_loop import on_loop


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    faults.install(None)


def arm(text: str) -> None:
    faults.arm(faults.parse(text))


async def start_again(nodes: Nodes) -> Node:
    return (await nodes.start_all("a"))[0]


@on_loop
async def test_past_the_exchange_of_the_store_there_is_no_way_back(tmp_path: Path) -> None:
    """The new store is open, and the machine that is there reads the old one, which is closed."""
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        await put(node, b"k", b"1")
        arm("swap.reopened=eio:1")
        with pytest.raises(EtcdError, match="Input/output error"):
            await node.defragment()
        reason = await node.wait_stopped()
        assert reason.kind is StopKind.DISK
        # This failure ended it, and not the next write, on a store that is closed.
        assert "passing swap.reopened failed" in reason.message
        await node.stop()
        node = await start_again(nodes)
        assert (await get(node, b"k")).kvs[0].value == b"1"


@on_loop
async def test_a_defragmentation_that_fails_before_is_only_refused(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        arm("store.after_copy=enospc:1")
        with pytest.raises(EtcdError, match="No space left"):
            await node.defragment()
        await put(node, b"k", b"1")
        await node.defragment()
        assert (await get(node, b"k")).kvs[0].value == b"1"


@on_loop
async def test_a_disk_that_is_full_while_the_store_is_rebuilt_is_no_lost_member(
    tmp_path: Path,
) -> None:
    """It said that snapshot and log do not fit together, and to remove the member."""
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        await put(node, b"k", b"1")
        await node.running.end(clean=False)
        another_boot(tmp_path / "a")
        for point in ("rebuild.piece", "swap.after_rename", "store.after_mark"):
            arm(f"{point}=enospc:1")
            with pytest.raises(DiskFailed, match="No space left"):
                await start_again(nodes)
        faults.install(None)
        node = await start_again(nodes)
        assert (await get(node, b"k")).kvs[0].value == b"1"


@pytest.mark.parametrize(
    ("fault", "said"), [("", "rebuilt at the next start"), ("store.set_aside=eio:1", "set aside (")]
)
@on_loop
async def test_a_member_whose_store_is_damaged_ends_whether_or_not_it_can_be_moved(
    tmp_path: Path, fault: str, said: str
) -> None:
    async with running(tmp_path, "a") as nodes:
        node = nodes.by_name["a"]
        await put(node, b"k", b"1")
        if fault:
            arm(fault)
        node.running.loop.broken(StoreCorrupt(store_path(tmp_path / "a"), "a record", "damaged"))
        reason = await node.wait_stopped()
        assert reason.kind is StopKind.STORE
        assert said in reason.message
        await node.stop()
        faults.install(None)
        node = await start_again(nodes)
        assert (await get(node, b"k")).kvs[0].value == b"1"


@on_loop
async def test_a_store_is_not_given_up_because_its_mark_cannot_be_written(tmp_path: Path) -> None:
    """It may be the only witness of what the log has lost."""
    async with running(tmp_path, "a") as nodes:
        await put(nodes.by_name["a"], b"k", b"1")
        await nodes.by_name["a"].stop()
        arm("store.before_mark=eio:1")
        with pytest.raises(DiskFailed, match="Input/output error"):
            await start_again(nodes)
        assert store_path(tmp_path / "a").exists()
        node = await start_again(nodes)
        assert (await get(node, b"k")).kvs[0].value == b"1"
