"""Documents as scripts: the commands that they show, with what these print.

What is different each time (times, ages, ids, revisions) has to be of its kind only, and to be the
same wherever the document shows the same. Widths of columns follow what stands in them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

__all__ = ("Command", "Page", "Pairs", "plain")

_GOES_ON = re.compile(
    r"kvstore (?:local|agent run|(?:service )?watch|service top)\b|--heartbeat\b|&$"
)
_TWO_TERMINALS = re.compile(r"^\$ .*? {2,}(?=\$ )")
_IN_TABLE = re.compile(r"^\| `(kvstore [^`]+)` \|")
_HERE_DOCUMENT = re.compile(r"<<'(\w+)'")
_CHANGING = re.compile(
    r"""
    (?P<TIME>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)
  | (?P<REVISION>(?<=revision\ )\d+ | (?<=\dZ\ \ )\d+(?=\ ))
  | (?P<ID>\b[0-9a-f]{13,16}\b)
  | (?P<CLOCK>\b\d\d:\d\d:\d\d(?:\.\d{3})?\b)
  | (?P<AGE>\b\d+s\b)
  | (?P<N>\d+(?=\ s\ are\ left))
    """,
    re.VERBOSE,
)
_BOUND = ("TIME", "REVISION", "ID")
"""The same wherever the same is shown."""


@dataclass(frozen=True)
class Command:
    """What is typed, and the lines that are shown under it; None where a form shows none."""

    page: str
    line: int
    typed: str
    said: tuple[str, ...] | None = None

    @property
    def goes_on(self) -> bool:
        """It runs until it is ended."""
        return _GOES_ON.search(re.sub(r"\s+# .*", "", self.typed)) is not None

    def begins(self, words: str) -> bool:
        """So; without words: what is said without a command."""
        return self.typed.startswith(words) if words else not self.typed

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}: `{self.typed or '…'}`"


class Page:
    """The commands of a document in their order; each is taken once.

    They stand in console blocks, indented, or at the front of a table's row.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.text = path.read_text(encoding="utf-8")
        self._left = list(_commands(self.name, self.text.split("\n")))

    def take(self, beginning: str) -> Command:
        """The first that begins so and is not taken yet."""
        for command in self._left:
            if command.begins(beginning):
                self._left.remove(command)
                return command
        raise AssertionError(f"{self.name} shows no more `{beginning}`")

    def before(self, beginning: str) -> list[Command]:
        """Takes all in front of the first that begins so."""
        ends = [n for n, each in enumerate(self._left) if each.begins(beginning)]
        assert ends, f"{self.name} shows no more `{beginning}`"
        taken, self._left = self._left[: ends[0]], self._left[ends[0] :]
        return taken

    def command(self, typed: str, words: str) -> Command:
        """One that stands in a sentence or a cell, as these words."""
        return Command(self.name, self.text[: self.text.index(words)].count("\n") + 1, typed)

    def rest(self) -> list[Command]:
        """Takes all that are left."""
        taken, self._left = self._left, []
        return taken


def _commands(page: str, lines: Sequence[str]) -> Iterator[Command]:
    at = 0
    while at < len(lines):
        begin, line = at, lines[at]
        at += 1
        if line.startswith("```"):
            at = lines.index("```", at) + 1
            if line == "```console":
                yield from _console(page, list(enumerate(lines[begin + 1 : at - 1], begin + 2)))
        elif line.startswith("    ") and not lines[begin - 1].strip():
            while at < len(lines) and (not lines[at].strip() or lines[at].startswith("    ")):
                at += 1
            yield from _indented(page, begin + 1, [each[4:] for each in lines[begin:at]])
        elif found := _IN_TABLE.match(line):
            yield Command(page, begin + 1, found[1])


def _console(page: str, numbered: Sequence[tuple[int, str]]) -> Iterator[Command]:
    """What follows a `$`, and the lines up to the next; two terminals may stand side by side."""
    lines: list[tuple[int, str]] = []
    width = 0
    for number, line in numbered:
        if two := _TWO_TERMINALS.match(line):
            yield from _one_terminal(page, lines)
            lines, width = [], two.end()
        if width and not line:
            side_by_side, lines = lines, []
            for part in (slice(width), slice(width, None)):
                yield from _one_terminal(page, [(n, each[part]) for n, each in side_by_side])
            width = 0
        lines.append((number, line))
    assert not width, f"{page}: no empty line behind two terminals"
    yield from _one_terminal(page, lines)


def _one_terminal(page: str, numbered: Iterable[tuple[int, str]]) -> Iterator[Command]:
    """Lines in front of the first `$` are said by what runs already: a command without a text."""
    typed, begin, said = "", 0, list[str]()
    for number, line in numbered:
        if line.startswith("$ "):
            if begin:
                yield Command(page, begin, typed, tuple(said))
            typed, begin, said = line[2:].rstrip(), number, []
        elif line.strip():
            begin = begin or number
            said.append(line.rstrip())
    if begin:
        yield Command(page, begin, typed, tuple(said))


def _indented(page: str, first: int, lines: Sequence[str]) -> Iterator[Command]:
    """Commands alone; one may go on over lines, by a backslash or as a document in the shell."""
    at = 0
    while at < len(lines):
        begin = at
        if here := _HERE_DOCUMENT.search(lines[at]):
            at = lines.index(here[1], at)
        while lines[at].endswith("\\"):
            at += 1
        at += 1
        if typed := "\n".join(lines[begin:at]).strip():
            yield Command(page, first + begin, typed)


def plain(line: str) -> str:
    """A line with names in place of what is different each time."""
    return re.sub(r" {2,}", "  ", _CHANGING.sub(lambda found: found.lastgroup or "", line)).rstrip()


class Pairs:
    """What the documents show, beside what it was here: the same stands for the same."""

    def __init__(self) -> None:
        self._here: dict[tuple[str, str], str] = {}

    def differences(self, shown: Sequence[str], printed: Sequence[str]) -> str:
        """In what these lines differ, for people; empty if they are alike."""
        wanted, found = [plain(each) for each in shown], [plain(each) for each in printed]
        if wanted != found:
            return "\n".join(difflib.unified_diff(wanted, found, "shown", "printed", lineterm=""))
        there, here = ([*_bound(lines)] for lines in (shown, printed))
        return "\n".join(
            f"{key[0]} {key[1]} is {before} elsewhere and {value} here"
            for key, (kind, value) in zip(there, here, strict=True)
            if not _same(kind, before := self._here.setdefault(key, value), value)
        )


def _bound(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        for found in _CHANGING.finditer(line):
            if found.lastgroup in _BOUND:
                yield found.lastgroup, found[0]


def _same(kind: str, one: str, other: str) -> bool:
    """A change has a time of its own, and its entry in the history another, close by."""
    if kind != "TIME":
        return one == other
    apart = datetime.fromisoformat(one) - datetime.fromisoformat(other)
    return abs(apart) < timedelta(seconds=1)
