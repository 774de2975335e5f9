"""The `kvstore` command: finds the subcommand in the table and loads it when it is used."""

from __future__ import annotations

import importlib

import click

from kvstore.cli.options import GLOBAL_OPTIONS, typed_globals
from kvstore.cli.table import COMMANDS, SERVER
from kvstore.serving.versions import version_text

__all__ = ("LazyGroup", "cli", "main")


class LazyGroup(click.Group):
    """A group whose commands are imported by name, when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command), entry
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As ever; but flags of the client commands in front of a server's would be ignored."""
        name, command, rest = super().resolve_command(ctx, args)
        typed = typed_globals(ctx)
        if typed and name is not None and COMMANDS[name].section == SERVER:
            flag = min(typed).replace("_", "-")
            raise click.UsageError(f"--{flag} is of no use to `kvstore {name}`")
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """By section, from the table alone: help must not import every command."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in COMMANDS.items():
            sections.setdefault(entry.section, []).append((name, entry.help))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows)


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(version_text())
        ctx.exit()


@click.group(
    cls=LazyGroup,
    params=list(GLOBAL_OPTIONS),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print our version and that of the protocol.",
)
def cli() -> None:
    """A replicated key-value registry that speaks etcd v3."""


def main() -> None:
    """The console script."""
    cli(prog_name="kvstore")


if __name__ == "__main__":
    main()
