"""One watcher: what it asked for, and how far it has been served.

Its life is a small table of standings:

    created            -> LIVE (starts now or later) | BEHIND (starts in the past)
    LIVE               -> BEHIND (snapshot restored, burst too large) | BLOCKED (stream full)
    BEHIND             -> LIVE (caught up) | BLOCKED (stream full)
    BLOCKED            -> BEHIND (the client read on)
    any                -> CLOSED (cancelled, compacted away, stream ended)

`next_revision` is the promise: everything below it that matches was queued on the stream,
nothing from it on was. While LIVE it is only a lower bound (the hub's published revision says
the rest); leaving LIVE makes it exact again.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from kvstore.watch.encoding import watch_id_field

if TYPE_CHECKING:
    from kvstore.pb.rpc_pb2 import WatchCreateRequest
    from kvstore.watch.stream import WatchStream

__all__ = ("Standing", "Watcher")


class Standing(IntEnum):
    """Where a watcher's next event comes from."""

    LIVE = 0
    """From `publish`."""
    BEHIND = 1
    """From history, by the next replay rounds."""
    BLOCKED = 2
    """From history, once its stream's buffer has room."""
    CLOSED = 3
    """From nowhere."""


_KNOWN_FILTERS = 2
"""NOPUT 0 drops kind PUT 0, NODELETE 1 drops kind DELETE 1; other numbers are ignored."""


class Watcher:
    """Plain state; the stream, the hub and the catch-up write it."""

    __slots__ = (
        "drops",
        "end",
        "floor",
        "fragment",
        "id_field",
        "key",
        "next_revision",
        "prev_kv",
        "progress_notify",
        "quiet",
        "standing",
        "stream",
        "variant",
        "watch_id",
    )

    def __init__(
        self,
        stream: WatchStream,
        watch_id: int,
        create: WatchCreateRequest,
        *,
        key: bytes,
        end: bytes | None,
    ) -> None:
        """`end`: None for the single key, empty for "all keys from here on"."""
        self.stream = stream
        self.watch_id = watch_id
        self.key = key
        self.end = end
        self.drops = 0
        """Bit `kind` is set when events of that kind are filtered out."""
        for number in create.filters:
            if 0 <= number < _KNOWN_FILTERS:
                self.drops |= 1 << number
        self.prev_kv = bool(create.prev_kv)
        self.fragment = bool(create.fragment)
        self.progress_notify = bool(create.progress_notify)
        self.standing = Standing.BEHIND
        self.next_revision = 0
        self.floor = 0
        """No progress mark below this: the start revision asked for, or "now" at creation."""
        self.quiet = True
        """No event since the last progress tick."""
        self.id_field = watch_id_field(watch_id)
        self.variant = (self.id_field, self.drops, self.prev_kv, self.fragment)
        """Watchers of one range that are equal in this share the very same response bytes."""

    def settled_at(self, revision: int) -> bool:
        """True when a progress mark of `revision`, the last published one, would be true."""
        return (
            self.standing is Standing.LIVE
            and self.floor <= revision
            and self.next_revision <= revision + 1
        )
