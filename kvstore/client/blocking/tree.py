"""A local copy of a prefix for threads: one thread reads, watches, and tells listeners."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvstore.client.blocking.watch import Watch
from kvstore.client.errors import ClientClosedError, CompactedError, KvError
from kvstore.client.keys import Key
from kvstore.client.limits import WATCH_BACKOFF_MAX_S
from kvstore.client.recipes.tree import Tree, TreeEvent, read_tree
from kvstore.client.retry import backoff_s
from kvstore.client.values import KeyValue

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = ("TreeCache",)

logger = logging.getLogger("kvstore.client")


class TreeCache:
    """Everything under a prefix, kept up to date; see `Client.tree_cache`.

    Reading asks nobody and never fails; while the cluster is away it shows what was known last.
    """

    def __init__(self, client: Client, prefix: Key) -> None:
        self._client = client
        self._tree = Tree(prefix)
        self._listeners: list[Callable[[TreeEvent], None]] = []
        self._changed = threading.Condition()
        self._watch: Watch | None = None
        self._closed = False
        self._problem: KvError | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Read everything, then follow it in a thread; raises what the reading raises."""
        if self._thread is None:
            self._read()
            self._client._closing_bell.subscribe(self._stop)
            self._thread = threading.Thread(target=self._run, name="kvstore-tree", daemon=True)
            self._thread.start()
        return self

    def close(self) -> None:
        """Follow it no longer; what is known stays readable."""
        if sys.is_finalizing():
            return  # the thread is dead, perhaps with a lock in its hands
        self._stop()
        self._client._closing_bell.unsubscribe(self._stop)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def listen(self, listener: Callable[[TreeEvent], None]) -> None:
        """Call `listener` with every change from now on, in the cache's thread, so briefly.

        Given before `start`, it is told what is there already.
        """
        self._listeners.append(listener)

    def wait_for(
        self, condition: Callable[[TreeCache], object], timeout: float | None = None
    ) -> bool:
        """Wait until `condition(cache)` is true; False when `timeout` seconds passed before."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: condition(self), timeout))

    @property
    def prefix(self) -> bytes:
        return self._tree.prefix

    @property
    def revision(self) -> int:
        """The revision of the store that the copy shows at least."""
        return self._tree.revision

    @property
    def problem(self) -> KvError | None:
        """Why the copy may be behind; None = it is followed."""
        watch = self._watch
        return self._problem or (watch.trouble if watch is not None else None)

    def get(self, key: Key) -> KeyValue | None:
        """The key as the copy has it."""
        return self._tree.get(key)

    def items(self) -> tuple[KeyValue, ...]:
        """Everything, in the order of the keys."""
        with self._changed:
            return self._tree.items()

    def children(self, path: Key) -> tuple[bytes, ...]:
        """The names one level below `path`, as if keys were paths with slashes."""
        with self._changed:
            return self._tree.children(path)

    def __len__(self) -> int:
        return len(self._tree)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Inside.

    def _stop(self) -> None:
        with self._changed:
            self._closed = True
            watch = self._watch
            self._changed.notify_all()
        if watch is not None:
            watch.cancel()

    def _read(self) -> None:
        kvs, revision = self._client._run(read_tree(self.prefix))
        with self._changed:
            events = self._tree.load(kvs, revision)
        self._tell(events)

    def _run(self) -> None:
        failures, behind = 0, False
        while not self._closed:
            try:
                if behind:
                    self._read()
                    behind = False
                self._follow()
            except ClientClosedError as error:
                self._problem = error
                return
            except CompactedError:
                behind = True
            except KvError as error:
                self._problem = error
                failures += 1
                logger.warning("tree cache %r: %s; trying again", self.prefix, error)
                pause = backoff_s(failures, self._client._random, WATCH_BACKOFF_MAX_S)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, pause)

    def _follow(self) -> None:
        """Apply what happens until closed; raises when it must be read anew."""
        with self._client.watch(
            self.prefix, prefix=True, start_revision=self.revision + 1
        ) as watch:
            with self._changed:
                self._watch, self._problem = watch, None
                if self._closed:
                    return
            try:
                for response in watch:
                    with self._changed:
                        events = self._tree.apply(response.events, response.revision)
                    self._tell(events)
            finally:
                self._watch = None

    def _tell(self, events: list[TreeEvent]) -> None:
        for event in events:
            for listener in list(self._listeners):
                try:
                    listener(event)
                except Exception:
                    logger.exception("a listener of the tree cache %r failed", self.prefix)
        with self._changed:
            self._changed.notify_all()
