"""Golden pictures of `service top`: what is drawn after updates of the watch and keys.

Commands: `size WIDTHxHEIGHT`, `update NAME` (one of UPDATES), `keys KEY...` (`slash` is /), and
`draw` (or `draw colours`), which prints the picture. One board and one sight live as long as a
file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kvstore.cli.services.board import Board
from kvstore.cli.services.frame import Size, draw
from kvstore.cli.services.sight import Sight, pressed, visible
from kvstore.client.registry.answers import RegistryHeader, Update
from kvstore.client.registry.values import InstanceEvent, Reason, Status
from tests.golden.runner import check
from tests.support import sample_services as sample

FILES = sorted((Path(__file__).parent / "top").glob("*.txt"))
NOW = sample.NOW_MS
CART = [
    sample.instance(f"cart-{n}", service="cart", namespace="shop", changed_at_ms=NOW - n * 60_000)
    for n in range(1, 13)
]
BILLING = sample.instance("billing-1", service="billing", status=Status.STARTING, routable=False)
RECOVERED = replace(sample.DOWN, status=Status.UP, silent=False, routable=True)
BACK = Reason("recovered", "heartbeats have come back")
UPDATES = {
    "first": Update(
        sample.HEADER, 38, is_snapshot=True, snapshot=(*sample.EVERYONE, *CART, BILLING)
    ),
    "nothing": Update(sample.HEADER, 38, is_snapshot=True),
    "recovered": Update(
        sample.HEADER, 42, events=(InstanceEvent("recovered", BACK, 42, RECOVERED),)
    ),
    "expired": Update(sample.HEADER, 43, events=(sample.EXPIRED,)),
    "billing_goes": Update(
        sample.HEADER,
        44,
        events=(InstanceEvent("deregistered", Reason("deregistered"), 44, BILLING, True),),
    ),
    "no_leader": Update(RegistryHeader(revision=44, no_leader=True), 44, is_progress=True),
}


class Person:
    """Sits before a terminal."""

    def __init__(self) -> None:
        self.board = Board()
        self.sight = Sight()
        self.size = Size(80, 20)

    def execute(self, command: str) -> Iterator[str]:
        verb, *words = command.split()
        match verb:
            case "size":
                self.size = Size(*map(int, words[0].split("x")))
            case "update":
                self.board.apply(UPDATES[words[0]], NOW)
            case "keys":
                for key in words:
                    seen = visible(self.board.rows(), self.sight)
                    self.sight = pressed(self.sight, {"slash": "/"}.get(key, key), seen)
            case "draw":
                colours = bool(words)
                picture = draw(self.board, self.sight, self.size, NOW, colours=colours)
                assert len(picture) == self.size.height
                yield from (f"|{line}".replace("\x1b", "ESC") for line in picture)
            case _:
                raise AssertionError(command)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_pictures(path: Path) -> None:
    check(path, Person().execute)
