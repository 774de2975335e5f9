"""A name that a killed process made and never synced is not durable for the process after it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.storage.disk import make_directory
from kvstore.storage.errors import DiskFailed
from kvstore.storage.wal import Wal, WalIdentity
from raft.types import EMPTY_HARD_STATE, Entry, EntryKind
from tests.sim.disk import CrashPolicy, ProcessDied, VirtualDisk
from tests.sim.prng import Prng
from tests.sim.solo import Solo, SoloHost, solo_config

DIRECTORY = Path("/wal")
ENTRY = Entry(1, 1, EntryKind.NORMAL, b"acknowledged" * 100)


def killed_after(disk: VirtualDisk, kind: str, name: str, work: Callable[[], object]) -> None:
    """Runs `work` until that operation on a path with that name has happened."""

    def hook(happened: str, path: Path) -> None:
        if happened == kind and name in path.name:
            raise ProcessDied

    disk.after_operation = hook
    with pytest.raises(ProcessDied):
        work()
    disk.after_operation = None


def test_entries_do_not_go_with_the_name_of_their_segment() -> None:
    disk = VirtualDisk(Prng(1))
    identity = WalIdentity(0xC1, 0xA)
    disk.session().make_dir(DIRECTORY)
    disk.session().sync_dir(Path("/"))
    killed_after(disk, "rename", ".wal", lambda: Wal.create(disk.session(), DIRECTORY, identity))
    wal, _ = Wal.open(disk.session(), DIRECTORY, keep_after=0)
    wal.write(wal.encode(EMPTY_HARD_STATE._replace(term=1), [ENTRY]), True)
    disk.power_loss(CrashPolicy.DROP_ALL)
    assert Wal.open(disk.session(), DIRECTORY, keep_after=0)[1].entries == [ENTRY]


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_directories_are_durable_whoever_made_them(name: str) -> None:
    disk = VirtualDisk(Prng(1))
    path = Path("/a/b/c")
    killed_after(disk, "make dir", name, lambda: make_directory(disk.session(), path))
    make_directory(disk.session(), path)
    disk.power_loss(CrashPolicy.DROP_ALL)
    assert disk.session().exists(path)


def test_a_directory_above_ours_need_not_be_readable_but_must_work() -> None:
    disk = VirtualDisk(Prng(1))
    disk.session().make_dir(Path("/a"))
    disk.arm("sync dir", errno=errno.EACCES)
    make_directory(disk.session(), Path("/a/b"))
    assert disk.session().exists(Path("/a/b"))
    disk.arm("sync dir")
    with pytest.raises(DiskFailed):
        make_directory(disk.session(), Path("/a/b/c"))


@pytest.mark.parametrize(
    ("kind", "name"), [("create", "beginning"), ("make dir", "member"), ("rename", ".wal")]
)
def test_an_interrupted_beginning_is_never_taken_for_a_lost_log(kind: str, name: str) -> None:
    later = 0
    while not lost_power_in_the_next_start(kind, name, later):
        later += 1
    assert later > 10


def lost_power_in_the_next_start(kind: str, name: str, operations: int) -> bool:
    """Kills the first start, loses the power after so many operations of the second one.

    True if the second had ended by then. The third must work in any case.
    """
    disk, config = VirtualDisk(Prng(1)), solo_config(Path("/data"))

    def start() -> Solo:
        return Solo(SoloHost(disk), config, lambda entry: None)

    killed_after(disk, kind, name, start)
    left = operations

    def hook(_kind: str, _path: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ProcessDied

    disk.on_operation = hook
    led = True
    try:
        start().lead()
    except ProcessDied:
        led = False
    disk.on_operation = None
    disk.power_loss(CrashPolicy.DROP_ALL)
    member = start()
    assert not led or member.start.hard_state.term > 1, "it led, and had forgotten that"
    member.lead()
    return led
