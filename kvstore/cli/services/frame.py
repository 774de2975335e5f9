"""What `service top` draws: a board as seen through a sight, as lines of a given size. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from kvstore.cli.services.board import Board, Row
from kvstore.cli.services.columns import BOLD, DIM, Cell, Look, columns, cut, plain, width_of
from kvstore.cli.services.sight import Sight, visible
from kvstore.cli.services.times import age, clock
from kvstore.cli.services.views import (
    EVENT_COLOURS,
    GONE,
    STALE,
    STATUS_COLOURS,
    instances,
    reason_text,
)
from kvstore.client.registry.values import InstanceEvent, ServiceName, Status

__all__ = ("Size", "draw", "services_table")

_BAR_WIDTH: Final = 10
_CHANGES_MAX: Final = 10
_NOTES_MAX: Final = 3
_CHOSEN = "7"
"""Inverted."""
_SHORT: Final = {
    Status.STARTING: "start",
    Status.DEGRADED: "degr",
    Status.DRAINING: "drain",
    Status.OUT_OF_SERVICE: "out",
    Status.UNKNOWN: "unkn",
}
"""Headings for statuses with long names."""


class Size(NamedTuple):
    """Of a terminal."""

    width: int
    height: int


def draw(board: Board, sight: Sight, size: Size, now_ms: int, *, colours: bool) -> list[str]:
    """Exactly `size.height` lines, none wider than `size.width`."""
    look = Look(colours, size.width)
    seen = visible(board.rows(), sight)
    head = [*_title(board, seen, look, now_ms), *_notes(board, look)]
    changes = _changes(board, sight, look, min(_CHANGES_MAX, size.height // 3))
    foot = _footer(sight, look)
    room = max(size.height - len(head) - len(changes) - 1, 2)
    if sight.opened is not None:
        body = _instances(board, sight, look, room, now_ms)
    else:
        body = _services(board, seen, sight, look, room, now_ms)
    blank = [""] * (room - len(body))
    return [*head, *body, *blank, *changes, foot][: size.height]


def _title(board: Board, rows: Sequence[Row], look: Look, now_ms: int) -> Iterator[str]:
    total = sum(row.instances for row in rows)
    routable = sum(row.routable for row in rows)
    left = f"services: {len(rows)}   instances: {total}   get requests: {routable}"
    if not board.known:
        left = "waiting for the first answer"
    right = f"revision {board.revision}   {clock(now_ms)} UTC"
    gap = max(look.width - width_of(left) - width_of(right), 3)
    yield look.paint(cut(left + " " * gap + right, look.width), BOLD)


def _notes(board: Board, look: Look) -> Iterator[str]:
    said = []
    if board.no_leader:
        said.append("the member has no leader: what is shown may be old, and nothing expires")
    said += [
        f"{_shown(row.name)}: the guard keeps {row.stale} of {row.instances} that fell silent at"
        f" once (kvstore service guard confirm|lift {row.name.service})"
        for row in sorted(board.rows())
        if row.stale
    ]
    if len(said) > _NOTES_MAX:
        said = [*said[: _NOTES_MAX - 1], f"… and {len(said) - _NOTES_MAX + 1} more"]
    for note in said:
        yield look.paint(cut(plain(note), look.width), STALE)


def _shown(name: ServiceName) -> str:
    return name.service if name.namespace == "default" else f"{name.namespace}/{name.service}"


def services_table(rows: Sequence[Row], look: Look, now_ms: int) -> Iterator[str]:
    """The services with their counts, one a line, under headings."""
    shown = [status for status in Status if status in _ALWAYS or _any(rows, status)]
    headings = (
        "service",
        "instances",
        "health",
        *(_SHORT.get(status, status.lower()) for status in shown),
        "stale",
        "changed",
    )
    return columns(
        headings,
        [
            [
                Cell(_shown(row.name), BOLD),
                str(row.instances),
                _bar(row),
                *(_count(row.by_status.get(each, 0), STATUS_COLOURS[each]) for each in shown),
                _count(row.stale, STALE),
                age(row.changed_ms, now_ms),
            ]
            for row in rows
        ],
        look,
    )


_ALWAYS: Final = (Status.UP, Status.DRAINING, Status.DOWN)
"""Statuses that have a column even where nobody has them: the table does not jump about."""


def _any(rows: Sequence[Row], status: Status) -> bool:
    return any(row.by_status.get(status) for row in rows)


def _count(number: int, colour: str) -> Cell:
    return Cell(str(number), colour) if number else Cell("·", DIM)


def _bar(row: Row) -> Cell:
    """Those who get requests, and how sure that is; who is left out of it; who is DOWN."""
    down = row.by_status.get(Status.DOWN, 0)
    parts = (
        (row.routable - min(row.stale, row.routable), "█"),
        (min(row.stale, row.routable), "▓"),
        (row.instances - row.routable - down, "▒"),
        (down, "░"),
    )
    drawn, passed = "", 0
    for number, sign in parts:
        passed += number
        drawn += sign * (round(passed * _BAR_WIDTH / row.instances) - len(drawn))
    colour = "32" if row.routable == row.instances else "33" if row.routable else "31"
    return Cell(drawn, colour)


def _services(
    board: Board, seen: Sequence[Row], sight: Sight, look: Look, room: int, now_ms: int
) -> list[str]:
    if not seen:
        word = "no service is registered" if not sight.wanted else "no service has such a name"
        return [look.paint(word if board.known else "", DIM)]
    names = [row.name for row in seen]
    chosen = names.index(sight.chosen) if sight.chosen in names else -1
    # The heading takes one line; the chosen one stays in sight.
    first = max(0, min(chosen - (room - 1) // 2, len(seen) - (room - 1)))
    shown = seen[first : first + room - 1]
    lines = list(services_table(shown, look, now_ms))
    if chosen >= 0:
        at = chosen - first + 1
        plain_line = list(services_table(shown, Look(False, look.width), now_ms))[at]
        lines[at] = (
            look.paint(plain_line.ljust(look.width), _CHOSEN) if look.colours else f"{plain_line} ◂"
        )
    return [_clipped(line, look) for line in lines]


def _instances(board: Board, sight: Sight, look: Look, room: int, now_ms: int) -> list[str]:
    assert sight.opened is not None
    found = board.instances(sight.opened)
    if not found:
        return [look.paint(f"{_shown(sight.opened)} has no instance any more", DIM)]
    first = max(0, min(sight.first, len(found) - (room - 2)))
    title = f"{_shown(sight.opened)}: {len(found)} instances"
    if first:
        title += f", from the {first + 1}th on"
    view = instances(found[first : first + room - 2], now_ms)
    lines = [look.paint(title, BOLD), *columns(view.headings, view.rows, look)]
    return [_clipped(line, look) for line in lines]


def _changes(board: Board, sight: Sight, look: Look, room: int) -> list[str]:
    told = [
        (when, event)
        for when, event in board.changes
        if sight.opened is None or event.instance.name.of == sight.opened
    ][-max(room - 1, 0) :]
    rule = "── latest changes "
    lines = [look.paint(rule + "─" * max(look.width - len(rule), 0), DIM)]
    for when, event in told:
        lines.append(_change(when, event, look))
    return lines + [""] * (room - len(lines))


def _change(when_ms: int, event: InstanceEvent, look: Look) -> str:
    instance = event.instance
    text = reason_text(event.reason)
    said = "" if text == event.event else f"  {text}"
    head = f"{clock(when_ms)}  "
    word = f"{event.event:<12}"
    status = "gone" if event.event in GONE else instance.status
    rest = f"  {_shown(instance.name.of)}/{instance.id}  {status}{said}"
    room = look.width - len(head) - len(word)
    return head + look.paint(word, EVENT_COLOURS.get(event.event, "")) + cut(plain(rest), room)


def _footer(sight: Sight, look: Look) -> str:
    if sight.typing:
        return cut(f"filter: {plain(sight.wanted)}▏ (Enter keeps it, Esc clears it)", look.width)
    back = ", backwards" if sight.backwards else ""
    parts = ["q quit", "/ filter", f"←→ sort: {sight.order}{back}", "r reverse"]
    parts.append("Esc back" if sight.opened else "↑↓ choose  Enter open")
    if sight.wanted:
        parts.append(f"only {plain(sight.wanted)!r} (Esc: all)")
    return look.paint(cut("  ".join(parts), look.width), DIM)


def _clipped(line: str, look: Look) -> str:
    """No wider than the terminal; with colours in it, signs that take no room are not counted."""
    if "\x1b" not in line:
        return cut(line, look.width)
    kept, width, at = [], 0, 0
    while at < len(line):
        if line[at] == "\x1b":
            end = line.index("m", at) + 1
            kept.append(line[at:end])
            at = end
            continue
        width += width_of(line[at])
        if width <= look.width:
            kept.append(line[at])
        at += 1
    return "".join(kept)
