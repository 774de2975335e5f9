"""Golden help of the service commands, as they print it, without the global options."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kvstore.cli.main import cli
from tests.golden.runner import check

FILES = sorted((Path(__file__).parent / "help").glob("*.txt"))


def execute(command: str) -> Iterator[str]:
    result = CliRunner().invoke(
        cli, [*command.split(), "--help"], terminal_width=88, prog_name="kvstore"
    )
    assert result.exit_code == 0, result.output
    own, _, rest = result.output.partition("\nGlobal options:")
    examples = rest.partition("\nExamples:")[2]
    for line in f"{own}\nExamples:{examples}".splitlines():
        yield f"|{line}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_help(path: Path) -> None:
    check(path, execute)


def test_every_service_command_is_there() -> None:
    text = "\n".join(path.read_text() for path in FILES)
    group = cli.get_command(click.Context(cli), "service")
    assert isinstance(group, click.Group)
    for name, command in group.commands.items():
        inner = command.commands if isinstance(command, click.Group) else {}
        for words in (f"service {name}", *(f"service {name} {each}" for each in inner)):
            assert f"\n{words}\n" in text, words
