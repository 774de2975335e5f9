"""The bounds of the watch package, in one place.

They bound what a stalled client can hold in memory (I50) and how long one turn may take.
"""

from __future__ import annotations

from typing import Final

__all__ = (
    "ANSWERS_QUEUED_MAX",
    "BUFFERED_BYTES_MAX",
    "BUFFERED_RESPONSES_MAX",
    "BUFFERED_TOTAL_BYTES_MAX",
    "LIVE_CHANGES_MAX",
    "PACKED_BYTES",
    "PACKED_EVENTS",
    "READING_PAUSED_AT",
    "RESUME_AT_BYTES",
    "RESUME_AT_RESPONSES",
    "ROUND_CHANGES_MAX",
    "ROUND_EVENTS_MAX",
    "ROUND_REVISIONS_MAX",
    "ROUND_WATCHERS_MAX",
    "SLICE_STEPS",
    "WATCHERS_PER_STREAM_MAX",
)

BUFFERED_RESPONSES_MAX: Final = 128
"""Responses waiting in one stream; from here on its watchers fall behind (etcd's figure)."""

BUFFERED_BYTES_MAX: Final = 32 * 1024**2
"""The same in bytes, since 128 responses with large values would be hundreds of MiB."""

BUFFERED_TOTAL_BYTES_MAX: Final = 256 * 1024**2
"""The same over all streams of a member, counted as if none shared a response. Beyond it a stream
has room only while its queue is empty: so each goes on, at the pace at which it is read."""

RESUME_AT_RESPONSES: Final = BUFFERED_RESPONSES_MAX // 2
"""A stream that was full gets its watchers replayed once its client has read down to this."""

RESUME_AT_BYTES: Final = BUFFERED_BYTES_MAX // 2

READING_PAUSED_AT: Final = BUFFERED_RESPONSES_MAX
"""Queued messages from which a transport should stop reading the client's requests."""

ANSWERS_QUEUED_MAX: Final = 16_384
"""Queued messages at which a request is refused: the client asks, but does not read answers."""

WATCHERS_PER_STREAM_MAX: Final = 100_000

ROUND_WATCHERS_MAX: Final = 512
"""Watchers replayed together in one round (etcd's batch)."""

ROUND_REVISIONS_MAX: Final = 1000
"""Distinct revisions in one catch-up response (etcd's figure)."""

ROUND_EVENTS_MAX: Final = 4096
"""Matching changes after which a round ends with the revision it is in."""

ROUND_CHANGES_MAX: Final = 20_000
"""Changes read in one round, matching or not: bounds how long its view of the store is pinned."""

SLICE_STEPS: Final = 500
"""Units of work (a change read, a watcher hit, an event encoded) per slice: about 5 ms."""

PACKED_EVENTS: Final = 500
PACKED_BYTES: Final = 64 * 1024
"""Events of a huge revision that are kept as one piece of bytes: up to so many, or so long."""

LIVE_CHANGES_MAX: Final = 8192
"""Changes matched in one `publish`; watchers get the rest of a larger burst by replay."""
