"""`txn`: a transaction read from standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from kvstore.cli.context import Session
from kvstore.cli.exits import bad_args
from kvstore.cli.options import ClientCommand

__all__ = ("txn",)


@click.command(
    cls=ClientCommand,
    examples=(
        "kvstore txn -i",
        "kvstore txn <<'END'",
        '  mod("config") = "7"',
        "",
        '  put config "new value"',
        "",
        "  get config",
        "  END",
    ),
)
@click.option("-i", "--interactive", is_flag=True, help="Ask for each part.")
@click.argument("args", nargs=-1, metavar=" ", type=click.UNPROCESSED)
@click.pass_obj
def txn(session: Session, /, args: tuple[str, ...], interactive: bool) -> None:
    """Do several operations in one revision, if conditions hold.

    Read from standard input: conditions, an empty line, what to do if all of them hold, an
    empty line, what to do otherwise. Conditions are like value("key") = "text" or
    version("key") > "0" (create, mod and lease likewise, with =, !=, < and >); operations are
    get, put and del with their options.
    """
    from kvstore.cli.txntext import parse_compare, parse_operation
    from kvstore.client.txn import Txn

    session.printer.check_table()
    if args:
        raise bad_args("txn command does not accept argument")
    request = Txn()
    _ask("compares:", interactive)
    request.when(*map(parse_compare, _section()))
    _ask("success requests (get, put, del):", interactive)
    request.then(*map(parse_operation, _section()))
    _ask("failure requests (get, put, del):", interactive)
    request.otherwise(*map(parse_operation, _section()))
    session.printer.show("txn", session.call(request.build()))


def _ask(question: str, interactive: bool) -> None:
    if interactive:
        click.echo(question)


def _section() -> Iterator[str]:
    """Lines up to an empty one, or the end of input."""
    while line := sys.stdin.readline().strip():
        yield line
