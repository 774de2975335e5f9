"""The group of commands `service`."""

from __future__ import annotations

import click

from kvstore.cli.options import ClientGroup

__all__ = ("service",)


@click.group(
    cls=ClientGroup,
    examples=(
        "kvstore service register payment --port 8080 --heartbeat",
        "kvstore service get payment",
        "kvstore service watch payment -w json",
        "kvstore service top",
    ),
)
def service() -> None:
    """Services: who offers what, where, and how it is.

    An instance of a service is registered with a time to live. It sends heartbeats, is DOWN when
    they stop, and is removed some time after that. Everybody who watches is told at once.
    """
