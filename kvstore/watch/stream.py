"""One client's watch stream: its watchers by id, and the queue of responses to it.

Everything a client is to see goes through one queue in the order in which it became true:
`created` before the watcher's events, events before the progress mark that covers them, events
before `canceled`. The queue is bounded: when it is full, events are not queued (the watchers
fall behind and are replayed from history), and transports stop reading requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvstore import errors
from kvstore.watch import encoding, limits
from kvstore.watch.encoding import Response
from kvstore.watch.watcher import Standing, Watcher

if TYPE_CHECKING:
    from kvstore.pb.rpc_pb2 import WatchCreateRequest, WatchRequest
    from kvstore.watch.hub import WatchHub

__all__ = ("WatchStream",)

# What etcd answers; clients show these.
_EMPTY_RANGE: Final = "mvcc: watcher range is empty"
_DUPLICATE_ID: Final = "mvcc: duplicate watch ID provided on the WatchStream"
_NEGATIVE_START: Final = errors.COMPACTED.message
_TOO_MANY: Final = "etcdserver: too many watchers on one stream"

_AUTO_ID: Final = 0
_INT64: Final = 1 << 63


class WatchStream:
    """Made by `WatchHub.open`. Not thread-safe; all calls on the hub's thread."""

    __slots__ = ("_blocked", "_bytes", "_closed", "_hub", "_next_id", "_queue", "_rung", "_wake",
                 "_watchers")  # fmt: skip

    def __init__(self, hub: WatchHub, wake: Callable[[], None]) -> None:
        self._hub = hub
        self._wake = wake
        self._watchers: dict[int, Watcher] = {}
        self._next_id = 0
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._rung = False
        """`wake` was or will be called, and the output it announced is not all taken yet."""
        self._blocked: dict[Watcher, None] = {}
        self._closed = False

    # What a transport does.

    def request(self, message: WatchRequest) -> None:
        """Handles one message of the client; every answer comes through `take`.

        Raises EtcdError(TOO_MANY_REQUESTS) when the client keeps asking without reading its
        answers; the stream is to be ended then. A transport that minds `accepts_requests`
        never sees it.
        """
        if self._closed:
            return
        if len(self._queue) >= limits.ANSWERS_QUEUED_MAX:
            raise errors.TOO_MANY_REQUESTS
        kind = message.WhichOneof("request_union")
        if kind == "create_request":
            self._create(message.create_request)
        elif kind == "cancel_request":
            self._cancel(message.cancel_request.watch_id)
        elif kind == "progress_request":
            self._progress()
        self._hub.ring()

    def refuse_create(self, reason: str) -> None:
        """Answers a create request that never reaches the hub (no permission)."""
        if not self._closed:
            self.push_answer(encoding.refused(self._hub.header(self._hub.current), reason))
            self._hub.ring()

    def take(self, max_messages: int, max_bytes: int) -> list[bytes]:
        """Encoded WatchResponses to be sent next, in order; at least one if there is any.

        While `pending` stays above 0 the caller comes again by itself; `wake` is only called
        for output after an empty queue.
        """
        queue = self._queue
        before = self._bytes
        if len(queue) <= max_messages and self._bytes <= max_bytes:
            taken = list(queue)
            queue.clear()
            self._bytes = 0
        else:
            taken = []
            size = 0
            while queue and len(taken) < max_messages:
                size += len(queue[0])
                if taken and size > max_bytes:
                    break
                taken.append(queue.popleft())
            self._bytes -= sum(map(len, taken))
        self._hub.queued_bytes += self._bytes - before
        if not queue:
            self._rung = False
        if self._blocked and self._has_room_again():
            self._unblock()
        return taken

    def close(self) -> None:
        """Ends the stream: nothing is queued or woken any more. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for watcher in list(self._watchers.values()):
            self.forget(watcher)
        self._queue.clear()
        self._hub.queued_bytes -= self._bytes
        self._bytes = 0
        self._hub.closed(self)

    @property
    def pending(self) -> int:
        """Responses waiting to be taken."""
        return len(self._queue)

    @property
    def accepts_requests(self) -> bool:
        """False while a transport should leave the client's requests unread."""
        return len(self._queue) < limits.READING_PAUSED_AT

    @property
    def watchers(self) -> int:
        """Watchers that are open."""
        return len(self._watchers)

    # What the hub and the catch-up do.

    @property
    def full(self) -> bool:
        """No room for events: who would get one falls behind instead."""
        return (
            len(self._queue) >= limits.BUFFERED_RESPONSES_MAX
            or self._bytes >= limits.BUFFERED_BYTES_MAX
            or (self._bytes > 0 and self._hub.queued_bytes >= limits.BUFFERED_TOTAL_BYTES_MAX)
        )

    def push(self, response: Response) -> None:
        """Queues a response whole, its fragments side by side."""
        self._queue.extend(response.pieces)
        self._bytes += response.size_bytes
        self._hub.queued_bytes += response.size_bytes
        self._hub.events_total += response.events
        if not self._rung:
            self._rung = True
            self._hub.to_wake.append(self)

    def push_answer(self, answer: bytes) -> None:
        """Queues a message without events, also beyond the buffer's bound."""
        self.push(Response([answer], 0, len(answer)))

    def wake(self) -> None:
        """Tells the transport that there is output, unless it took it or left meanwhile."""
        if self._queue:
            self._wake()

    def block(self, watcher: Watcher) -> None:
        """Takes in a watcher for which the queue had no room."""
        watcher.standing = Standing.BLOCKED
        self._blocked[watcher] = None

    def forget(self, watcher: Watcher) -> None:
        """Ends a watcher; its id is free again."""
        del self._watchers[watcher.watch_id]
        if watcher.standing is Standing.BLOCKED:
            del self._blocked[watcher]
        else:
            self._hub.detach(watcher)
        watcher.standing = Standing.CLOSED
        self._hub.ended(watcher)

    def _has_room_again(self) -> bool:
        return (
            len(self._queue) <= limits.RESUME_AT_RESPONSES
            and self._bytes <= limits.RESUME_AT_BYTES
            and not self.full
        )

    def _unblock(self) -> None:
        blocked, self._blocked = self._blocked, {}
        self._hub.unblocked(blocked)

    def _create(self, create: WatchCreateRequest) -> None:
        """Order of the checks is etcd's."""
        key, end = create.key or b"\x00", _range_end(create.range_end)
        reason = ""
        if create.start_revision < 0:
            reason = _NEGATIVE_START
        elif end and key >= end:
            reason = _EMPTY_RANGE
        elif create.watch_id != _AUTO_ID and create.watch_id in self._watchers:
            reason = _DUPLICATE_ID
        elif len(self._watchers) >= limits.WATCHERS_PER_STREAM_MAX:
            reason = _TOO_MANY
        header = self._hub.header(self._hub.current)
        if reason:
            self.push_answer(encoding.refused(header, reason))
            return
        watcher = Watcher(self, create.watch_id or self._free_id(), create, key=key, end=end)
        self._watchers[watcher.watch_id] = watcher
        self.push_answer(encoding.created(header, watcher.watch_id))
        self._hub.admit(watcher, create.start_revision)

    def _free_id(self) -> int:
        while self._next_id in self._watchers:
            self._next_id = (self._next_id + 1) % _INT64
        watch_id = self._next_id
        self._next_id = (self._next_id + 1) % _INT64
        return watch_id

    def _cancel(self, watch_id: int) -> None:
        watcher = self._watchers.get(watch_id)
        if watcher is None:
            return
        self.forget(watcher)
        self.push_answer(encoding.canceled(self._hub.header(self._hub.current), watch_id))

    def _progress(self) -> None:
        """A mark for the whole stream, if it is true for every watcher; else no answer."""
        revision = self._hub.revision
        watchers = self._watchers.values()
        if watchers and all(watcher.settled_at(revision) for watcher in watchers):
            self.push_answer(encoding.progress(self._hub.header(revision)))


def _range_end(range_end: bytes) -> bytes | None:
    """None for a single key, empty for "from the key on", else the exclusive end."""
    if not range_end:
        return None
    return b"" if range_end == b"\x00" else range_end
