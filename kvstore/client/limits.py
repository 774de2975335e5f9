"""Every bound and default of the client in one place; times in seconds, sizes in bytes or items."""

from __future__ import annotations

__all__ = (
    "BACKOFF_FIRST_S",
    "BACKOFF_JITTER",
    "BACKOFF_MAX_S",
    "CONNECT_TIMEOUT_S",
    "DEFAULT_PORT",
    "DEFAULT_TIMEOUT_S",
    "KEEP_ALIVE_FRACTION",
    "KEEP_ALIVE_PARALLEL",
    "KEEP_ALIVE_RETRY_S",
    "KEEP_ALIVE_TIMEOUT_MAX_S",
    "KEEP_ALIVE_TIMEOUT_MIN_S",
    "LONG_TIMEOUT_S",
    "PING_INTERVAL_S",
    "PING_TIMEOUT_S",
    "RECONNECT_MAX_S",
    "SCAN_PAGE",
    "SESSION_TTL_S",
    "UNARY_ATTEMPTS_MAX",
    "WATCH_BACKOFF_MAX_S",
    "WATCH_BUFFER",
    "WATCH_FRAGMENTS_MAX",
)

DEFAULT_PORT = 2379

DEFAULT_TIMEOUT_S = 10.0
"""A call's deadline when none is given: above the server's own 7 s, so that its reason arrives."""

LONG_TIMEOUT_S = 60.0
"""Default deadline of maintenance calls that rewrite files or wait for an election."""

CONNECT_TIMEOUT_S = 2.0
"""How long one attempt to connect may take before the next endpoint is tried."""

RECONNECT_MAX_S = 1.0
"""Longest pause of a channel between two attempts to connect."""

PING_INTERVAL_S = 10.0
"""HTTP/2 ping on a connection with calls under way; etcd forbids less than 5 s."""

PING_TIMEOUT_S = 5.0
"""An unanswered ping ends the connection after this time."""

UNARY_ATTEMPTS_MAX = 100
BACKOFF_FIRST_S = 0.025
BACKOFF_MAX_S = 0.5
BACKOFF_JITTER = 0.1
"""Part of each pause that is random, as ± fraction."""

WATCH_BACKOFF_MAX_S = 1.0
WATCH_BUFFER = 64
"""Responses that wait for a slow reader; beyond, HTTP/2 flow control holds the server back."""

WATCH_FRAGMENTS_MAX = 4096
"""Pieces of one revision; a server that sends more is broken, and memory must stay bounded."""

SESSION_TTL_S = 60
"""TTL of the lease behind a lock or a candidate, as in etcd's own recipes."""

KEEP_ALIVE_FRACTION = 3
"""A lease is renewed every TTL / this."""

KEEP_ALIVE_RETRY_S = 0.25
"""Pause after a failed renewal."""

KEEP_ALIVE_TIMEOUT_MIN_S = 0.5
KEEP_ALIVE_TIMEOUT_MAX_S = 5.0
KEEP_ALIVE_PARALLEL = 256
"""Renewals in flight at once, per client."""

SCAN_PAGE = 1000
"""Keys per request of `scan`."""
