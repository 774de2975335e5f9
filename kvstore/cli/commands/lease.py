"""`lease`: granting, renewing and revoking leases."""

from __future__ import annotations

import math
import time

import click

from kvstore.cli.context import Session, naming, parse_int, parse_lease
from kvstore.cli.exits import BAD_CONNECTION, CliError, bad_args
from kvstore.cli.options import ClientGroup

__all__ = (
    "grant",
    "keep_alive",
    "lease",
    "list_",
    "revoke",
    "timetolive",
)

_RENEWALS_PER_TTL = 3


@click.group(cls=ClientGroup, examples=("kvstore lease grant 60", "kvstore lease list"))
def lease() -> None:
    """Leases: keys that are attached to one are deleted when it ends."""


@lease.command(examples=("kvstore lease grant 60",))
@click.argument("args", nargs=-1, metavar="TTL", type=click.UNPROCESSED)
@click.pass_obj
def grant(session: Session, /, args: tuple[str, ...]) -> None:
    """Make a lease of TTL seconds."""
    from kvstore.client import operations

    session.printer.check_table()
    if len(args) != 1:
        raise bad_args("lease grant command needs TTL argument")
    ttl = parse_int(args[0], "TTL")
    with naming("failed to grant lease"):
        answer = session.call(operations.lease_grant(ttl))
    session.printer.show("grant", answer)


@lease.command(examples=("kvstore lease revoke 694d5765fc71500b",))
@click.argument("args", nargs=-1, metavar="ID", type=click.UNPROCESSED)
@click.pass_obj
def revoke(session: Session, /, args: tuple[str, ...]) -> None:
    """End a lease and delete its keys."""
    from kvstore.client import operations

    session.printer.check_table()
    if len(args) != 1:
        raise bad_args("lease revoke command needs 1 argument")
    lease_id = parse_lease(args[0])
    with naming("failed to revoke lease"):
        answer = session.call(operations.lease_revoke(lease_id))
    session.printer.show("revoke", answer, **session.in_words(lease_id=lease_id))


@lease.command(
    examples=(
        "kvstore lease timetolive 694d5765fc71500b",
        "kvstore lease timetolive 694d5765fc71500b --keys",
    )
)
@click.option("--keys", is_flag=True, help="Also show the keys that are attached.")
@click.argument("args", nargs=-1, metavar="ID", type=click.UNPROCESSED)
@click.pass_obj
def timetolive(session: Session, /, args: tuple[str, ...], keys: bool) -> None:
    """Show what is left of a lease."""
    from kvstore.client import operations

    session.printer.check_table()
    if len(args) != 1:
        raise bad_args("lease timetolive command needs lease ID as argument")
    answer = session.call(operations.lease_time_to_live(parse_lease(args[0]), keys=keys))
    session.printer.show("time_to_live", answer, **session.in_words(keys=keys))


@lease.command("list", examples=("kvstore lease list",))
@click.pass_obj
def list_(session: Session, /) -> None:
    """List the leases that exist."""
    from kvstore.client import operations

    session.printer.check_table()
    session.printer.show("leases", session.call(operations.leases()))


@lease.command(
    "keep-alive",
    examples=(
        "kvstore lease keep-alive 694d5765fc71500b",
        "kvstore lease keep-alive 694d5765fc71500b --once",
    ),
)
@click.option("--once", is_flag=True, help="Renew it once and return.")
@click.argument("args", nargs=-1, metavar="ID", type=click.UNPROCESSED)
@click.pass_obj
def keep_alive(session: Session, /, args: tuple[str, ...], once: bool) -> None:
    """Renew a lease until interrupted, or until it has ended."""
    from kvstore.client import operations
    from kvstore.errors import LEASE_NOT_FOUND

    session.printer.check_table()
    if len(args) != 1:
        raise bad_args("lease keep-alive command needs lease ID as argument")
    lease_id = parse_lease(args[0])
    while True:
        answer = session.call(operations.keep_alive_once(lease_id), timeout_s=_patience(session))
        if answer.TTL > 0:
            session.printer.show("keep_alive", answer)
        elif once:
            raise CliError(LEASE_NOT_FOUND.message, BAD_CONNECTION)
        else:
            click.echo(f"lease {lease_id:016x} expired or revoked.")
            return
        if once:
            return
        time.sleep(max(answer.TTL / _RENEWALS_PER_TTL, 0.5))


def _patience(session: Session) -> float:
    """A command timeout of 0 is no bound, for this command that never ends by itself."""
    return session.timeout_s or math.inf
