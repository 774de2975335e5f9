"""`kvstore check`: looks over a stopped member's files; `check perf` tries a running cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kvstore.cli.options import ClientGroup

__all__ = ("check",)

_DAMAGED = 1
_WRONG_USAGE = 2


class _CheckGroup(ClientGroup):
    """Loads `perf`, which needs the client, only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["perf"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "perf":
            return None
        from kvstore.cli.commands.perf import perf

        return perf


@click.group(
    cls=_CheckGroup,
    usage_exit_code=_WRONG_USAGE,
    invoke_without_command=True,
    no_args_is_help=True,
    examples=("kvstore check --data-dir=default.etcd", "kvstore check perf --load=m"),
)
@click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The member's data directory.",
)
@click.option(
    "--wal-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The log's directory, if it is not in the data directory.",
)
@click.option("-q", "--quiet", is_flag=True, help="Say only what is wrong.")
@click.pass_context
def check(ctx: click.Context, /, data_dir: Path | None, wal_dir: Path | None, quiet: bool) -> None:
    """Check every checksum of a stopped member's log, snapshots and store.

    Exit code 0: clean. 1: damaged, and it says where and what to do. 2: wrong usage, or the
    member is running. `check perf` is another thing: it tries how a running cluster performs.
    """
    if ctx.invoked_subcommand is not None:
        return
    if data_dir is None:
        raise click.UsageError("Missing option '--data-dir' (or say `check perf`).")
    # Imported here: the store's library is wanted by nobody who only asks for help.
    from kvstore.storage.check import check_data_dir
    from kvstore.storage.layout import DirectoryLock, Layout

    layout = Layout(data_dir, wal_dir)
    if not layout.member.is_dir():
        raise click.UsageError(f"{data_dir} is not a member's data directory")
    holder = DirectoryLock.holder(layout.lock_file)
    if holder is not None:
        raise click.UsageError(f"{data_dir} is in use by process {holder}; stop it first")
    report = check_data_dir(data_dir, wal_dir=wal_dir)
    if not quiet:
        for note in report.notes:
            click.echo(note)
    for finding in report.findings:
        click.echo(f"{finding.where}: {finding.message}", err=True)
    if not report.clean:
        sys.exit(_DAMAGED)
    if not quiet:
        click.echo("clean")
