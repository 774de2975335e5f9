"""Client commands without a server: flags in every place and spelling, codes, what is imported."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from kvstore.cli import options
from kvstore.cli.main import cli
from kvstore.cli.options import DURATION, ClientCommand, global_values
from kvstore.cli.table import COMMANDS


def run(*argv: str, **more: Any) -> Result:
    return CliRunner().invoke(cli, list(argv), **more)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The global values and own options with which `get` was called, instead of calling."""
    found: list[dict[str, Any]] = []

    def record(_self: ClientCommand, ctx: click.Context) -> None:
        found.append({**global_values(ctx), **ctx.params})

    monkeypatch.setattr(ClientCommand, "invoke", record)
    return found


@pytest.mark.parametrize(
    "argv",
    [
        ["--endpoints=x:1", "-w", "json", "--hex", "get", "k", "--prefix"],
        ["get", "k", "--prefix=true", "--endpoints", "x:1", "-w=json", "--hex=true"],
        ["-wjson", "get", "--prefix", "--keys-only=false", "k", "--endpoints=x:1", "--hex"],
        ["--endpoints=y:2", "get", "--endpoints=x:1", "k", "--prefix", "-w", "json", "--hex"],
    ],
)
def test_global_flags_stand_anywhere_and_the_later_one_counts(
    seen: list[dict[str, Any]], argv: list[str]
) -> None:
    assert run(*argv).exit_code == 0
    values = seen[0]
    assert (values["endpoints"], values["write_out"], values["hex"]) == ("x:1", "json", True)
    assert (values["args"], values["prefix"], values["keys_only"]) == (("k",), True, False)
    assert (values["command_timeout"], values["insecure_transport"]) == (5.0, True)


def test_the_environment_counts_until_a_flag_says_otherwise(seen: list[dict[str, Any]]) -> None:
    environment = {"KVSTORE_ENDPOINTS": "e:1", "KVSTORE_COMMAND_TIMEOUT": "1m30s"}
    run("get", "k", env=environment)
    run("--endpoints=f:1", "get", "k", env=environment)
    assert [(each["endpoints"], each["command_timeout"]) for each in seen] == [
        ("e:1", 90.0),
        ("f:1", 90.0),
    ]


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["get"], 128, "Error: get command needs one argument as key"),
        (["get", "--nosuch", "k"], 128, "No such option"),
        (["get", "k", "--command-timeout=soon"], 128, "is not a duration like 5s"),
        (["get", "k", "-w", "xml"], 4, "Error: unsupported output format 'xml'"),
        (["get", "k", "-w", "table"], 4, "Error: table not supported as output format"),
        (["get", "k", "--insecure-skip-tls-verify"], 4, "name the server's authority"),
        (["put", "k", "v", "--lease=zz"], 128, "Error: bad lease ID ('zz'), expecting ID in Hex"),
        (["get", "k", "--cacert=/no/such"], 6, "Error: No such file or directory: /no/such"),
        (["get", "k", "--endpoints=host:port"], 128, "'port' is not a port"),
        (["completion", "tcsh"], 4, "no completion for 'tcsh'"),
        (["snapshot", "status", "/no/such"], 6, "Error: there is no file /no/such"),
        (["--hex", "serve"], 2, "--hex is of no use to `kvstore serve`"),
    ],
)
def test_mistakes_end_with_a_sentence_and_etcdctls_code(
    argv: list[str], code: int, said: str
) -> None:
    result = run(*argv)
    assert result.exit_code == code
    assert said in result.output
    assert "Traceback" not in result.output


def test_no_server_is_a_sentence_with_the_endpoint_and_code_2() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run("get", "k", f"--endpoints={where}", "--command-timeout=300ms")
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: cannot connect to {where} (")
    assert result.output.count("\n") == 1


def client_commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, entry in COMMANDS.items():
        if "commands" not in entry.module:
            continue
        context = click.Context(cli)
        command = cli.get_command(context, name)
        inner = command.list_commands(context) if isinstance(command, click.Group) else []
        found += [(name, each) for each in inner] or [(name,)]
    return found


@pytest.mark.parametrize("command", client_commands(), ids=" ".join)
def test_help_has_a_purpose_and_examples(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    purpose = result.output.split("\n")[2].strip()
    assert purpose.endswith((".", ";", ",")) or len(purpose) > 50
    if command[0] not in ("version", "completion"):
        assert "Examples:\n  kvstore " in result.output or "Examples:\n  echo" in result.output
        assert "Global options:" in result.output


def test_a_client_command_loads_nothing_of_the_server() -> None:
    code = (
        "import sys, contextlib\nfrom kvstore.cli.main import cli\n"
        "with contextlib.suppress(SystemExit):\n"
        "  cli(['get', 'k', '--endpoints=127.0.0.1:1', '--command-timeout=10ms'])\n"
        "bad = [m for m in sys.modules if m.startswith(('kvstore.node', 'kvstore.daemon', "
        "'kvstore.machine', 'kvstore.storage', 'kvstore.api', 'raft', 'aiohttp', 'lmdb', "
        "'rich'))]\nsys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5.0), ("300ms", 0.3), ("1m30s", 90.0), ("1h", 3600.0), ("1.5s", 1.5), ("0", 0.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == pytest.approx(seconds)


def test_every_global_flag_has_a_variable() -> None:
    assert all(str(option.envvar).startswith("KVSTORE_") for option in options.GLOBAL_OPTIONS)
