"""Every bound of the HTTP/2 server, in one place."""

from __future__ import annotations

__all__ = (
    "BLOCK_CACHE_ENTRIES",
    "BLOCK_CACHE_ENTRY_BYTES",
    "CLOSE_LINGER_S",
    "CONNECTION_WINDOW_BYTES",
    "CONTINUATION_FRAMES",
    "DEADLINE_STEP_S",
    "DRAIN_BYTES",
    "DROPPED_STREAMS",
    "HEADER_BLOCK_BYTES",
    "HEADER_LIST_BYTES",
    "HEADER_TABLE_BYTES",
    "HELD_BYTES",
    "KEPT_ANSWER_BYTES",
    "LISTEN_BACKLOG",
    "MESSAGE_TEXT_BYTES",
    "NUISANCES",
    "NUISANCE_PERIOD_S",
    "PREFACE_S",
    "QUEUED_BYTES",
    "READ_SLICE_BYTES",
    "REQUEST_CACHE_BYTES",
    "REQUEST_CACHE_ENTRIES",
    "RESETS",
    "SERVER_HELD_BYTES",
    "SERVER_QUEUED_BYTES",
    "SHARE_BYTES",
    "SOCKET_BUFFER_BYTES",
    "STREAMS_PER_CONNECTION",
    "STREAM_WINDOW_BYTES",
    "STREAMS_PER_NUISANCE",
    "TURN_BYTES",
    "TURN_S",
    "TURN_STREAMS",
)

STREAM_WINDOW_BYTES = 1024 * 1024
"""What a client may send on one stream before it hears from us."""

CONNECTION_WINDOW_BYTES = 8 * 1024 * 1024
"""The same for a connection. It is given back as bytes arrive: `HELD_BYTES` bounds memory."""

HELD_BYTES = 64 * 1024 * 1024
"""Bytes of unfinished or unread requests of one connection; the call that crosses it fails."""

QUEUED_BYTES = 128 * 1024 * 1024
"""Response bytes of one connection that wait for the client's windows or for its socket; beyond,
calls are refused. The response that crosses it is still sent."""

KEPT_ANSWER_BYTES = 4096
"""An answer up to this size is kept for a client that reads nothing, since a write was carried
out; a longer one is not once the bounds are crossed, and the client learns that."""

SERVER_HELD_BYTES = 256 * 1024 * 1024
SERVER_QUEUED_BYTES = 512 * 1024 * 1024
"""The same two over all connections of a server."""

SHARE_BYTES = 1024 * 1024
"""What a connection may hold, and queue, even when the server's sum is used up."""

STREAMS_PER_CONNECTION = 65_536
"""Announced to clients, so they wait instead of failing. etcd announces no limit; far below this
one a client would feel it (gRPC libraries queue without a word), far above it memory would."""

HEADER_TABLE_BYTES = 4096
"""HPACK dynamic table for requests: the protocol's default, never changed by a setting of ours."""

HEADER_LIST_BYTES = 16 * 1024
"""Size of a decoded header list, counted as HTTP/2 counts it; a larger request is refused."""

HEADER_BLOCK_BYTES = 32 * 1024
"""Size of an encoded header block; a larger one ends the connection."""

CONTINUATION_FRAMES = 16
"""CONTINUATION frames of one header block; more end the connection."""

BLOCK_CACHE_ENTRIES = 64
BLOCK_CACHE_ENTRY_BYTES = 512
"""Header blocks that a connection remembers the meaning of, and how long each may be."""

REQUEST_CACHE_ENTRIES = 1024
REQUEST_CACHE_BYTES = 1024
"""Different request headers that the server remembers the meaning of, and their size."""

DROPPED_STREAMS = 1024
"""Streams per connection that ended while the client might still be sending on them."""

NUISANCES = 1000
"""Frames without use (pings, settings, empty ones) in a period before the connection ends. Every
new stream and every DATA frame sent allows one more: Go's clients ping to measure each response."""

STREAMS_PER_NUISANCE = 100
"""A new initial window counts as one nuisance for each so many open streams."""

RESETS = 10_000
"""Streams that a client may reset in a period, plus one for each that ended otherwise: as many as
a busy client has deadlines that pass at once, and few enough to end a rapid-reset attack."""

NUISANCE_PERIOD_S = 10.0
"""After this time both counts begin anew."""

PREFACE_S = 10.0
"""A connection that has not shown its protocol and first frame by then is closed."""

CLOSE_LINGER_S = 1.0
"""How long a connection stays after its GOAWAY, so that the client can read why."""

READ_SLICE_BYTES = 32 * 1024
"""Bytes of one connection that are worked through in one loop turn: some 500 small calls."""

SOCKET_BUFFER_BYTES = 256 * 1024
"""Unsent bytes of a connection from which nothing more is read from it or pushed to it."""

TURN_BYTES = 1024 * 1024
"""Bytes that streams of one connection put out in one loop turn."""

TURN_STREAMS = 1024
"""Streams of one connection that put something out in one loop turn: some 5 ms of work."""

TURN_S = 0.005
"""After this time the output of further connections waits for the next loop turn."""

DRAIN_BYTES = 64 * 1024
"""Bytes that one stream puts out before the next one's turn."""

MESSAGE_TEXT_BYTES = 4096
"""Length of an error text in trailers, encoded; longer ones are cut."""

DEADLINE_STEP_S = 0.1
"""Calls end at most this long after their deadline. Clients keep the exact time themselves."""

LISTEN_BACKLOG = 1024
"""Connections that wait to be accepted."""
