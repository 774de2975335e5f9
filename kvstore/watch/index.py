"""From a changed key to the watchers that asked for it, without looking at the others.

Watchers of the same range share one `Interest`, so matching costs by distinct ranges: single
keys in a dict, bounded ranges in an interval tree, "from this key on" in a sorted list.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection

from kvstore.watch.ranges import RangeTree
from kvstore.watch.watcher import Watcher

__all__ = ("Interest", "WatcherIndex")


class Interest:
    """One distinct range and everyone who watches it."""

    __slots__ = ("end", "key", "watchers")

    def __init__(self, key: bytes, end: bytes | None) -> None:
        self.key = key
        self.end = end
        self.watchers: dict[Watcher, None] = {}


class WatcherIndex:
    """A set of watchers, searchable by key."""

    __slots__ = ("_bounded", "_interests", "_open", "_open_starts", "_single")

    def __init__(self, random: Callable[[int], int]) -> None:
        self._interests: dict[tuple[bytes, bytes | None], Interest] = {}
        self._single: dict[bytes, Interest] = {}
        self._bounded: RangeTree[Interest] = RangeTree(random)
        self._open_starts: list[bytes] = []
        self._open: list[Interest] = []

    def interests(self) -> Collection[Interest]:
        """Every distinct range watched."""
        return self._interests.values()

    def interests_in(self, key: bytes) -> list[Interest]:
        """The distinct ranges that hold `key`."""
        found = self._bounded.covering(key) if len(self._bounded) else []
        single = self._single.get(key)
        if single is not None:
            found.append(single)
        if self._open:
            found += self._open[: bisect_right(self._open_starts, key)]
        return found

    def add(self, watcher: Watcher) -> None:
        """Adds a watcher that is not in the index."""
        key, end = watcher.key, watcher.end
        interest = self._interests.get((key, end))
        if interest is None:
            interest = self._interests[key, end] = Interest(key, end)
            if end is None:
                self._single[key] = interest
            elif end:
                self._bounded.add(key, end, interest)
            else:
                position = bisect_left(self._open_starts, key)
                self._open_starts.insert(position, key)
                self._open.insert(position, interest)
        assert watcher not in interest.watchers, f"watcher {watcher.watch_id} added twice"
        interest.watchers[watcher] = None

    def remove(self, watcher: Watcher) -> None:
        """Removes a watcher that is in the index."""
        key, end = watcher.key, watcher.end
        interest = self._interests[key, end]
        del interest.watchers[watcher]
        if interest.watchers:
            return
        del self._interests[key, end]
        if end is None:
            del self._single[key]
        elif end:
            self._bounded.remove(key, end)
        else:
            position = bisect_left(self._open_starts, key)
            del self._open_starts[position]
            del self._open[position]
