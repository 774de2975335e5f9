"""I53 (the mission: who was UP, and why): history, watchers and the log tell one story.

What a change was called and why is the same for every watcher on every member, and in the
history; and the history has all the changes since it begins, and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.sim.books.instances import Step, instances_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from raft.types import Entry
    from tests.sim.process import Process
    from tests.sim.registry_history import Past, ToldEvent, Watch, WatchAnswer
    from tests.sim.world import World

__all__ = ("HistoryTellsTheSame",)


class HistoryTellsTheSame(Invariant):
    """The words for each change, as whoever heard of it first was told."""

    number = "I53"
    title = "History tells the same as the sequence of watched events."
    source = "audit trails that disagree with what clients saw"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._book = instances_of(world)
        self._words: dict[tuple[int, str], tuple[str, str, str]] = {}
        self._by_registry: dict[tuple[int, str], bool] = {}
        self._seen = 0

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        self._book.follow(p, entries, results)

    def registry_watched(self, watch: Watch, answer: WatchAnswer) -> None:
        for event in answer.events:
            self._same(event, f"watcher {watch.client} at {watch.member}")

    def _same(self, event: ToldEvent, who: str) -> None:
        place = (event.revision, event.name)
        if not self._is_by_registry(place):
            return
        words = (event.event, event.code, event.text)
        known = self._words.setdefault(place, words)
        if known != words:
            raise self.violated(
                f"{event.name} at revision {event.revision}: {who} is told {words}, and somebody "
                f"else was told {known}"
            )

    def _is_by_registry(self, place: tuple[int, str]) -> bool:
        for step in self._book.steps[self._seen :]:
            self._by_registry[step.revision, step.name] = step.by_registry
        self._seen = len(self._book.steps)
        return self._by_registry.get(place, False)

    def registry_past(self, past: Past) -> None:
        for event in past.events:
            self._same(event, "who asks for the history")
        if not (past.whole and self._book.whole):
            return
        # What came after the question was answered may be in it, or not.
        told = {(each.revision, each.name) for each in past.events}
        there = {
            (step.revision, step.name)
            for step in self._book.steps
            if step.service == past.service and self._covers(past, step)
        }
        if missing := sorted(there - told):
            raise self.violated(
                f"the history of {past.service} from {past.first} on (kept since {past.oldest}) "
                f"does not have {missing[:3]}"
            )
        known = {(step.revision, step.name) for step in self._book.steps}
        if invented := sorted(told - known):
            raise self.violated(f"the history of {past.service} has {invented[:3]}")

    @staticmethod
    def _covers(past: Past, step: Step) -> bool:
        return max(past.first, past.oldest) <= step.revision <= past.revision
