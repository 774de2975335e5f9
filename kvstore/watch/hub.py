"""From applied changes to every watcher: the meeting point of the state machine and clients.

The rules it keeps, per watcher (etcd's names for them):

* Ordered, unique, reliable: every event of its range and filters from its start on, once, by
  ascending revision; also across slowness and an installed snapshot.
* Atomic: the events of one revision are in one response (or in marked fragments of it).
* Bookmarkable: a progress mark r is queued behind every event <= r, and none <= r follows.
* Nothing below a start revision, neither events nor marks.
* A watcher whose next revision is compacted away ends, and is told the compact revision.

A watcher is either live (fed by `publish`) or behind (fed from history by `pump`). What joins
the two is `current`: a replay that has reached it may turn live, and because a commit is seen by
replays a moment before it is published, `next_revision` holds back what was delivered already.

Sans I/O: no clock, no tasks. The caller calls `publish` after each commit, `pump` while it
answers True (and whenever `on_behind` says that there is work again), `progress_tick` on its
interval. Watch authorisation is the caller's, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kvstore.watch import encoding, limits
from kvstore.watch.catchup import CatchUp, Encoder
from kvstore.watch.encoding import Response
from kvstore.watch.events import Past, SharedEvent
from kvstore.watch.history import Change, History
from kvstore.watch.index import Interest, WatcherIndex
from kvstore.watch.stream import WatchStream
from kvstore.watch.watcher import Standing, Watcher

__all__ = ("WatchHub",)


class WatchHub:
    """All watch streams of one member."""

    def __init__(
        self,
        history: History,
        header: Callable[[int], bytes],
        *,
        max_response_bytes: int,
        random: Callable[[int], int],
        on_behind: Callable[[], None] = lambda: None,
    ) -> None:
        """`header(revision)`: the encoded header field of a response.

        `max_response_bytes`: where responses of `fragment` watchers are split (etcd: the
        request limit + 512 KiB). `random(n)` gives 0 … n-1. `on_behind` is called when `pump`
        has work after it had none; like the streams' `wake` it only schedules and never raises.
        """
        assert max_response_bytes > 0, max_response_bytes
        self.header = header
        self.to_wake: list[WatchStream] = []
        self.queued_bytes = 0
        """Responses that wait in all streams; one that several share counts in each."""
        self.events_total = 0
        """Events queued to watchers since the start (etcd_debugging_mvcc_events_total)."""
        self._history = history
        self._revision = history.revision
        self._encoder = Encoder(header, max_response_bytes)
        self._on_behind = on_behind
        self._live = WatcherIndex(random)
        self._catchup = CatchUp(
            history,
            self._encoder,
            max_response_bytes=max_response_bytes,
            random=random,
            caught_up=self._go_live,
            compacted=self._end_compacted,
        )
        self._streams: dict[WatchStream, None] = {}
        self._notified: dict[Watcher, None] = {}
        self._watchers = 0

    # What the node does.

    @property
    def revision(self) -> int:
        """The last published revision: live watchers have everything up to here."""
        return self._revision

    @property
    def current(self) -> int:
        """The store's revision, which a commit raises a moment before it is published."""
        return max(self._revision, self._history.revision)

    def open(self, wake: Callable[[], None]) -> WatchStream:
        """A new stream; `wake` is called when output comes up after there was none."""
        stream = WatchStream(self, wake)
        self._streams[stream] = None
        return stream

    def publish(self, changes: Sequence[Change]) -> None:
        """Delivers what was just committed: whole revisions, ascending."""
        if changes and not self._live.interests():
            self._revision = max(self._revision, changes[-1].revision)
            return
        past = Past(self._history)
        try:
            start = 0
            while start < len(changes):
                revision = changes[start].revision
                stop = start + 1
                while stop < len(changes) and changes[stop].revision == revision:
                    stop += 1
                if stop > limits.LIVE_CHANGES_MAX:
                    self._fall_behind(revision, changes[-1].revision)
                    break
                self._publish_revision(revision, changes[start:stop], past)
                start = stop
        finally:
            past.close()
        self.ring()

    def publish_from_history(self) -> None:
        """`publish` of what was just committed when it is too much to be listed.

        Live watchers fall behind and read it from the history, in bounded rounds.
        """
        self._fall_behind(self._revision + 1, self.current)

    def pump(self) -> bool:
        """Replays history to watchers that are behind, for about 5 ms.

        True when more is waiting right now. Errors of the store come through; whoever was
        being served is still behind then, and loses nothing.
        """
        try:
            return self._catchup.pump()
        finally:
            self.ring()

    def progress_tick(self) -> None:
        """Sends a mark to each watcher that asked for them, is up to date and had no event.

        One that finds its stream full goes without; its next event says as much.
        """
        header = self.header(self._revision)
        for watcher in self._notified:
            if watcher.quiet and watcher.settled_at(self._revision) and not watcher.stream.full:
                watcher.stream.push_answer(encoding.progress(header, watcher.watch_id))
            watcher.quiet = True
        self.ring()

    def restored(self) -> None:
        """The store's content was replaced by a newer snapshot: all go on from where they were.

        What lies between comes from the snapshot's history; whoever it no longer covers ends
        as compacted.
        """
        self._catchup.abandon()
        self._fall_behind(self._revision + 1, self.current)

    # Readings for metrics.

    @property
    def streams(self) -> int:
        """Open streams."""
        return len(self._streams)

    @property
    def watchers(self) -> int:
        """Open watchers of all streams."""
        return self._watchers

    def watchers_of(self, key: bytes) -> int:
        """Watchers that hear of changes of a key as they happen."""
        return sum(len(interest.watchers) for interest in self._live.interests_in(key))

    @property
    def slow_watchers(self) -> int:
        """Watchers that are not live."""
        return self._watchers - sum(len(each.watchers) for each in self._live.interests())

    @property
    def pending(self) -> int:
        """Responses that wait to be taken, over all streams."""
        return sum(stream.pending for stream in self._streams)

    # What streams and the catch-up do.

    def admit(self, watcher: Watcher, start_revision: int) -> None:
        """Starts a new watcher: 0 is from now on, anything above `current` waits for it."""
        self._watchers += 1
        if watcher.progress_notify:
            self._notified[watcher] = None
        current = self.current
        watcher.floor = start_revision or current
        watcher.next_revision = start_revision or current + 1
        if watcher.next_revision > current:
            watcher.standing = Standing.LIVE
            self._live.add(watcher)
        else:
            self._put_behind((watcher,))

    def detach(self, watcher: Watcher) -> None:
        """Takes a watcher that ends out of whatever feeds it."""
        if watcher.standing is Standing.LIVE:
            self._live.remove(watcher)
        elif watcher.standing is Standing.BEHIND:
            self._catchup.discard(watcher)

    def ended(self, watcher: Watcher) -> None:
        """A watcher was forgotten by its stream."""
        self._watchers -= 1
        self._notified.pop(watcher, None)

    def closed(self, stream: WatchStream) -> None:
        """A stream was closed by its transport."""
        del self._streams[stream]

    def unblocked(self, watchers: Iterable[Watcher]) -> None:
        """The stream of these has room again."""
        self._put_behind(watchers)

    def ring(self) -> None:
        """Wakes the streams that got output; last in every entry point, when all is in order."""
        while self.to_wake:
            streams, self.to_wake = self.to_wake, []
            for stream in streams:
                stream.wake()

    def _publish_revision(self, revision: int, changes: Sequence[Change], past: Past) -> None:
        if revision <= self._revision:
            return  # A restored snapshot held it already.
        self._revision = revision
        hits: dict[Interest, list[SharedEvent]] = {}
        for change in changes:
            interests = self._live.interests_in(change.key)
            if interests:
                event = SharedEvent(change)
                for interest in interests:
                    hits.setdefault(interest, []).append(event)
        for interest, events in hits.items():
            self._deliver(interest, revision, events, past)

    def _deliver(
        self, interest: Interest, revision: int, events: list[SharedEvent], past: Past
    ) -> None:
        """Queues one revision's events to everyone who watches this range."""
        made: dict[object, Response | None] = {}
        for watcher in list(interest.watchers):
            if revision < watcher.next_revision:
                continue
            variant = watcher.variant
            if variant not in made:
                made[variant] = self._response(watcher, revision, events, past)
            response = made[variant]
            if response is None:
                continue
            stream = watcher.stream
            if stream.full:
                self._live.remove(watcher)
                watcher.next_revision = revision
                stream.block(watcher)
            else:
                stream.push(response)
                watcher.quiet = False

    def _response(
        self, watcher: Watcher, revision: int, events: list[SharedEvent], past: Past
    ) -> Response | None:
        """What watchers like this one get of `events`; None if its filters leave nothing."""
        if watcher.drops:
            events = SharedEvent.kept(events, watcher.drops)
            if not events:
                return None
        if watcher.prev_kv:
            fields = [event.full(past) for event in events]
        else:
            fields = [event.plain() for event in events]
        return self._encoder.response(revision, watcher, fields)

    def _fall_behind(self, revision: int, published: int) -> None:
        """Everyone live is to get `revision` and what follows, up to `published`, by replay."""
        live = [each for interest in self._live.interests() for each in interest.watchers]
        for watcher in live:
            self._live.remove(watcher)
            watcher.next_revision = max(watcher.next_revision, revision)
        self._revision = max(self._revision, published)
        self._put_behind(live)

    def _put_behind(self, watchers: Iterable[Watcher]) -> None:
        idle = not len(self._catchup)
        for watcher in watchers:
            self._catchup.admit(watcher)
        if idle and len(self._catchup):
            self._on_behind()

    def _go_live(self, watcher: Watcher) -> bool:
        # What is committed but not published counts: a round that broke off told `current` in
        # its header, and a live response of an older revision would seem to go back.
        if watcher.next_revision <= self.current:
            return False
        watcher.standing = Standing.LIVE
        self._live.add(watcher)
        return True

    def _end_compacted(self, watcher: Watcher, compact_revision: int) -> None:
        watcher.stream.push_answer(
            encoding.compacted(self.header(0), watcher.watch_id, compact_revision)
        )
        watcher.stream.forget(watcher)
