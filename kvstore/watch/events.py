"""Changes on their way to many watchers: each encoded at most once per form."""

from __future__ import annotations

from collections.abc import Iterable

from kvstore.watch.encoding import event_field
from kvstore.watch.history import DELETE, Change, History, View

__all__ = ("Past", "SharedEvent")


class Past:
    """Looks up previous values, opening its view of the store only when one is asked for."""

    __slots__ = ("_history", "_view")

    def __init__(self, history: History) -> None:
        self._history = history
        self._view: View | None = None

    def view(self) -> View:
        """The pinned view that every answer comes from."""
        if self._view is None:
            self._view = self._history.view()
        return self._view

    def previous(self, change: Change) -> bytes | None:
        """The key's value just before `change`; None if there was none or it is compacted."""
        if change.created and change.kind != DELETE:
            return None
        view = self.view()
        revision = change.revision - 1
        if revision < view.compact_revision:
            return None
        return view.previous(change.key, revision)

    def close(self) -> None:
        """Lets the view go."""
        if self._view is not None:
            self._view.close()
            self._view = None


class SharedEvent:
    """A change with its encoded `events` fields: without and with the previous value."""

    __slots__ = ("_full", "_plain", "change")

    def __init__(self, change: Change) -> None:
        self.change = change
        self._plain: bytes | None = None
        self._full: bytes | None = None

    def plain(self) -> bytes:
        """The field without prev_kv."""
        if self._plain is None:
            self._plain = event_field(self.change.kind, self.change.kv, None)
        return self._plain

    def full(self, past: Past) -> bytes:
        """The field with prev_kv, where there is one."""
        if self._full is None:
            previous = past.previous(self.change)
            if previous is None:
                self._full = self.plain()
            else:
                self._full = event_field(self.change.kind, self.change.kv, previous)
        return self._full

    @staticmethod
    def kept(events: Iterable[SharedEvent], drops: int) -> list[SharedEvent]:
        """Those that a watcher's filters let through."""
        return [event for event in events if not drops >> event.change.kind & 1]
