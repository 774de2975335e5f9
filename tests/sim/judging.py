"""Hands what clients saw to the checkers of `tests.linear`, with the event log as witness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tests.linear import judge as checkers
from tests.linear.history import Compare, Delete, Event, Operation, Outcome, Put, Txn, WatchRecord
from tests.linear.revision_check import writes
from tests.sim.observer import Violated
from tests.sim.world import World

__all__ = ("judge",)

_STATES_MAX: Final = 200_000
_REGISTRY: Final = b"/kvstore/"
_OTHERS: Final = -2
"""The client of what the registry wrote."""

Log = Sequence[tuple[int, tuple[Event, ...]]]


def judge(world: World, history: Sequence[Operation], watches: Sequence[WatchRecord]) -> None:
    """A finding of any checker is a violation; a search that gives up is counted."""
    if not world.chronicle.whole:
        world.fire("history without a witness")
        return
    log = [(revision, _unleased(events)) for revision, events in world.chronicle.events]
    whole = [*history, *_of_the_registry(history, world.chronicle.events)]
    verdict = checkers.judge(whole, watches, log, states_max=_STATES_MAX)
    world.fire("history judged")
    if verdict.undecided:
        world.fire("search given up")
    if not verdict.legal:
        world.violate(Violated("linear", str(verdict)))


def _unleased(events: tuple[Event, ...]) -> tuple[Event, ...]:
    """What the registry did, without its leases, which no client of this history knows."""
    return tuple(
        replace(event, kv=replace(event.kv, lease=0), prev=None)
        if event.kv.key.startswith(_REGISTRY)
        else event
        for event in events
    )


def _of_the_registry(history: Sequence[Operation], log: Log) -> list[Operation]:
    """The registry's revisions as transactions of which nobody was told the outcome.

    Invariants of its own judge the registry; here it only makes revisions among those of others.
    """
    called: dict[int, int] = {}
    for op in history:
        if op.outcome is Outcome.OK and writes(op.request, op.response):
            called[op.response.revision] = max(op.call, called.get(op.response.revision, 0))
    found: list[Operation] = []
    earliest = min((op.call for op in history), default=0)
    for revision, events in log:
        earliest = max(earliest, called.get(revision, 0))
        if all(event.kv.key.startswith(_REGISTRY) for event in events):
            # Made for this place: elsewhere a deletion of what is not there would fit as well.
            compares = tuple(
                Compare(event.kv.key, "mod", "=", event.prev.mod if event.prev else 0)
                for event in events
            )
            ops = tuple(
                Put(event.kv.key, event.kv.value) if event.kind == "put" else Delete(event.kv.key)
                for event in events
            )
            found.append(Operation(_OTHERS, earliest, Txn(compares, ops, ())))
    return found
