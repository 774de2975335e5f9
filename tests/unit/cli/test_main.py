"""The command itself: version, help without loading commands, serve's refusals."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from kvstore import __version__
from kvstore.cli.main import cli
from kvstore.cli.table import COMMANDS


def run(*argv: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, timeout=30, check=False
    )


def test_the_version_is_ours_and_the_protocols() -> None:
    lines = CliRunner().invoke(cli, ["--version"]).output.splitlines()
    assert lines[0] == f"kvstore Version: {__version__}"
    assert lines[1].startswith("etcd Protocol Version: 3.6.")
    assert CliRunner().invoke(cli, ["serve", "--version"]).output.splitlines() == lines


def test_the_protocol_version_is_the_one_that_the_node_reports() -> None:
    from kvstore.node.maintenance import CLUSTER_VERSION
    from kvstore.serving.versions import PROTOCOL_VERSION

    assert PROTOCOL_VERSION == CLUSTER_VERSION


def test_every_command_of_the_table_can_be_loaded() -> None:
    for name, entry in COMMANDS.items():
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command), name


def test_help_lists_the_commands_and_loads_none() -> None:
    code = (
        "import sys\nfrom kvstore.cli.main import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "heavy = {'grpc', 'kvstore.daemon', 'kvstore.node', 'aiohttp', 'lmdb'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = run("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    for name, entry in COMMANDS.items():
        assert name in done.stdout
        assert entry.help in done.stdout


def test_serve_help_is_the_flag_tables() -> None:
    result = CliRunner().invoke(cli, ["serve", "--help"])
    assert result.exit_code == 0
    assert "--listen-client-urls 'http://localhost:2379'" in result.output


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--electon-timeout=1"], "did you mean --election-timeout?"),
        (["--cert-file=a.pem"], "--cert-file is refused: this version does not serve TLS yet"),
        (["--election-timeout=1"], "less than 5 heartbeats"),
    ],
)
def test_wrong_flags_exit_with_2_and_a_sentence(flags: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, ["serve", *flags])
    assert result.exit_code == 2
    assert result.output.startswith("kvstore serve: ")
    assert said in result.output


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(cli, ["nothing"]).exit_code == 2


def test_optimised_python_is_refused() -> None:
    done = run("-O", "-m", "kvstore.cli.main", "serve")
    assert done.returncode == 2
    assert "python -O leaves out the checks" in done.stderr
