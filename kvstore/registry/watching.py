"""Who watches services at this member: subscribing, going on after a revision, progress.

What they are told is made by `feeds`. A subscriber that comes back with a revision goes on after
it, if the changes since then are still remembered here and its selection judges each instance by
itself; else it begins anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kvstore.errors import EtcdError
from kvstore.registry import limits
from kvstore.registry.catalog import Catalog, Delta
from kvstore.registry.errors import behind
from kvstore.registry.feeds import ALL_NAMESPACES, Batch, Feed, Scope, Subscriber, plain_events
from kvstore.registry.names import ServiceName
from kvstore.registry.selection import Selection

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("Watching",)


class Watching:
    """All subscribers of one member."""

    def __init__(self, node: Node, catalog: Catalog) -> None:
        self._node = node
        self.catalog = catalog
        self._feeds: dict[Scope, dict[Selection, Feed]] = {}
        self._recent: deque[Delta] = deque()
        self._recent_after = -1
        """All changes above this revision are in `_recent`; below 0: nothing is known yet."""
        self._newer = asyncio.Event()
        self._had_leader = True
        self._timer: asyncio.TimerHandle | None = None
        self.on_left: Callable[[Subscriber], None] = lambda _subscriber: None
        """Told of subscribers that leave."""
        catalog.subscribe(self._told)

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
        """A new subscriber; close it. Raises UNAVAILABLE when it was told more than is known here
        and the cluster cannot be asked."""
        await self.catalog.wait_ready()
        if after_revision > self.catalog.revision:
            # It was told more elsewhere than is known here.
            try:
                async with asyncio.timeout(limits.RESUME_WAIT_S):
                    await self.reached(after_revision)
            except TimeoutError:
                after_revision = await self._of_another_past(after_revision)
        feed = self._feeds.setdefault(scope, {}).get(selection)
        if feed is None:
            feed = self._feeds[scope][selection] = Feed(self.catalog, scope, selection, self._left)
        subscriber = Subscriber(feed, id_)
        subscriber.told_at = asyncio.get_running_loop().time()
        feed.flush()
        feed.subscribers[subscriber] = None
        subscriber.place = feed.end
        if after_revision:
            self._resume(subscriber, after_revision)
        if self._timer is None:
            self._had_leader = bool(self._node.leader_id)
            self._timer = asyncio.get_running_loop().call_later(limits.WATCH_TICK_S, self._tick)
        return subscriber

    async def _of_another_past(self, after: int) -> int:
        """What to go on after, when a revision that somebody was told is still not known here.

        If the cluster itself is not that far, it was restored from a backup: 0, all begins anew.
        A member that cannot ask it must not show an older state: who was removed would be back.
        """
        try:
            await self._node.linearize()
        except EtcdError:
            raise behind(self.catalog.revision, after) from None
        await self.catalog.wait_in_step()
        return after if after <= self.catalog.revision else 0

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

    def _left(self, feed: Feed, subscriber: Subscriber) -> None:
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
        quiet_since = asyncio.get_running_loop().time() - limits.WATCH_PROGRESS_S
        for feed in self.feeds():
            feed.tidy()
            for subscriber in feed.subscribers:
                if turned or subscriber.told_at < quiet_since:
                    subscriber.progress_due = True
                    subscriber.wake()
        self._timer = asyncio.get_running_loop().call_later(limits.WATCH_TICK_S, self._tick)

    def feeds(self) -> list[Feed]:
        """All of them."""
        return [feed for of_scope in self._feeds.values() for feed in of_scope.values()]

    def feeds_of(self, service: ServiceName) -> list[Feed]:
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
