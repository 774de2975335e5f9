"""From applied changes to watchers."""

from kvstore.watch.history import Change, History, View
from kvstore.watch.hub import WatchHub
from kvstore.watch.stream import WatchStream

__all__ = ("Change", "History", "View", "WatchHub", "WatchStream")
