"""A watch of the registry for threads: an iterator of updates over a bounded buffer."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvstore.client.errors import DeadlineError, KvError
from kvstore.client.registry.answers import Update
from kvstore.client.registry.blocking.reader import Reader
from kvstore.client.registry.limits import WATCH_BUFFER
from kvstore.client.registry.stream import Cursor

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = ("RegistryWatch",)


class RegistryWatch:
    """Iterates over `Update`s; goes on by itself after a lost connection or member.

    The first one, and one after a gap, is a snapshot that replaces whatever was known. Raises what
    the server refused it with. Runs until `cancel` (or the client's `close`): use it in a `with`.
    """

    def __init__(self, client: Client, cursor: Cursor) -> None:
        self._client = client
        self._ready: deque[Update] = deque()
        self._changed = threading.Condition()
        self._canceled = False
        self._established = False
        self._end: KvError | None = None
        self._trouble: KvError | None = None
        self._reader = Reader(client, cursor, self)
        client.registry._add(self)
        self._reader.start()

    def __iter__(self) -> Iterator[Update]:
        return self

    def __next__(self) -> Update:
        update = self.get()
        if update is None:
            raise StopIteration
        return update

    def get(self, timeout: float | None = None) -> Update | None:
        """The next update; None when `timeout` seconds passed, or the watch was canceled."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._end or self._canceled, timeout)
            if self._ready:
                update = self._ready.popleft()
                self._changed.notify_all()
                return update
            if self._end is not None and not self._canceled:
                raise self._end
            return None

    def cancel(self) -> None:
        """End the watch; iteration stops. May be called from any thread, more than once."""
        self._stop()

    def _stop(self) -> None:
        if sys.is_finalizing():
            return  # the reader thread is dead, perhaps with a lock in its hands
        with self._changed:
            self._canceled = True
            self._ready.clear()
            self._changed.notify_all()
        self._reader.stop()
        self._client.registry._forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    def _wait_established(self, timeout: float | None) -> None:
        """Return once the server has answered; raises why it did not in time."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._established or self._end or self._canceled, timeout
            )
            if not self._established and not self._canceled:
                raise self._end or self._trouble or DeadlineError("no answer to the watch in time")

    # What the reader calls.

    def apply(self, update: Update) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < WATCH_BUFFER or self._canceled)
            if not self._canceled:
                self._established = True
                self._ready.append(update)
                self._changed.notify_all()

    def lost(self, error: KvError, refused: bool) -> bool:
        with self._changed:
            self._trouble = error
            if refused or self._client.closed:
                self._end = error
                self._changed.notify_all()
        return not refused
