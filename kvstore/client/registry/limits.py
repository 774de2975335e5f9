"""Every bound and default of the registry's client; times in seconds."""

from __future__ import annotations

__all__ = (
    "ACK_TIMEOUT_S",
    "BEHIND_ROUNDS",
    "CHANNEL_LINGER_S",
    "DRAIN_S",
    "HEARTBEATS_TOGETHER",
    "HEARTBEAT_COMPANY",
    "HEARTBEAT_FRACTION",
    "HEARTBEAT_JITTER",
    "HEARTBEAT_RETRY_S",
    "HEARTBEAT_TIMEOUT_MAX_S",
    "HEARTBEAT_TIMEOUT_MIN_S",
    "LEAVE_TIMEOUT_S",
    "LINGER_S",
    "READY_TIMEOUT_S",
    "REGISTER_RETRY_MAX_S",
    "REGISTER_TIMEOUT_S",
    "REGISTRATIONS_TOGETHER",
    "WAIT_MARGIN_S",
    "WATCH_BUFFER",
)

WAIT_MARGIN_S = 5.0
"""What a call that waits on the server may take beyond the waiting, unless told otherwise."""

WATCH_BUFFER = 64
"""Updates that wait for a slow reader; beyond, HTTP/2 flow control holds the server back."""

BEHIND_ROUNDS = 5
"""A watch that finds all members behind its own position so often starts anew: they were restored
from older data."""

ACK_TIMEOUT_S = 5.0
"""Deadline of an acknowledgement."""

HEARTBEAT_FRACTION = 3
"""A heartbeat is sent every TTL / this, …"""

HEARTBEAT_JITTER = 0.1
"""… give or take this part, so that programs that started together do not stay together."""

HEARTBEAT_COMPANY = 0.5
"""Whose heartbeat is due within this part of its time joins one that is sent now. With half of it,
two groups of the same TTL meet within two rounds, however far apart they began: so those of one
client with one TTL travel in one call."""

HEARTBEAT_RETRY_S = 0.25
"""First pause after a heartbeat or a registration that failed; registrations double it."""

HEARTBEAT_TIMEOUT_MIN_S = 0.5
HEARTBEAT_TIMEOUT_MAX_S = 5.0
HEARTBEATS_TOGETHER = 5000
"""In one call."""

REGISTER_TIMEOUT_S = 3.0
"""Of a registration in the background: the heartbeats of others wait for it meanwhile."""

REGISTER_RETRY_MAX_S = 5.0
REGISTRATIONS_TOGETHER = 16
"""Between two rounds of heartbeats."""

LEAVE_TIMEOUT_S = 3.0
"""What deregistering at a SIGTERM may take beyond the drain time, if the cluster is away."""

DRAIN_S = 5.0
"""How long a stopping program waits for those who do not know yet, unless told otherwise."""

READY_TIMEOUT_S = 5.0
"""How long a call waits for the registry's first answer."""

LINGER_S = 0.1
"""A stopping program goes on serving for so long after the last acknowledgement: for requests that
were on their way by then."""

CHANNEL_LINGER_S = 30.0
"""The channel to an instance that left is closed after this time."""
