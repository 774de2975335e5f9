"""Aligned columns for people, with colours on a terminal; text of others cannot move the cursor."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ("BOLD", "DIM", "Cell", "Look", "columns", "cut", "plain", "width_of")

BOLD = "1"
DIM = "2"
_GAP = "  "
_NOTHING = "-"
_LAST_CHARS_MIN = 12
"""The last column is never cut to less, however narrow the terminal."""


class Cell(NamedTuple):
    """A text, and the ANSI code of its colour."""

    text: str
    colour: str = ""


class Look(NamedTuple):
    """What the output can show: colours or none, and how many columns (0: as many as needed)."""

    colours: bool = False
    width: int = 0

    @classmethod
    def of_stdout(cls) -> Look:
        """Colours and a width only for a person at a terminal, who did not set NO_COLOR."""
        if not sys.stdout.isatty():
            return cls()
        dumb = os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))
        return cls(colours=not dumb, width=shutil.get_terminal_size().columns)

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour, where there are colours."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colours and colour and text else text


def plain(text: str) -> str:
    """Text on one line, without what would steer a terminal."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def width_of(text: str) -> int:
    """Columns that a text takes: wide signs take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        for sign in text
    )


def cut(text: str, width: int) -> str:
    """At most so many columns of a text; what was cut off is shown as `…`."""
    if width_of(text) <= width:
        return text
    kept = text
    while kept and width_of(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…" if width > 0 else ""


def columns(
    headings: Sequence[str], rows: Sequence[Sequence[Cell | str]], look: Look
) -> Iterator[str]:
    """Headings in capitals, cells at the left, `-` for nothing.

    On a terminal that is too narrow, columns in which there is nothing are left out, and the last
    one is cut at its edge.
    """
    cells = [[_cell(each) for each in row] for row in rows]
    widths = _widths(headings, cells)
    if look.width and sum(widths) + len(_GAP) * (len(widths) - 1) > look.width:
        told = [at for at in range(len(headings)) if any(row[at].text != _NOTHING for row in cells)]
        headings = [headings[at] for at in told]
        cells = [[row[at] for at in told] for row in cells]
        widths = _widths(headings, cells)
        before = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
        widths[-1] = min(widths[-1], max(look.width - before, _LAST_CHARS_MIN))
    yield _line([Cell(title.upper(), BOLD) for title in headings], widths, look)
    for row in cells:
        yield _line(row, widths, look)


def _widths(headings: Sequence[str], cells: Sequence[Sequence[Cell]]) -> list[int]:
    return [
        max(width_of(title), *(width_of(row[at].text) for row in cells), 0)
        for at, title in enumerate(headings)
    ]


def _cell(given: Cell | str) -> Cell:
    text, colour = given if isinstance(given, Cell) else (given, "")
    return Cell(plain(text) or _NOTHING, colour)


def _line(cells: Sequence[Cell], widths: Sequence[int], look: Look) -> str:
    parts = []
    for cell, width in zip(cells, widths, strict=True):
        text = cut(cell.text, width)
        parts.append(look.paint(text, cell.colour) + " " * (width - width_of(text)))
    return _GAP.join(parts).rstrip()
