"""`kvstore check` on the files of a member that ran: clean, damaged, in use, not there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kvstore.cli.main import cli
from kvstore.machine.command import CommandKind
from kvstore.metrics import Metrics
from kvstore.node.config import NodeConfig
from kvstore.pb import rpc_pb2
from kvstore.storage.layout import Layout
from tests.unit.serving.lonely import lonely_node


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a member that wrote a little and stopped in order."""
    directory = tmp_path_factory.mktemp("member") / "data"
    url = "http://127.0.0.1:2380"
    config = NodeConfig(
        name="a",
        data_dir=directory,
        listen_peer_urls=(url,),
        advertise_peer_urls=(url,),
        advertise_client_urls=("http://127.0.0.1:2379",),
        initial_cluster={"a": (url,)},
    )

    async def write() -> None:
        node = lonely_node(config, Metrics())
        await node.start()
        await node.linearize()
        for number in range(20):
            request = rpc_pb2.PutRequest(key=b"key%d" % number, value=b"v" * 100)
            await node.submit(CommandKind.PUT, request.SerializeToString())
        await node.stop()

    asyncio.run(write())
    return directory


@pytest.fixture
def data_dir(pristine: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(pristine, tmp_path / "data"))


def check(*argv: str) -> Result:
    return CliRunner().invoke(cli, ["check", *argv])


def test_a_clean_directory(data_dir: Path) -> None:
    result = check(f"--data-dir={data_dir}")
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "clean")
    assert check(f"--data-dir={data_dir}", "-q").output == ""


@pytest.mark.parametrize("place", ["wal", "store"])
def test_damage_is_found_and_placed(data_dir: Path, place: str) -> None:
    layout = Layout(data_dir)
    file = layout.store if place == "store" else sorted(layout.wal.iterdir())[0]
    raw = bytearray(file.read_bytes())
    raw[raw.index(b"v" * 100)] ^= 1
    file.write_bytes(raw)
    result = check(f"--data-dir={data_dir}")
    assert result.exit_code == 1
    assert str(file) in result.stderr or str(file.parent) in result.stderr
    assert "clean" not in result.output


def test_a_directory_in_use_or_not_a_members(data_dir: Path, tmp_path: Path) -> None:
    lock = Layout(data_dir).lock()
    try:
        result = check(f"--data-dir={data_dir}")
    finally:
        lock.release()
    assert result.exit_code == 2
    assert "in use by process" in result.output
    assert check(f"--data-dir={tmp_path / 'nowhere'}").exit_code == 2
    assert "is not a member's" in check(f"--data-dir={tmp_path}").output
    assert check().exit_code == 2
