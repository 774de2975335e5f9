"""A watch as a function of messages: what was delivered, and where to go on after a break.

Rules:
* `next_revision` is the first revision not yet delivered; a reopened stream starts there, so
  nothing is missed and nothing repeated. It grows only when whole revisions were handed out:
  after events to the last one's revision + 1, after a progress notification to its revision + 1.
* Fragments are kept back until the last one; a break drops them and they are sent again.
* A watch that wants "from now on" has its start fixed by the first `created` answer.
* This module knows no stream, thread or clock; `open_request` and `feed` are all there is.
"""

from __future__ import annotations

from typing import Any

from kvstore import errors as catalogue
from kvstore.client.errors import (
    KvError,
    NoLeaderError,
    WatchCanceled,
    WatchCompacted,
    from_status,
)
from kvstore.client.limits import WATCH_FRAGMENTS_MAX
from kvstore.client.values import Event, WatchResponse, event, header
from kvstore.errors import Code
from kvstore.pb import rpc_pb2 as pb

__all__ = ("WATCH_PATH", "WatchCursor")

WATCH_PATH = "/etcdserverpb.Watch/Watch"

# After these the same watch may work on another stream, or at another member.
_RESUMABLE = frozenset(
    {Code.OK, Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED, Code.ABORTED}
)


class WatchCursor:
    """The state of one watch across all the streams it lives on."""

    def __init__(self, create: pb.WatchCreateRequest, *, require_leader: bool = False) -> None:
        self._create = create
        self._require_leader = require_leader
        self._pieces: list[Any] = []
        self._leaderless = 0
        self.next_revision = create.start_revision
        """First revision not delivered yet; 0 = from now on, and not created yet."""
        self.created = False
        """The server accepted the watch on the current stream."""

    def open_request(self) -> pb.WatchRequest:
        """First message on a new stream."""
        self._pieces.clear()
        self.created = False
        create = pb.WatchCreateRequest()
        create.CopyFrom(self._create)
        create.start_revision = self.next_revision
        return pb.WatchRequest(create_request=create)

    def feed(self, message: Any) -> WatchResponse | None:
        """Take a WatchResponse; returns what the caller of the watch is to see, if anything.

        Raises WatchCompacted, WatchCanceled or another KvError when the watch is over, and
        NoLeaderError when another stream should be tried (see `stream_failed`).
        """
        if message.canceled:
            raise _end_of_watch(message)
        if message.created:
            self.created = True
            self._leaderless = 0
            if self.next_revision == 0:
                self.next_revision = message.header.revision + 1
            return None
        if message.fragment or self._pieces:
            return self._collect(message)
        return self._deliver(message.events, message)

    def _collect(self, message: Any) -> WatchResponse | None:
        self._pieces.append(message)
        if len(self._pieces) > WATCH_FRAGMENTS_MAX:
            raise KvError(
                f"watch: more than {WATCH_FRAGMENTS_MAX} fragments of one response",
                code=Code.INTERNAL,
            )
        if message.fragment:
            return None
        pieces, self._pieces = self._pieces, []
        return self._deliver([each for piece in pieces for each in piece.events], message)

    def _deliver(self, changes: Any, message: Any) -> WatchResponse | None:
        start = self.next_revision
        if not changes:
            return self._progress(message)
        # A server that repeats itself (none should) must not be noticed by the reader.
        events: tuple[Event, ...] = tuple(
            event(each) for each in changes if each.kv.mod_revision >= start
        )
        if not events:
            return None
        last = events[-1].kv.mod_revision
        self.next_revision = last + 1
        return WatchResponse(header(message.header), events, last)

    def _progress(self, message: Any) -> WatchResponse | None:
        revision: int = message.header.revision
        if revision == 0 or revision + 1 < self.next_revision:
            return None
        self.next_revision = revision + 1
        return WatchResponse(header(message.header), (), revision)

    def stream_failed(self, error: KvError, endpoints: int) -> KvError | None:
        """The stream ended with `error`; None = reopen, else the error that ends the watch.

        A watch that requires a leader gives up when every endpoint in turn said there is none.
        """
        if isinstance(error, WatchCanceled):
            return error
        if isinstance(error, NoLeaderError) and self._require_leader:
            self._leaderless += 1
            return error if self._leaderless >= endpoints else None
        if error.message == catalogue.NOT_SUPPORTED_FOR_LEARNER.message and endpoints > 1:
            return None
        return None if error.code in _RESUMABLE else error


def _end_of_watch(message: Any) -> KvError:
    if message.compact_revision:
        return WatchCompacted(message.compact_revision)
    reason: str = message.cancel_reason
    entry = catalogue.lookup(Code.CANCELLED, reason)
    if entry is not None:
        return from_status(entry.code, entry.message, write=False)
    return WatchCanceled(reason or "the server canceled the watch")
