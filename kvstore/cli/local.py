"""`kvstore local`: a cluster on this machine, for trying things out."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from kvstore.serving.local import LocalCluster
from kvstore.serving.ports import DEFAULT_BASE_PORT, LayoutError, choose_layout

__all__ = ("local",)


@click.command()
@click.option("--nodes", default=3, show_default=True, help="How many members, 1 to 7.")
@click.option(
    "--data",
    "directory",
    default="./data",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the members keep their data.",
)
@click.option(
    "--base-port",
    type=int,
    help=f"First client port (default {DEFAULT_BASE_PORT}, or others when that is taken).",
)
@click.option("--dns", is_flag=True, help="Also answer DNS, on the port after HTTP's.")
@click.option("--once", is_flag=True, help="Stop again as soon as all members are ready.")
def local(nodes: int, directory: Path, base_port: int | None, dns: bool, once: bool) -> None:
    """Run a whole cluster on this machine until Ctrl-C.

    Members listen on the loopback address: clients on 2379, 22379, 32379, …, each other on the
    port after, HTTP on the one after that. Ports and data are kept, so that the next start goes on
    where this one ended.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout = choose_layout(directory, nodes, base_port)
        layout.save(directory)
    except LayoutError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot write to {directory}: {error.strerror}") from None
    if layout.note:
        click.echo(layout.note)
    if nodes % 2 == 0:
        click.echo(f"{nodes} members survive no more failures than {nodes - 1} would")

    async def supervise() -> int:
        cluster = LocalCluster(
            layout, directory, write=click.echo, colour=sys.stdout.isatty(), once=once, dns=dns
        )
        return await cluster.run()

    sys.exit(asyncio.run(supervise()))
