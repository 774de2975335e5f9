"""Every bound and default of the registry's client; times in seconds."""

from __future__ import annotations

__all__ = (
    "ACK_TIMEOUT_S",
    "BEHIND_ROUNDS",
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
