"""Hands what clients saw to the checkers of `tests.linear`, with the event log as witness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.linear import judge as checkers
from tests.linear.history import Operation, WatchRecord
from tests.sim.observer import Violated
from tests.sim.world import World

__all__ = ("judge",)

_STATES_MAX: Final = 200_000


def judge(world: World, history: Sequence[Operation], watches: Sequence[WatchRecord]) -> None:
    """A finding of any checker is a violation; a search that gives up is counted."""
    if not world.chronicle.whole:
        world.fire("history without a witness")
        return
    verdict = checkers.judge(history, watches, world.chronicle.events, states_max=_STATES_MAX)
    world.fire("history judged")
    if verdict.undecided:
        world.fire("search given up")
    if not verdict.legal:
        world.violate(Violated("linear", str(verdict)))
