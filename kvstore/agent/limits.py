"""The agent's defaults and bounds; times in seconds."""

from __future__ import annotations

from typing import Final

__all__ = (
    "ACK_WAIT_MAX_S",
    "BEATS_PER_TTL",
    "CALL_MAX_S",
    "CALL_MIN_S",
    "CHECK_INTERVAL_MIN_S",
    "DEFAULT_DRAIN_S",
    "DEFAULT_GRACE_S",
    "DEFAULT_STOP_TIMEOUT_S",
    "DEFAULT_TTL_S",
    "DEREGISTER_S",
    "FILE_BYTES_MAX",
    "JITTER",
    "KILL_WAIT_S",
    "PAUSE_MAX_S",
    "PAUSE_MIN_S",
    "REFUSED_PAUSE_S",
    "SERVICES_MAX",
)

DEFAULT_TTL_S: Final = 10
DEFAULT_GRACE_S: Final = 30
DEFAULT_DRAIN_S: Final = 5.0
DEFAULT_STOP_TIMEOUT_S: Final = 30.0
"""From the signal that is passed on to SIGKILL."""
ACK_WAIT_MAX_S: Final = 60.0
"""The servers wait no longer for acknowledgements."""
DEREGISTER_S: Final = 2.0
"""What deregistering may take beside the waiting. Then expiry has to do it."""
KILL_WAIT_S: Final = 10.0
"""How long a program may take to be gone after SIGKILL (longer only if the kernel is stuck)."""

BEATS_PER_TTL: Final = 3
JITTER: Final = 0.1
CALL_MIN_S: Final = 1.0
CALL_MAX_S: Final = 5.0
"""A call to the cluster may take a third of the TTL, between these bounds."""
PAUSE_MIN_S: Final = 0.1
PAUSE_MAX_S: Final = 2.0
"""Before the next try when the cluster does not answer; doubled from one to the other."""
REFUSED_PAUSE_S: Final = 10.0
"""Before the next try of a registration that was accepted once and is refused now."""

CHECK_INTERVAL_MIN_S: Final = 0.1
SERVICES_MAX: Final = 256
FILE_BYTES_MAX: Final = 1024**2
