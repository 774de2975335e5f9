"""Replays history to watchers that are behind, in rounds cut into short slices.

A round pins a view of the store, takes a batch of watchers, reads changes from the chosen one's
next revision on, matches them against the batch, and queues at most one response per watcher.
It ends after a bounded number of revisions, events and changes, always between two revisions,
so a revision's events stay together. Of a revision with very many (a delete of a million keys)
all but the first are kept as bytes at once, a few hundred to a piece. A watcher that has reached
the last published revision becomes live again; the others wait for another round.

Nothing of a watcher is altered before its response is queued. A round can therefore be dropped
at any point (a snapshot replaced the store), and the next one starts from the truth.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

from kvstore.watch import encoding, limits
from kvstore.watch.encoding import Response
from kvstore.watch.events import Past, SharedEvent
from kvstore.watch.history import Change, History, View
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

    def response(
        self, revision: int, watcher: Watcher, events: Sequence[bytes], count: int | None = None
    ) -> Response:
        """The response of `watcher` around encoded events; several pieces if it may be split.

        `count`: how many events there are, if an element may be several.
        """
        split_bytes = self._split_bytes if watcher.fragment else None
        return encoding.event_responses(
            self._header(revision), watcher.id_field, events, split_bytes, count
        )


class _Packed(NamedTuple):
    """Neighbouring events of one kind, encoded; a form that no watcher wants is left empty."""

    kind: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody misses
    plain: bytes
    full: bytes


class _Found:
    """What a round found for one range: events, and then pieces of its last revision."""

    __slots__ = ("_full", "_kind", "_plain", "_size", "events", "packed", "packed_revision")

    def __init__(self) -> None:
        self.events: list[SharedEvent] = []
        self.packed: list[_Packed] = []
        self.packed_revision = 0
        self._plain: list[bytes] = []
        self._full: list[bytes] = []
        self._kind = 0
        self._size = 0

    def pack(self, change: Change, past: Past, watchers: Iterable[Watcher]) -> None:
        """Adds an event in the forms that `watchers` want."""
        if change.kind != self._kind:
            self.flush()
            self._kind = change.kind
        event = SharedEvent(change)
        wanted = {watcher.prev_kv for watcher in watchers}
        if False in wanted:
            self._plain.append(event.plain())
        if True in wanted:
            self._full.append(event.full(past))
        self._size += len(change.kv)
        self.packed_revision = change.revision
        count = max(len(self._plain), len(self._full))
        if count >= limits.PACKED_EVENTS or self._size >= limits.PACKED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Makes a piece of the events that were added last."""
        count = max(len(self._plain), len(self._full))
        if count:
            plain, full = b"".join(self._plain), b"".join(self._full)
            self.packed.append(_Packed(self._kind, count, plain, full))
        self._plain.clear()
        self._full.clear()
        self._size = 0

    def packed_for(self, watcher: Watcher) -> tuple[list[bytes], int]:
        """The pieces that a watcher is to get, and how many events they hold."""
        if watcher.next_revision > self.packed_revision:
            return [], 0
        kept = [piece for piece in self.packed if not watcher.drops >> piece.kind & 1]
        fields = [piece.full if watcher.prev_kv else piece.plain for piece in kept]
        return fields, sum(piece.count for piece in kept)


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
            found: dict[Interest, _Found] = {}
            reached = yield from self._collect(past, lead.next_revision, index, found)
            for interest in list(index.interests()):
                mine = found.pop(interest, None) or _Found()
                yield from self._deliver(interest, mine, reached, past)
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
        past: Past,
        start: int,
        index: WatcherIndex,
        found: dict[Interest, _Found],
    ) -> Generator[None, None, int]:
        """Reads changes from `start` on into `found`; returns the last revision it read whole."""
        view = past.view()
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
                if matched < limits.ROUND_EVENTS_MAX:
                    event = SharedEvent(change)
                    for interest in interests:
                        found.setdefault(interest, _Found()).events.append(event)
                else:
                    for interest in interests:
                        found.setdefault(interest, _Found()).pack(change, past, interest.watchers)
                matched += 1
                size_bytes += len(change.kv)
                revisions += new_match
                new_match = False
            steps += 1 + len(interests)
            if steps >= limits.SLICE_STEPS:
                steps = 0
                yield
        return view.revision

    def _deliver(self, interest: Interest, found: _Found, reached: int, past: Past) -> _Steps:
        """Queues what was found of one range, all events up to `reached`, to its watchers.

        Whoever the round did not come to keeps its place in the line.
        """
        made: dict[object, Response | None] = {}
        revision = past.view().revision
        events = found.events
        found.flush()
        for steps, watcher in enumerate(list(interest.watchers), start=1):
            if watcher.standing is Standing.BEHIND and watcher.next_revision <= reached:
                first = bisect_left(events, watcher.next_revision, key=_revision)
                in_packed = watcher.next_revision <= found.packed_revision
                form = (first, in_packed, watcher.variant)
                if form not in made:
                    kept = SharedEvent.kept(events[first:], watcher.drops)
                    fields = yield from _encode(kept, past if watcher.prev_kv else None)
                    packed, count = found.packed_for(watcher)
                    count += len(fields)
                    fields += packed
                    made[form] = (
                        self._encoder.response(revision, watcher, fields, count) if fields else None
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
