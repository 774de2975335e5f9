"""Hands what clients saw to the checkers of `tests.linear`, with the event log as witness."""

from __future__ import annotations

from collections.abc import Sequence

from tests.linear.history import Operation, WatchRecord
from tests.sim.observer import Violated
from tests.sim.world import World

__all__ = ("judge",)


def judge(world: World, history: Sequence[Operation], watches: Sequence[WatchRecord]) -> None:
    """A finding of any checker is a violation."""
