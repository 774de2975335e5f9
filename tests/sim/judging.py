"""Hands what clients saw to the checkers of `tests.linear`, with the event log as witness."""

from __future__ import annotations

from collections.abc import Sequence

from tests.linear.history import Operation, WatchRecord
from tests.linear.judge import judge as judge_history
from tests.sim.observer import Violated
from tests.sim.world import World

__all__ = ("judge",)


def judge(world: World, history: Sequence[Operation], watches: Sequence[WatchRecord]) -> None:
    """A finding of any checker is a violation."""
    if not world.chronicle.whole:
        return  # Nobody is left who could say what some revisions did.
    judgement = judge_history(history, watches, world.chronicle.events)
    world.fire("history judged")
    if judgement.undecided:
        world.fire("search undecided")
    if not judgement.legal:
        world.violate(Violated("I24", str(judgement)))
