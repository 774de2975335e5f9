"""`service top`: all services at a glance, as they change."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

import click

from kvstore.cli.commands.service.group import service
from kvstore.cli.context import Session
from kvstore.cli.options import DURATION, ClientCommand
from kvstore.cli.printers import emit
from kvstore.cli.services.arguments import EVERY_NAMESPACE, namespace_option
from kvstore.cli.services.board import Board, Row
from kvstore.cli.services.columns import Look
from kvstore.cli.services.frame import draw, services_table
from kvstore.cli.services.present import check_form, now_ms, show_json
from kvstore.cli.services.sight import Sight, pressed, visible
from kvstore.cli.services.times import moment
from kvstore.client.registry.values import Health, Selection

if TYPE_CHECKING:
    from kvstore.client.registry.blocking import RegistryWatch

__all__ = ("top",)

_REDRAW_S = 0.1
"""Changes that come faster share a picture."""
_TICK_S = 1.0
"""Ages grow though nothing changes."""


class _TopCommand(ClientCommand):
    """Ctrl-C leaves the terminal as it was."""

    cleans_up = True


@service.command(
    cls=_TopCommand,
    examples=(
        "kvstore service top",
        "kvstore service top -n shop",
        "kvstore service top --count 1 | cat        # once, as text",
    ),
)
@namespace_option(None, "Only of this namespace.")
@click.option(
    "--interval",
    type=DURATION,
    default="2s",
    show_default=True,
    help="Without a terminal: from one text to the next.",
)
@click.option(
    "--count", type=click.IntRange(1), help="Without a terminal: so many texts, then end."
)
@click.pass_obj
def top(session: Session, /, namespace: str | None, interval: float, count: int | None) -> None:
    """Show all services live: their instances, how they are, the latest changes.

    Keys: q ends, / filters by name, left and right choose what to sort by, r reverses, up and
    down choose a service, Enter shows its instances, Esc goes back. What is shown is pushed by
    the cluster, not asked for again and again. Without a terminal: a text every --interval.
    """
    check_form(session)
    everyone = Selection(health=Health.ALL)
    watch = session.client.registry.watch(
        namespace=namespace or EVERY_NAMESPACE, selection=everyone
    )
    live = session.form == "simple" and count is None and _is_terminal()
    with watch:
        try:
            if live:
                _Live(watch).run()
            else:
                _texts(session, watch, interval, count)
        except KeyboardInterrupt:
            pass  # that is how one ends it


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


class _Live:
    """The picture on a terminal: a thread takes updates in, this one draws and reads keys."""

    def __init__(self, watch: RegistryWatch) -> None:
        self._watch = watch
        self._board = Board()
        self._lock = threading.Lock()
        self._failed: Exception | None = None
        self._ended = False

    def run(self) -> None:
        """Until the person ends it, or the cluster does."""
        from kvstore.cli.services.terminal import Terminal

        sight = Sight()
        colours = not os.environ.get("NO_COLOR")
        with Terminal() as terminal:
            reader = threading.Thread(target=self._read, args=(terminal.wake,), daemon=True)
            reader.start()
            drawn_at = 0.0
            while not (sight.ended or self._ended):
                with self._lock:
                    picture = draw(self._board, sight, terminal.size, now_ms(), colours=colours)
                terminal.draw(picture)
                drawn_at = time.monotonic()
                keys = terminal.keys(_TICK_S)
                if keys is None:
                    break
                for key in keys:
                    with self._lock:
                        seen = visible(self._board.rows(), sight)
                    sight = pressed(sight, key, seen)
                if not keys:
                    self._rest(drawn_at)
            self._watch.cancel()
            reader.join()
        if self._failed is not None:
            raise self._failed

    @staticmethod
    def _rest(drawn_at: float) -> None:
        """Lets changes gather, so that a storm of them does not become one of pictures."""
        left = drawn_at + _REDRAW_S - time.monotonic()
        if left > 0:
            time.sleep(left)

    def _read(self, wake: object) -> None:
        assert callable(wake)
        try:
            for update in self._watch:
                with self._lock:
                    self._board.apply(update, now_ms())
                wake()
        except Exception as error:  # told by the thread that draws
            self._failed = error
        self._ended = True
        wake()


def _texts(session: Session, watch: RegistryWatch, interval_s: float, count: int | None) -> None:
    board = Board()
    printed = 0
    while count is None or printed < count:
        # The first update is the whole state; it is there already, or the watch had failed.
        deadline = time.monotonic() + (interval_s if printed else 0.0)
        while not board.known or time.monotonic() < deadline:
            left = deadline - time.monotonic() if board.known else None
            update = watch.get(left if left is None else max(left, 0.0))
            if update is not None:
                board.apply(update, now_ms())
            elif left is None:
                return
        _text(session, board)
        printed += 1


def _text(session: Session, board: Board) -> None:
    rows = visible(board.rows(), Sight())
    if session.form == "json":
        show_json([_shape(row) for row in rows])
        return
    emit((f"{moment(now_ms())}  revision {board.revision}",))
    emit(services_table(rows, Look(), now_ms()) if rows else ("no service is registered",))


def _shape(row: Row) -> dict[str, object]:
    return {
        "namespace": row.name.namespace,
        "service": row.name.service,
        "instances": row.instances,
        "routable": row.routable,
        "stale": row.stale,
        "by_status": {str(status): number for status, number in sorted(row.by_status.items())},
        "changed_at": moment(row.changed_ms),
    }
