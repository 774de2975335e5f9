"""The virtual disk: what it keeps, what it may lose, and that every fault can happen."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.storage.disk import Disk, File
from kvstore.storage.errors import DiskFailed
from tests.sim.disk import CrashPolicy, DiskSession, ProcessDied, VirtualDisk
from tests.sim.prng import Prng

DIRECTORY = Path("/data")
FILE = DIRECTORY / "file"
SECTOR = 512


@pytest.fixture
def disk() -> VirtualDisk:
    disk = VirtualDisk(Prng(1))
    disk.session().make_dir(DIRECTORY)
    disk.session().sync_dir(Path("/"))
    return disk


@pytest.fixture
def session(disk: VirtualDisk) -> DiskSession:
    return disk.session()


def durable_file(disk: VirtualDisk, size_bytes: int = 8 * SECTOR) -> File:
    file = disk.session().create(FILE, size_bytes)
    file.datasync()
    disk.session().sync_dir(DIRECTORY)
    return file


def test_it_is_a_disk(session: Disk) -> None:
    file = session.create(FILE, 10_000)
    assert file.read_at(9_000, 5_000) == bytes(1_000)
    file.write_at(4_090, b"across a page")
    assert file.read_at(4_088, 17) == b"\0\0across a page\0\0"
    file.write_at(12_000, b"x")
    assert file.size() == 12_001
    assert file.read_at(10_000, 9_999) == bytes(2_000) + b"x"
    assert session.exists(FILE) and session.exists(DIRECTORY)
    with pytest.raises(FileExistsError):
        session.create(FILE)
    session.rename(FILE, DIRECTORY / "new")
    assert session.list(DIRECTORY) == ["new"]
    with pytest.raises(FileNotFoundError):
        session.open(FILE)
    session.unlink(DIRECTORY / "new")
    session.unlink(DIRECTORY / "new")
    assert session.list(DIRECTORY) == []
    assert session.list(Path("/nowhere")) == []


def test_a_kill_keeps_the_cache_and_ends_the_session(
    disk: VirtualDisk, session: DiskSession
) -> None:
    file = session.create(FILE)
    file.write_at(0, b"unsynced")
    disk.kill()
    session.end()
    calls: list[Callable[[], object]] = [
        lambda: file.read_at(0, 1),
        lambda: file.write_at(0, b""),
        file.datasync,
        file.size,
        lambda: session.open(FILE),
        lambda: session.exists(FILE),
        lambda: session.unlink(FILE),
        lambda: session.sync_dir(DIRECTORY),
    ]
    for call in calls:
        with pytest.raises(ProcessDied):
            call()
    file.close()
    assert disk.session().open(FILE).read_at(0, 99) == b"unsynced"


def test_what_is_synced_survives_every_crash() -> None:
    for policy in CrashPolicy:
        for seed in range(40):
            disk = VirtualDisk(Prng(seed))
            disk.session().make_dir(DIRECTORY)
            disk.session().sync_dir(Path("/"))
            file = durable_file(disk)
            file.write_at(100, b"kept")
            file.datasync()
            file.write_at(SECTOR, b"maybe" * 300)
            disk.session().create(DIRECTORY / "other")
            disk.power_loss(policy)
            content = disk.content(FILE)
            assert len(content) == 8 * SECTOR
            assert content[:SECTOR] == (bytes(100) + b"kept").ljust(SECTOR, b"\0")
            for sector in range(1, 8):
                piece = content[sector * SECTOR : sector * SECTOR + SECTOR]
                new = (bytes(SECTOR) + b"maybe" * 300).ljust(8 * SECTOR, b"\0")
                assert piece in (bytes(SECTOR), new[sector * SECTOR : sector * SECTOR + SECTOR])


def outcomes(policy: CrashPolicy) -> tuple[set[str], Counter[str]]:
    """What of three writes of a sector each, the last of two, there can be afterwards."""
    found = set()
    fired: Counter[str] = Counter()
    for seed in range(200):
        disk = VirtualDisk(Prng(seed))
        disk.session().make_dir(DIRECTORY)
        disk.session().sync_dir(Path("/"))
        file = durable_file(disk, 4 * SECTOR)
        for sector, letter in ((0, b"a"), (1, b"b"), (2, b"cd")):
            file.write_at(sector * SECTOR, b"".join(bytes([each]) * SECTOR for each in letter))
        disk.power_loss(policy)
        found.add(disk.content(FILE)[::SECTOR].replace(b"\0", b"-").decode())
        fired += disk.fired
    return found, fired


def test_each_policy_loses_what_it_says() -> None:
    assert outcomes(CrashPolicy.DROP_ALL)[0] == {"----"}
    assert outcomes(CrashPolicy.KEEP_PREFIX)[0] == {"----", "a---", "ab--", "abcd"}
    subset, fired = outcomes(CrashPolicy.KEEP_SUBSET)
    assert {"-b--", "a--d", "--cd", "abcd", "----"} <= subset
    assert fired["writes reordered"] and fired["write torn"] and fired["write lost"]
    torn, fired = outcomes(CrashPolicy.TEAR_LAST)
    assert torn == {"ab--", "abc-"}
    assert fired["write torn"] == 200
    zeroed, fired = outcomes(CrashPolicy.ZERO_SECTOR)
    assert zeroed == {"-bcd", "a-cd", "ab-d", "abc-"}
    assert fired["sector lost"] == 200


def test_names_are_durable_after_a_sync_of_their_directory(
    disk: VirtualDisk, session: DiskSession
) -> None:
    durable_file(disk)
    session.rename(FILE, DIRECTORY / "moved")
    session.create(DIRECTORY / "new")
    session.make_dir(DIRECTORY / "below")
    session.create(DIRECTORY / "below" / "deep")
    session.sync_dir(DIRECTORY / "below")
    lost = disk.copy()
    lost.power_loss(CrashPolicy.DROP_ALL)
    assert lost.session().list(DIRECTORY) == ["file"]
    assert not lost.session().exists(DIRECTORY / "below")
    assert lost.session().list(DIRECTORY / "below") == []
    assert lost.fired["name change lost"] == 3
    kept = disk.copy()
    kept.power_loss(CrashPolicy.ZERO_SECTOR)
    assert kept.session().list(DIRECTORY) == ["below", "moved", "new"]
    session.sync_dir(DIRECTORY)
    disk.power_loss(CrashPolicy.DROP_ALL)
    assert disk.session().list(DIRECTORY) == ["below", "moved", "new"]
    assert disk.session().list(DIRECTORY / "below") == ["deep"]


def test_a_rename_over_a_file_can_be_undone(disk: VirtualDisk, session: DiskSession) -> None:
    durable_file(disk).write_at(0, b"old")
    session.open(FILE).datasync()
    other = session.create(DIRECTORY / "other")
    other.write_at(0, b"new")
    other.datasync()
    session.sync_dir(DIRECTORY)
    session.rename(DIRECTORY / "other", FILE)
    assert disk.content(FILE) == b"new"
    disk.power_loss(CrashPolicy.DROP_ALL)
    assert disk.content(FILE)[:3] == b"old"
    assert disk.content(DIRECTORY / "other") == b"new"


def test_the_fsync_trap(disk: VirtualDisk, session: DiskSession) -> None:
    lost = 0
    for attempt in range(20):
        file = session.create(DIRECTORY / f"{attempt}", 3 * 4096)
        file.datasync()
        session.sync_dir(DIRECTORY)
        for page in range(3):
            file.write_at(page * 4096, b"precious")
        disk.arm("sync")
        with pytest.raises(DiskFailed) as caught:
            file.datasync()
        assert caught.value.errno == errno.EIO
        file.datasync()  # and says that all is well
        assert file.read_at(4096, 8) == b"precious"
        medium = disk.durable_view().open(file.path).read_at(0, 3 * 4096)
        file.drop_cache()
        assert file.read_at(0, 3 * 4096) == medium
        lost += medium.count(b"precious") < 3
    assert lost > 10
    assert disk.fired["sync: EIO"] == 20
    assert disk.fired["sync: pretended success"] == 20
    assert disk.fired["lies dropped from the cache"] == 20


def test_an_armed_fault_strikes_the_operation_it_was_meant_for(
    disk: VirtualDisk, session: DiskSession
) -> None:
    disk.arm("write", skip=1, name="file")
    other = session.create(DIRECTORY / "other")
    other.write_at(0, b"x")
    file = session.create(FILE, 4096)
    file.write_at(0, b"1" * 1024)
    other.write_at(0, b"x")
    with pytest.raises(DiskFailed):
        file.write_at(1024, b"2" * 2048)
    written = file.read_at(1024, 2048).rstrip(b"\0")
    assert len(written) in (0, 512, 1024, 1536, 2048) and set(written) <= {ord("2")}
    file.write_at(0, b"x")
    for kind in ("create", "rename", "unlink", "sync dir", "make dir", "read"):
        disk.arm(kind)
        with pytest.raises(DiskFailed):
            {
                "create": lambda: session.create(DIRECTORY / "c"),
                "rename": lambda: session.rename(FILE, DIRECTORY / "r"),
                "unlink": lambda: session.unlink(FILE),
                "sync dir": lambda: session.sync_dir(DIRECTORY),
                "make dir": lambda: session.make_dir(DIRECTORY / "d"),
                "read": lambda: file.read_at(0, 1),
            }[kind]()
        assert disk.fired[f"{kind}: EIO"] == 1
    assert session.list(DIRECTORY) == ["file", "other"]


def test_faults_by_rate(disk: VirtualDisk, session: DiskSession) -> None:
    file = session.create(FILE)
    disk.rates["write"] = (1, 4)
    failed = 0
    for at in range(400):
        try:
            file.write_at(at, b"x")
        except DiskFailed:
            failed += 1
    assert failed == disk.fired["write: EIO"]
    assert 60 < failed < 140
    disk.disarm()
    for at in range(100):
        file.write_at(at, b"x")


def test_a_full_disk_refuses_growth_but_not_what_is_reserved() -> None:
    disk = VirtualDisk(Prng(1), capacity_bytes=10_000)
    session = disk.session()
    file = session.create(Path("/reserved"), 8_000)
    assert session.free_bytes(Path("/")) == 2_000
    growing = session.create(Path("/growing"))
    growing.write_at(0, bytes(1_500))
    with pytest.raises(DiskFailed) as caught:
        growing.write_at(1_500, bytes(501))
    assert caught.value.errno == errno.ENOSPC
    assert growing.size() == 1_500
    with pytest.raises(DiskFailed) as caught:
        session.create(Path("/large"), 501)
    assert caught.value.errno == errno.ENOSPC
    assert not session.exists(Path("/large"))
    file.write_at(0, b"x" * 8_000)
    session.unlink(Path("/growing"))
    assert session.free_bytes(Path("/")) == 2_000
    assert disk.fired["write: out of space"] == disk.fired["create: out of space"] == 1


def test_damage_at_rest(disk: VirtualDisk) -> None:
    file = durable_file(disk)
    file.write_at(0, b"a" * 2 * SECTOR)
    file.datasync()
    file.write_at(0, b"b" * 2 * SECTOR)
    file.datasync()
    assert disk.stale_sector(FILE, 1)
    assert disk.content(FILE)[: 2 * SECTOR] == b"b" * SECTOR + b"a" * SECTOR
    assert disk.flip_bit(FILE, 8 * 10 + 3)
    assert disk.content(FILE)[10] == ord("b") ^ 8
    assert disk.zero_sector(FILE, 1)
    assert not disk.zero_sector(FILE, 1), "nothing changes"
    assert not disk.flip_bit(FILE, 8 * 99_999), "not in the file"
    file.write_at(3 * SECTOR, b"c" * SECTOR)
    file.datasync()
    assert disk.misdirect(FILE, 3, FILE, 5)
    content = disk.content(FILE)
    assert content[3 * SECTOR : 4 * SECTOR] == bytes(SECTOR)
    assert content[5 * SECTOR : 6 * SECTOR] == b"c" * SECTOR
    assert disk.fired == {
        "sector stale": 2,
        "bit flipped": 1,
        "sector zeroed": 1,
        "write misdirected": 1,
    }


def test_a_process_can_die_before_and_after_any_operation(disk: VirtualDisk) -> None:
    for hook in ("on_operation", "after_operation"):
        session = disk.session()
        file = session.create(DIRECTORY / hook)

        def die(kind: str, path: Path) -> None:
            assert (kind, path.name) == ("write", hook)  # noqa: B023
            raise ProcessDied

        setattr(disk, hook, die)
        with pytest.raises(ProcessDied):
            file.write_at(0, b"x")
        setattr(disk, hook, None)
        with pytest.raises(ProcessDied):
            session.exists(FILE)
        expected = b"x" if hook == "after_operation" else b""
        assert disk.content(DIRECTORY / hook) == expected


def test_a_copy_is_equal_and_apart(disk: VirtualDisk, session: DiskSession) -> None:
    file = durable_file(disk)
    file.write_at(0, b"unsynced" * 500)
    session.rename(FILE, DIRECTORY / "moved")
    session.create(DIRECTORY / "new")
    twin = disk.copy()
    assert twin.fingerprint() == disk.fingerprint()
    for policy in CrashPolicy:
        one, two = disk.copy(), twin.copy()
        one.power_loss(policy)
        two.power_loss(policy)
        assert one.fingerprint() == two.fingerprint()
        assert one.fired == two.fired
    before = disk.fingerprint()
    twin.session().open(DIRECTORY / "moved").write_at(5, b"X")
    twin.session().unlink(DIRECTORY / "new")
    assert disk.fingerprint() == before != twin.fingerprint()
    file.datasync()
    assert disk.fingerprint() != before


def test_the_durable_view_shows_what_a_power_loss_would_leave(
    disk: VirtualDisk, session: DiskSession
) -> None:
    view = disk.durable_view()
    file = session.create(FILE, 1000)
    file.write_at(0, b"one")
    assert not view.exists(FILE)
    session.sync_dir(DIRECTORY)
    changes = disk.durable_changes
    assert view.open(FILE).size() == 0
    file.datasync()
    assert disk.durable_changes > changes
    file.write_at(0, b"two")
    assert view.open(FILE).read_at(0, 3) == b"one"
    assert view.list(DIRECTORY) == ["file"]
    with pytest.raises(AssertionError):
        view.unlink(FILE)
    with pytest.raises(AssertionError):
        view.open(FILE).write_at(0, b"x")


def test_a_segment_of_zeros_costs_nothing(disk: VirtualDisk, session: DiskSession) -> None:
    file = session.create(FILE, 1 << 40)
    for at in range(200):
        file.write_at(at * 512, b"batch" * 100)
        file.datasync()
    session.sync_dir(DIRECTORY)
    twin = disk.copy()
    twin.power_loss(CrashPolicy.KEEP_SUBSET)
    assert twin.session().open(FILE).read_at(199 * 512, 512) == b"batch" * 100 + bytes(12)
    assert file.size() == 1 << 40
    assert file.read_at((1 << 40) - 3, 9) == bytes(3)


def test_operations_take_time(disk: VirtualDisk, session: DiskSession) -> None:
    file = session.create(FILE)
    operations, spent = disk.operations, disk.spent_ns
    file.write_at(0, bytes(1000))
    write = disk.spent_ns - spent
    file.datasync()
    sync = disk.spent_ns - spent - write
    assert 0 < write < sync
    disk.slowness_percent = 1000
    before = disk.spent_ns
    file.datasync()
    assert disk.spent_ns - before == 10 * sync
    assert disk.operations == operations + 3
