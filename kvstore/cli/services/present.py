"""From a question to what is printed: asks, then writes the answer in the form of --write-out.

Tables go to stdout, remarks on them to stderr, so that scripts may cut columns.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from kvstore.cli.context import Session
from kvstore.cli.exits import BAD_FEATURE, CliError
from kvstore.cli.gotext import to_json
from kvstore.cli.printers import emit
from kvstore.cli.rows import ascii_table
from kvstore.cli.services.columns import Cell, Look, columns, plain
from kvstore.cli.services.views import View
from kvstore.client.call import Unary
from kvstore.errors import EtcdError

__all__ = ("ask", "check_form", "now_ms", "remark", "show", "show_json", "show_lines")

T = TypeVar("T")

_NO_NAMESPACE = re.compile(r"there is no namespace '([a-z0-9-]+)'")


def now_ms() -> int:
    """Unix time."""
    return time.time_ns() // 1_000_000


def check_form(session: Session, *, protobuf: bool = False) -> None:
    """Refuses forms that services are not shown in, before anything is done."""
    known = ("simple", "json", "table", *(("protobuf",) if protobuf else ()))
    if session.form not in known:
        raise CliError(f"{session.form} not supported as output format", BAD_FEATURE)


def ask(session: Session, operation: Unary[T], *, wait_s: float = 0.0) -> T:
    """The answer as a value. With `-w protobuf` it is printed as it came, and the command ends.

    `wait_s`: how long the server may take on purpose; the command's timeout starts after it.
    """
    check_form(session, protobuf=True)
    timeout_s = session.timeout_s + wait_s if wait_s else None
    with _advised():
        message = session.call(operation, timeout_s=timeout_s)
    if session.form == "protobuf":
        session.printer.show("", message)
        raise click.exceptions.Exit
    return operation.convert(message)


@contextmanager
def _advised() -> Iterator[None]:
    """Adds to the refusal for an unknown namespace which command makes it."""
    try:
        yield
    except EtcdError as error:
        missing = _NO_NAMESPACE.search(error.message)
        if missing is None:
            raise
        raise CliError(
            f"{missing[0]}; make it with `kvstore service namespace create {missing[1]}`"
        ) from None


def show_json(value: Any) -> None:
    """One line of JSON."""
    emit((to_json(value),))


def show(session: Session, view: View, remarks: Iterable[str] = ()) -> None:
    """A table: plain columns, or drawn with `-w table`; nothing but remarks if it is empty."""
    if view.rows:
        if session.form == "table":
            emit(ascii_table(view.headings, [[_text(cell) for cell in row] for row in view.rows]))
        else:
            emit(columns(view.headings, view.rows, Look.of_stdout()))
    remark(*remarks)


def _text(cell: Cell | str) -> str:
    return plain(cell.text if isinstance(cell, Cell) else cell)


def show_lines(lines: Iterable[Cell]) -> None:
    """Lines in their colours."""
    look = Look.of_stdout()
    emit(look.paint(plain(each.text), each.colour) for each in lines)


def remark(*sentences: str) -> None:
    """Sentences for people, beside the answer."""
    for sentence in sentences:
        click.echo(plain(sentence), err=True)
