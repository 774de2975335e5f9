"""Replays history to watchers that are behind, in rounds cut into short slices.

A round pins a view of the store, takes a batch of watchers, reads changes from the chosen one's
next revision on, matches them against the batch, and queues at most one response per watcher.
It ends after a bounded number of revisions, events and changes, always between two revisions,
so a revision's events stay together. A watcher that has reached the last published revision
becomes live again; the others wait for another round.

Nothing of a watcher is altered before its response is queued. A round can therefore be dropped
at any point (a snapshot replaced the store), and the next one starts from the truth.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import islice
from typing import TypeAlias

from kvstore.watch import encoding, limits
from kvstore.watch.encoding import Response
from kvstore.watch.events import Past, SharedEvent
from kvstore.watch.history import History, View
from kvstore.watch.index import Interest, WatcherIndex
from kvstore.watch.watcher import Standing, Watcher

__all__ = ("CatchUp", "Encoder")

_Steps: TypeAlias = Generator[None, None, None]


class Encoder:
    """Turns shared events into the response of one kind of watcher."""

    __slots__ = ("_header", "_split_bytes")

    def __init__(self, header: Callable[[int], bytes], max_response_bytes: int) -> None:
        self._header = header
        self._split_bytes = max_response_bytes

    def response(self, revision: int, watcher: Watcher, events: Sequence[bytes]) -> Response:
        """The response of `watcher` around encoded events; several pieces if it may be split."""
        split_bytes = self._split_bytes if watcher.fragment else None
        return encoding.event_responses(
            self._header(revision), watcher.id_field, events, split_bytes
        )


class CatchUp:
    """The watchers that are behind, in the order in which they are served."""

    def __init__(
        self,
        history: History,
        encoder: Encoder,
        *,
        max_response_bytes: int,
        random: Callable[[int], int],
        caught_up: Callable[[Watcher], bool],
        compacted: Callable[[Watcher, int], None],
    ) -> None:
        """`caught_up(watcher)`: takes it over and answers True if nothing newer is published.

        `compacted(watcher, compact_revision)`: its next revision is gone, it has to end.
        """
        self._history = history
        self._encoder = encoder
        self._response_bytes_max = max_response_bytes
        self._random = random
        self._caught_up = caught_up
        self._compacted = compacted
        self._waiting: dict[Watcher, None] = {}
        self._round: _Steps | None = None
        self._rounds = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def admit(self, watcher: Watcher) -> None:
        """Takes in a watcher whose `next_revision` is exact."""
        watcher.standing = Standing.BEHIND
        self._waiting[watcher] = None

    def discard(self, watcher: Watcher) -> None:
        """Lets a watcher go, possibly in the middle of its round."""
        del self._waiting[watcher]

    def abandon(self) -> None:
        """Drops the round under way and its view."""
        if self._round is not None:
            self._round.close()
            self._round = None

    def pump(self) -> bool:
        """Works for one slice; True if there is more to do right now."""
        if self._round is None:
            if not self._waiting:
                return False
            self._rounds += 1
            self._round = self._replay()
        try:
            next(self._round)
        except StopIteration:
            self._round = None
        except BaseException:
            self._round = None
            raise
        return self._round is not None or bool(self._waiting)

    def _replay(self) -> _Steps:
        """One round."""
        past = Past(self._history)
        try:
            view = past.view()
            batch = self._next_batch(view)
            if not batch:
                return
            lead = self._lead(batch)
            index = WatcherIndex(self._random)
            for watcher in batch:
                if watcher.next_revision >= lead.next_revision:
                    index.add(watcher)
            found: dict[Interest, list[SharedEvent]] = {}
            reached = yield from self._collect(view, lead.next_revision, index, found)
            for interest in list(index.interests()):
                yield from self._deliver(interest, found.get(interest, ()), reached, past)
        finally:
            past.close()

    def _next_batch(self, view: View) -> list[Watcher]:
        """The longest waiting watchers, less those that need no history or cannot have it."""
        batch = []
        for watcher in list(islice(self._waiting, limits.ROUND_WATCHERS_MAX)):
            if watcher.next_revision < view.compact_revision:
                self._compacted(watcher, view.compact_revision)
            elif watcher.next_revision > view.revision:
                self._settle(watcher)
            else:
                batch.append(watcher)
        return batch

    def _lead(self, batch: list[Watcher]) -> Watcher:
        """Whose next revision the round starts at; those further behind sit it out.

        In turns the longest waiting (so that one who misses little need not wait for another's
        long history) and the furthest behind (so that it joins the others, and what they all
        miss is read once).
        """
        if self._rounds % 2:
            return batch[0]
        return min(batch, key=lambda watcher: watcher.next_revision)

    def _collect(
        self,
        view: View,
        start: int,
        index: WatcherIndex,
        found: dict[Interest, list[SharedEvent]],
    ) -> Generator[None, None, int]:
        """Reads changes from `start` on into `found`; returns the last revision it read whole."""
        revision = start - 1
        revisions = matched = size_bytes = steps = 0
        new_match = True
        for changes, change in enumerate(view.changes(start, view.revision + 1)):
            if change.revision != revision:
                if (
                    revisions >= limits.ROUND_REVISIONS_MAX
                    or matched >= limits.ROUND_EVENTS_MAX
                    or changes >= limits.ROUND_CHANGES_MAX
                    or size_bytes >= self._response_bytes_max
                ):
                    return revision
                revision = change.revision
                new_match = True
            interests = index.interests_in(change.key)
            if interests:
                event = SharedEvent(change)
                for interest in interests:
                    found.setdefault(interest, []).append(event)
                matched += 1
                size_bytes += len(change.kv)
                revisions += new_match
                new_match = False
            steps += 1 + len(interests)
            if steps >= limits.SLICE_STEPS:
                steps = 0
                yield
        return view.revision

    def _deliver(
        self, interest: Interest, events: Sequence[SharedEvent], reached: int, past: Past
    ) -> _Steps:
        """Queues `events`, all those of one range up to `reached`, to its watchers.

        Whoever the round did not come to keeps its place in the line.
        """
        made: dict[object, Response | None] = {}
        revision = past.view().revision
        for steps, watcher in enumerate(list(interest.watchers), start=1):
            if watcher.standing is Standing.BEHIND and watcher.next_revision <= reached:
                first = bisect_left(events, watcher.next_revision, key=_revision)
                form = (first, watcher.variant)
                if form not in made:
                    kept = SharedEvent.kept(events[first:], watcher.drops)
                    fields = yield from _encode(kept, past if watcher.prev_kv else None)
                    made[form] = (
                        self._encoder.response(revision, watcher, fields) if fields else None
                    )
                self._queue(watcher, made[form], reached)
            if steps % limits.SLICE_STEPS == 0:
                yield

    def _queue(self, watcher: Watcher, response: Response | None, reached: int) -> None:
        """Hands one watcher what it missed up to `reached`, if its stream has room for it."""
        if watcher.standing is not Standing.BEHIND:
            return  # It was cancelled while its events were being encoded.
        if response is not None:
            if watcher.stream.full:
                del self._waiting[watcher]
                watcher.stream.block(watcher)
                return
            watcher.stream.push(response)
            watcher.quiet = False
        watcher.next_revision = reached + 1
        self._settle(watcher)

    def _settle(self, watcher: Watcher) -> None:
        """After its turn: among the live ones, or at the end of the line."""
        del self._waiting[watcher]
        if not self._caught_up(watcher):
            self._waiting[watcher] = None


def _revision(event: SharedEvent) -> int:
    return event.change.revision


def _encode(events: Iterable[SharedEvent], past: Past | None) -> Generator[None, None, list[bytes]]:
    """The encoded fields of `events`, with previous values out of `past`."""
    fields = []
    for steps, event in enumerate(events, start=1):
        fields.append(event.plain() if past is None else event.full(past))
        if steps % limits.SLICE_STEPS == 0:
            yield
    return fields
