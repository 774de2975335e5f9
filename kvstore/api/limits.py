"""Every bound of the gRPC front door, in one place."""

from __future__ import annotations

__all__ = (
    "EVENT_BATCH",
    "KEEP_ALIVES_IN_FLIGHT",
    "LEADER_CHECKS",
    "LOOP_BATCHES",
    "MAX_CLIENT_VERSIONS",
    "MAX_CONCURRENT_STREAMS",
    "MIN_CLIENT_PING_MS",
    "REQUEST_OVERHEAD_BYTES",
    "SNAPSHOT_CHUNK_BYTES",
    "CHECKED_AT_ONCE",
    "TAKE_BYTES",
    "TAKE_MESSAGES",
    "TXN_AT_ONCE_BYTES",
    "TXN_LEVELS_MAX",
)

REQUEST_OVERHEAD_BYTES = 512 * 1024
"""A message may be this much larger than `max_request_bytes` before the transport refuses it."""

MAX_CONCURRENT_STREAMS = 2**31 - 1
"""Streams per connection. One Go client multiplexes all its watches over one connection, and
gRPC libraries default to about a thousand, beyond which calls queue without a word."""

MIN_CLIENT_PING_MS = 5_000
"""Clients may ping this often; etcd's Go client pings far more often than gRPC-core tolerates."""

TAKE_MESSAGES = 64
"""Messages that a transport takes from a session at once."""

TAKE_BYTES = 1024 * 1024
"""Bytes that a transport takes from a session at once (one message may be larger)."""

KEEP_ALIVES_IN_FLIGHT = 128
"""Keep-alives of one stream that wait for their answer; then reading pauses."""

EVENT_BATCH = 256
"""Calls that the native transport's receiver hands to the loop at once."""

LOOP_BATCHES = 4
"""Batches handed to the loop and not yet worked through; the receiver then waits."""

SNAPSHOT_CHUNK_BYTES = 32 * 1024
"""Size of a chunk of the Snapshot stream; etcd's clients expect this one."""

LEADER_CHECKS = 3
"""A stream with `hasleader` ends after this many checks in a row (one per election timeout)
without a leader."""

MAX_CLIENT_VERSIONS = 64
"""Different `client-api-version` labels that are counted apart; the rest count as "other"."""

TXN_LEVELS_MAX = 48
"""Transactions inside one another. Protobuf decoders give up at 100 messages in one another; the
answer to so many levels still stays below that."""

TXN_AT_ONCE_BYTES = 32 * 1024
"""A larger transaction is checked in slices, since it may hold very many operations."""

CHECKED_AT_ONCE = 1024
"""Operations of a large transaction that are checked between two turns of the loop (3 ms)."""
