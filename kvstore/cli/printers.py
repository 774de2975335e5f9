"""Writing answers in the five forms of --write-out, in etcdctl's words.

`Printer.show` gets the kind of answer and the protobuf message (or our own value, where etcdctl
has one). Each form has one function per kind; JSON and protobuf mostly need none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from kvstore.cli.exits import BAD_FEATURE, CliError

__all__ = (
    "FORMS",
    "Printer",
    "emit",
)

FORMS: Final = ("simple", "json", "table", "fields", "protobuf")

Lines = Iterable[bytes | str]


def emit(lines: Lines) -> None:
    """Writes lines to standard output at once: a reader in a pipe waits for them."""
    data = b"".join(
        (line.encode("utf-8", "surrogateescape") if isinstance(line, str) else line) + b"\n"
        for line in lines
    )
    _write_raw(data)


def _write_raw(data: bytes) -> None:
    """Writes bytes to standard output."""
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        sys.stdout.write(data.decode("utf-8", "replace"))
    else:
        stream.write(data)
    sys.stdout.flush()


class Printer:
    """One form of output."""

    def __init__(self, form: str, *, hex: bool = False, values_only: bool = False) -> None:
        self.form = form
        self.hex = hex
        self.values_only = values_only

    def show(self, kind: str, answer: Any, **details: Any) -> None:
        """Write `answer`; raises CliError when this kind has no such form."""
        write: Callable[..., Lines] | None
        if self.form == "protobuf":
            self._show_protobuf(answer)
            return
        if self.form == "json":
            from kvstore.cli.gotext import to_json
            from kvstore.cli.shapes import json_shape

            emit((to_json(json_shape(kind, answer)),))
            return
        if self.form == "fields":
            from kvstore.cli import fields

            write = fields.WRITERS.get(kind)
        elif self.form == "table":
            from kvstore.cli import rows

            write = rows.TABLES.get(kind)
        else:
            from kvstore.cli import simple

            write = simple.WRITERS.get(kind)
        if write is None:
            raise CliError(f"{self.form} not supported as output format", BAD_FEATURE)
        emit(write(answer, self, **details))

    def _show_protobuf(self, answer: Any) -> None:
        encode = getattr(answer, "SerializeToString", None)
        if encode is None:
            raise CliError("protobuf not supported as output format", BAD_FEATURE)
        _write_raw(encode())

    def text(self, data: bytes) -> bytes:
        """A key or value as it is to be seen."""
        if not self.hex:
            return data
        from kvstore.cli.gotext import escaped_hex

        return escaped_hex(data)

    def check_table(self, kinds: Sequence[str] = ()) -> None:
        """Refuses -w table before anything is done, for commands that have no table."""
        if self.form == "table":
            raise CliError("table not supported as output format", BAD_FEATURE)
