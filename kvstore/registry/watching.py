"""Who watches services: the whole state first, then what changes the answer, and nothing else.

    catalog ─deltas─► Feed (one for each scope and selection) ─batches─► its subscribers

Rules:
1. Whoever watches the same in the same way shares a feed, and with it each batch and its encoding:
   a change costs one selection and one encoding, however many are told.
2. What is committed in one turn of the loop is one batch. A feed makes one only when the answer
   that its selection gives has changed; a feed of one service hears of that service alone.
3. A feed keeps its newest batches once; a subscriber is a place in them. One that is so slow that
   its place is gone gets the whole state again. So nothing grows with slowness.
4. A subscriber that comes back with a revision goes on after it, if the changes since then are
   still remembered and its selection judges each instance by itself; else it begins anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from kvstore.errors import STOPPED
from kvstore.registry import limits
from kvstore.registry.catalog import Catalog, Delta, Entry, GuardNote, Subscription
from kvstore.registry.model import Reason
from kvstore.registry.names import ServiceName
from kvstore.registry.reading import chosen_entries, read_entries
from kvstore.registry.selection import Selection

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = (
    "ALL_NAMESPACES",
    "Batch",
    "Event",
    "Progress",
    "Scope",
    "Subscriber",
    "Watching",
    "plain_events",
)

ALL_NAMESPACES: Final = "*"

Scope = ServiceName | str
"""One service; all of a namespace; all of ALL_NAMESPACES."""

_ENTERED: Final = Reason("updated", "selected, because of a change of others")
_LEFT: Final = Reason("updated", "no longer selected, because of a change of others")


class Event(NamedTuple):
    """One change of an answer."""

    event: str
    reason: Reason
    revision: int
    entry: Entry
    """As it is now; as it was last, if it is gone."""
    left: bool
    """It is no longer in the answer."""


class Batch:
    """Changes that are told together, or (`is_snapshot`) a whole state; shared, never changed."""

    __slots__ = ("encoded", "entries", "events", "first", "guard", "is_snapshot", "revision")

    def __init__(
        self,
        first: int,
        revision: int,
        guard: GuardNote | None,
        events: Sequence[Event] = (),
        entries: Sequence[Entry] | None = None,
    ) -> None:
        self.first = first
        """The revision of the first change in it; 0: of everything."""
        self.revision = revision
        """Everything up to here is told with it."""
        self.guard = guard
        self.events = events
        self.is_snapshot = entries is not None
        self.entries = entries or ()
        self.encoded: bytes | None = None
        """For the front door that puts it into its words: it does so once for all."""


class Progress(NamedTuple):
    """Nothing has changed."""

    revision: int
    guard: GuardNote | None


class Subscriber:
    """One stream; `next` until it is closed."""

    def __init__(self, feed: _Feed, id_: str) -> None:
        self.feed = feed
        self.id = id_
        """Empty: it does not acknowledge."""
        self.acked = 0
        self.place = 0
        """The number of the batch of its feed that comes next."""
        self.anew = True
        """It is to get the whole state."""
        self.resumed: Batch | None = None
        self.progress_due = False
        self.told_at = 0.0
        self.closed = False
        self._owed: deque[tuple[int, int]] = deque()
        """(first, last revision) of what was told and is not acknowledged, oldest first."""
        self._woken = asyncio.Event()

    async def next(self) -> Batch | Progress:
        """What comes next. Raises STOPPED when the member ends."""
        feed = self.feed
        while not self.closed:
            self._woken.clear()
            told = self._take()
            if told is None:
                await self._woken.wait()
                continue
            if isinstance(told, Batch) and told.is_snapshot:
                told = await feed.chosen(told)
            self.told_at = feed.watching.now()
            return told
        raise STOPPED

    def _take(self) -> Batch | Progress | None:
        feed = self.feed
        if self.resumed is not None:
            batch, self.resumed = self.resumed, None
            return batch
        if self.anew or self.place < feed.oldest:
            self.anew = False
            feed.flush()
            snapshot = feed.snapshot()
            self.place = feed.end
            self.owe(snapshot)
            return snapshot
        if self.place < feed.end:
            batch = feed.batch(self.place)
            self.place += 1
            return batch
        if self.progress_due:
            self.progress_due = False
            feed.flush()
            # What is committed but not told yet is not progress.
            return feed.progress() if self.place == feed.end else self._take()
        return None

    def wake(self) -> None:
        """There is something to take."""
        self._woken.set()

    def close(self) -> None:
        """It has left. Idempotent."""
        if not self.closed:
            self.closed = True
            self.feed.leave(self)
            self._woken.set()

    # ---- acknowledging ---------------------------------------------------------------------

    def owe(self, batch: Batch) -> None:
        """It has to acknowledge this."""
        if not self.id:
            return
        first = batch.first
        if len(self._owed) >= _OWED_MAX:
            first = min(first, self._owed.pop()[0])
        self._owed.append((first, batch.revision))

    def ack(self, revision: int) -> None:
        """It has applied everything up to a revision."""
        self.acked = max(self.acked, revision)
        while self._owed and self._owed[0][1] <= self.acked:
            self._owed.popleft()

    def has_acked(self, revision: int) -> bool:
        """Whether it has acknowledged whatever concerns it up to a revision."""
        if self.acked >= revision:
            return True
        if self.anew:
            return False
        return all(first > revision for first, _ in self._owed)


_OWED_MAX: Final = 256
"""Batches of which it is remembered one by one that a subscriber has not acknowledged them."""


class _Feed:
    """One scope and one selection."""

    def __init__(self, watching: Watching, scope: Scope, selection: Selection) -> None:
        self.watching = watching
        self.scope = scope
        self.selection = selection
        self.subscribers: dict[Subscriber, None] = {}
        self.flushes = 0
        """How often it had to look at changes."""
        self._batches: deque[Batch] = deque()
        self._events = 0
        self.oldest = 0
        """The number of the first batch that it still has."""
        self._pending: list[Delta] = []
        self._anew = False
        self._scheduled = False
        self._waking: Iterator[Subscriber] | None = None
        self._wake_again = False
        self._snapshot: Batch | None = None
        self._answers: dict[ServiceName, dict[str, Entry]] = {}
        """Of a selection that is not plain: what it gives of each service."""
        self._read_answers()
        service = scope if isinstance(scope, ServiceName) else None
        self._subscription: Subscription = watching.catalog.subscribe(self._told, service)

    @property
    def end(self) -> int:
        """The number of the batch that will come next."""
        return self.oldest + len(self._batches)

    def batch(self, number: int) -> Batch:
        """One that it still has."""
        return self._batches[number - self.oldest]

    def close(self) -> None:
        """Nobody watches this any more."""
        self._subscription.close()
        self._pending.clear()

    def leave(self, subscriber: Subscriber) -> None:
        """A subscriber is gone."""
        self.subscribers.pop(subscriber, None)
        self.watching.left(self, subscriber)

    # ---- from deltas to batches ------------------------------------------------------------

    def _told(self, deltas: Sequence[Delta] | None) -> None:
        """The catalog has changed; the member is in the middle of its work."""
        if deltas is None:
            self._anew = True
        else:
            self._pending += (delta for delta in deltas if self.covers(delta.name.of))
        if (self._anew or self._pending) and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._scheduled_flush)

    def covers(self, service: ServiceName) -> bool:
        """Whether changes of a service are told here."""
        scope = self.scope
        if isinstance(scope, ServiceName):
            return service == scope
        return scope in (ALL_NAMESPACES, service.namespace)

    def _scheduled_flush(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Makes a batch of what has changed, if the answer has."""
        if self._anew:
            self._anew = False
            self._pending.clear()
            self._read_answers()
            for subscriber in self.subscribers:
                subscriber.anew = True
                subscriber.resumed = None
            self._wake()
            return
        if not self._pending:
            return
        deltas, self._pending = self._pending, []
        self.flushes += 1
        events = plain_events(deltas, self.selection) if self._plain else self._whole(deltas)
        if events:
            self._publish(Batch(events[0].revision, deltas[-1].revision, self.guard(), events))

    @property
    def _plain(self) -> bool:
        return self.selection.is_plain

    def _publish(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._events += len(batch.events)
        while self._events > limits.SUBSCRIBER_EVENTS_MAX and len(self._batches) > 1:
            self._drop_oldest()
        for subscriber in self.subscribers:
            subscriber.owe(batch)
        self._wake()

    def _drop_oldest(self) -> None:
        self._events -= len(self._batches.popleft().events)
        self.oldest += 1

    def tidy(self) -> None:
        """Drops the batches that everybody has, and the state that nobody asks for now."""
        self._snapshot = None
        slowest = min((each.place for each in self.subscribers), default=self.end)
        while self.oldest < slowest:
            self._drop_oldest()

    def _wake(self) -> None:
        """Wakes everybody, some in each turn of the loop."""
        if self._waking is not None:
            self._wake_again = True
            return
        self._waking = iter(list(self.subscribers))
        self._wake_some()

    def _wake_some(self) -> None:
        assert self._waking is not None
        for _ in range(limits.WAKE_SLICE_SUBSCRIBERS):
            subscriber = next(self._waking, None)
            if subscriber is None:
                self._waking = None
                if self._wake_again:
                    self._wake_again = False
                    self._wake()
                return
            subscriber.wake()
        asyncio.get_running_loop().call_soon(self._wake_some)

    # ---- selections for which the whole service decides ------------------------------------

    def _read_answers(self) -> None:
        self._answers.clear()
        if self._plain:
            return
        for name, service in self.watching.catalog.services.items():
            if self.covers(name):
                self._answers[name] = self._choose(service.entries.values())

    def _choose(self, entries: Iterable[Entry]) -> dict[str, Entry]:
        chosen, _ = chosen_entries(entries, self.selection)
        return {entry.name.id: entry for entry in chosen}

    def _whole(self, deltas: Sequence[Delta]) -> list[Event]:
        """Compares the answers of the services that have changed with what they were."""
        touched: dict[ServiceName, list[Delta]] = {}
        for delta in deltas:
            touched.setdefault(delta.name.of, []).append(delta)
        events: list[Event] = []
        for name, some in touched.items():
            before = self._answers.pop(name, {})
            service = self.watching.catalog.service(name)
            after = self._choose(service.entries.values()) if service is not None else {}
            if after:
                self._answers[name] = after
            changed = {delta.name.id for delta in some}
            for delta in some:
                id_ = delta.name.id
                if id_ in before or id_ in after:
                    events.append(_event(delta, left=id_ not in after))
            revision = some[-1].revision
            for id_, entry in after.items():
                if id_ not in before and id_ not in changed:
                    events.append(Event("updated", _ENTERED, revision, entry, left=False))
            for id_, entry in before.items():
                if id_ not in after and id_ not in changed:
                    events.append(Event("updated", _LEFT, revision, entry, left=True))
        events.sort(key=lambda event: event.revision)
        return events

    # ---- states ----------------------------------------------------------------------------

    def snapshot(self) -> Batch:
        """The whole state as of now, its entries not read and not selected yet."""
        catalog = self.watching.catalog
        entries: list[Entry] = []
        if isinstance(self.scope, ServiceName):
            service = catalog.service(self.scope)
            entries = list(service.entries.values()) if service is not None else []
        else:
            for name, service in catalog.services.items():
                if self.covers(name):
                    entries += service.entries.values()
        return Batch(0, catalog.revision, self.guard(), (), entries)

    async def chosen(self, snapshot: Batch) -> Batch:
        """A snapshot with what the selection makes of it; shared by all who begin together."""
        await read_entries(snapshot.entries)
        shared = self._snapshot
        if shared is not None and shared.revision == snapshot.revision:
            return shared
        by_service: dict[ServiceName, list[Entry]] = {}
        for entry in snapshot.entries:
            by_service.setdefault(entry.name.of, []).append(entry)
        chosen: list[Entry] = []
        for name in sorted(by_service):
            chosen += chosen_entries(by_service[name], self.selection)[0]
        self._snapshot = Batch(0, snapshot.revision, snapshot.guard, (), chosen)
        return self._snapshot

    def progress(self) -> Progress:
        """How far everybody is that has taken every batch."""
        return Progress(self.watching.catalog.revision, self.guard())

    def guard(self) -> GuardNote | None:
        """The guard that holds instances of the one service."""
        if not isinstance(self.scope, ServiceName):
            return None
        return self.watching.catalog.guards.get(self.scope)


def plain_events(deltas: Iterable[Delta], selection: Selection) -> list[Event]:
    """What changes mean for a plain selection: it is a question to each instance alone."""
    events: list[Event] = []
    for delta in deltas:
        was = _takes(selection, delta.before)
        now = _takes(selection, delta.after)
        if was or now:
            events.append(_event(delta, left=not now))
    return events


def _takes(selection: Selection, entry: Entry | None) -> bool:
    if entry is None or entry.instance is None:
        return False
    return selection.takes(entry.instance)


def _event(delta: Delta, *, left: bool) -> Event:
    entry = delta.after
    if entry is None or entry.instance is None:
        # Gone, or overwritten by something that is no instance.
        entry = delta.before
    assert entry is not None
    return Event(delta.event, delta.reason, delta.revision, entry, left)


class Watching:
    """All subscribers of one member."""

    def __init__(self, node: Node, catalog: Catalog) -> None:
        self._node = node
        self.catalog = catalog
        self._feeds: dict[Scope, dict[Selection, _Feed]] = {}
        self._recent: deque[Delta] = deque()
        self._recent_after = -1
        """All changes above this revision are in `_recent`; below 0: nothing is known yet."""
        self._newer = asyncio.Event()
        self._had_leader = True
        self._timer: asyncio.TimerHandle | None = None
        self.on_left: Callable[[Subscriber], None] = lambda _subscriber: None
        """Told of subscribers that leave."""
        catalog.subscribe(self._told)

    def now(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    def _told(self, deltas: Sequence[Delta] | None) -> None:
        if deltas is None:
            self._recent.clear()
            self._recent_after = self.catalog.revision
        else:
            self._recent.extend(deltas)
            while len(self._recent) > limits.RECENT_DELTAS:
                self._recent_after = self._recent.popleft().revision
        newer, self._newer = self._newer, asyncio.Event()
        newer.set()

    async def reached(self, revision: int) -> None:
        """Returns when the catalog is as of this revision of a change of ours, or newer."""
        while self.catalog.revision < revision:
            await self._newer.wait()

    async def subscribe(
        self, scope: Scope, selection: Selection, *, id_: str = "", after_revision: int = 0
    ) -> Subscriber:
        """A new subscriber; close it."""
        await self.catalog.wait_ready()
        if after_revision > self.catalog.revision:
            # It was told more elsewhere than is known here.
            try:
                async with asyncio.timeout(limits.RESUME_WAIT_S):
                    await self.reached(after_revision)
            except TimeoutError:
                after_revision = 0
        feed = self._feeds.setdefault(scope, {}).get(selection)
        if feed is None:
            feed = self._feeds[scope][selection] = _Feed(self, scope, selection)
        subscriber = Subscriber(feed, id_)
        subscriber.told_at = self.now()
        feed.flush()
        feed.subscribers[subscriber] = None
        subscriber.place = feed.end
        if after_revision:
            self._resume(subscriber, after_revision)
        if self._timer is None:
            self._had_leader = bool(self._node.leader_id)
            self._timer = asyncio.get_running_loop().call_later(limits.WATCH_TICK_S, self._tick)
        return subscriber

    def _resume(self, subscriber: Subscriber, after: int) -> None:
        feed = subscriber.feed
        if not (0 <= self._recent_after <= after and feed.selection.is_plain):
            return
        subscriber.anew = False
        subscriber.acked = after
        missed: deque[Delta] = deque()
        for delta in reversed(self._recent):
            if delta.revision <= after:
                break
            if feed.covers(delta.name.of):
                missed.appendleft(delta)
        events = plain_events(missed, feed.selection)
        if events:
            newest = missed[-1].revision
            subscriber.resumed = Batch(events[0].revision, newest, feed.guard(), events)
            subscriber.owe(subscriber.resumed)
        else:
            subscriber.progress_due = True

    def left(self, feed: _Feed, subscriber: Subscriber) -> None:
        """A feed has lost a subscriber."""
        self.on_left(subscriber)
        if not feed.subscribers:
            feed.close()
            of_scope = self._feeds.get(feed.scope, {})
            if of_scope.get(feed.selection) is feed:
                del of_scope[feed.selection]
                if not of_scope:
                    del self._feeds[feed.scope]

    def _tick(self) -> None:
        """Says to those who heard nothing for a while, or lost the leader, how far they are."""
        self._timer = None
        if not self._feeds:
            return
        has_leader = bool(self._node.leader_id)
        turned = has_leader is not self._had_leader
        self._had_leader = has_leader
        quiet_since = self.now() - limits.WATCH_PROGRESS_S
        for feed in self.feeds():
            feed.tidy()
            for subscriber in feed.subscribers:
                if turned or subscriber.told_at < quiet_since:
                    subscriber.progress_due = True
                    subscriber.wake()
        self._timer = asyncio.get_running_loop().call_later(limits.WATCH_TICK_S, self._tick)

    def feeds(self) -> list[_Feed]:
        """All of them."""
        return [feed for of_scope in self._feeds.values() for feed in of_scope.values()]

    def feeds_of(self, service: ServiceName) -> list[_Feed]:
        """Those in which a change of a service can be told; they have told all by then."""
        scopes: tuple[Scope, ...] = (service, service.namespace, ALL_NAMESPACES)
        found = [feed for scope in scopes for feed in self._feeds.get(scope, {}).values()]
        for feed in found:
            feed.flush()
        return found

    def subscribers_in(self, scope: Scope, id_: str) -> list[Subscriber]:
        """The streams that a subscriber has for exactly this scope."""
        return [
            subscriber
            for feed in self._feeds.get(scope, {}).values()
            for subscriber in feed.subscribers
            if subscriber.id == id_
        ]

    def close(self) -> None:
        """Ends all streams."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for feed in self.feeds():
            for subscriber in list(feed.subscribers):
                subscriber.close()
