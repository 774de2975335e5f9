"""Where a person looks in `service top`: filter, order, choice; and what each key does. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from kvstore.cli.services.board import Row
from kvstore.client.registry.values import ServiceName, Status

__all__ = ("ORDERS", "Key", "Sight", "keys_of", "pressed", "visible")


class Key(StrEnum):
    """Keys that are no letters."""

    UP = "up"
    DOWN = "down"
    LEFT = "left"
    RIGHT = "right"
    ENTER = "enter"
    ESCAPE = "escape"
    BACKSPACE = "backspace"


_SEQUENCES: Final[Mapping[str, Key]] = MappingProxyType(
    {
        "\x1b[A": Key.UP,
        "\x1b[B": Key.DOWN,
        "\x1b[C": Key.RIGHT,
        "\x1b[D": Key.LEFT,
        "\x1bOA": Key.UP,
        "\x1bOB": Key.DOWN,
        "\x1bOC": Key.RIGHT,
        "\x1bOD": Key.LEFT,
        "\x1b": Key.ESCAPE,
        "\r": Key.ENTER,
        "\n": Key.ENTER,
        "\x7f": Key.BACKSPACE,
        "\b": Key.BACKSPACE,
    }
)


def keys_of(text: str) -> Iterator[str]:
    """The keys of what a terminal sent at once; sequences that mean nothing here are left out."""
    while text:
        for length in (3, 1):
            key = _SEQUENCES.get(text[:length])
            if key is not None and not (key is Key.ESCAPE and text[1:2] in ("[", "O")):
                yield key
                text = text[length:]
                break
        else:
            if text[0] == "\x1b":  # a sequence of another key: ends with a letter or ~
                end = next(
                    (at for at, sign in enumerate(text[2:], 3) if sign.isalpha() or sign == "~"),
                    len(text),
                )
                text = text[end:]
                continue
            if text[0].isprintable():
                yield text[0]
            text = text[1:]


def _down(row: Row) -> tuple[Any, ...]:
    return (-row.by_status.get(Status.DOWN, 0) - row.stale, row.name)


ORDERS: Final[Mapping[str, Callable[[Row], Any]]] = MappingProxyType(
    {
        "name": lambda row: row.name,
        "instances": lambda row: (-row.instances, row.name),
        "trouble": _down,
        "changed": lambda row: (-row.changed_ms, row.name),
    }
)
"""What services can be sorted by."""


@dataclass(frozen=True, slots=True)
class Sight:
    """Replaced with every key."""

    order: str = "name"
    backwards: bool = False
    wanted: str = ""
    """Only services whose name holds this."""
    typing: bool = False
    """Letters go into the filter."""
    chosen: ServiceName | None = None
    opened: ServiceName | None = None
    """Its instances are shown instead of all services."""
    first: int = 0
    """How many instances of an opened service are scrolled away."""
    ended: bool = False


def visible(rows: Sequence[Row], sight: Sight) -> list[Row]:
    """The services that are to be seen, in their order."""
    found = [row for row in rows if sight.wanted in f"{row.name.namespace}/{row.name.service}"]
    return sorted(found, key=ORDERS[sight.order], reverse=sight.backwards)


def pressed(sight: Sight, key: str, rows: Sequence[Row]) -> Sight:
    """What a key makes of it; `rows` are those that are seen."""
    if sight.typing:
        return _typed(sight, key)
    match key:
        case "q":
            return replace(sight, ended=True)
        case "/":
            return replace(sight, typing=True)
        case "r":
            return replace(sight, backwards=not sight.backwards)
        case Key.LEFT | Key.RIGHT:
            names = list(ORDERS)
            step = 1 if key == Key.RIGHT else -1
            return replace(sight, order=names[(names.index(sight.order) + step) % len(names)])
        case Key.UP | Key.DOWN:
            return _moved(sight, -1 if key == Key.UP else 1, rows)
        case Key.ENTER if sight.opened is None and rows:
            names_seen = [row.name for row in rows]
            opened = sight.chosen if sight.chosen in names_seen else names_seen[0]
            return replace(sight, opened=opened, chosen=opened, first=0)
        case Key.ESCAPE | Key.BACKSPACE if sight.opened is not None:
            return replace(sight, opened=None, first=0)
        case Key.ESCAPE:
            return replace(sight, wanted="")
    return sight


def _typed(sight: Sight, key: str) -> Sight:
    match key:
        case Key.ENTER:
            return replace(sight, typing=False)
        case Key.ESCAPE:
            return replace(sight, typing=False, wanted="")
        case Key.BACKSPACE:
            return replace(sight, wanted=sight.wanted[:-1])
        case _ if len(key) == 1:
            return replace(sight, wanted=sight.wanted + key)
    return sight


def _moved(sight: Sight, step: int, rows: Sequence[Row]) -> Sight:
    if sight.opened is not None:
        return replace(sight, first=max(0, sight.first + step))
    if not rows:
        return sight
    names = [row.name for row in rows]
    if sight.chosen not in names:
        return replace(sight, chosen=names[0])
    place = names.index(sight.chosen) + step
    return replace(sight, chosen=names[max(0, min(place, len(names) - 1))])
