"""`kvstore check`: looks over the files of a stopped member and changes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import click

__all__ = ("check",)

_DAMAGED = 1


@click.command()
@click.option(
    "--data-dir",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The member's data directory.",
)
@click.option(
    "--wal-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The log's directory, if it is not in the data directory.",
)
@click.option("-q", "--quiet", is_flag=True, help="Say only what is wrong.")
def check(data_dir: Path, wal_dir: Path | None, quiet: bool) -> None:
    """Check every checksum of a stopped member's log, snapshots and store.

    Exit code 0: clean. 1: damaged, and it says where and what to do. 2: wrong usage, or the
    member is running.
    """
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
