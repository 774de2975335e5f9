"""The bounds of health checks, with their units, at one place."""

from __future__ import annotations

from typing import Final

__all__ = (
    "ARGUMENTS_MAX",
    "CHECKS_MAX",
    "CONCURRENCY",
    "DEFAULT_HEALTHY_AFTER",
    "DEFAULT_INTERVAL_S",
    "DEFAULT_TIMEOUT_S",
    "DEFAULT_UNHEALTHY_AFTER",
    "HEADERS_BYTES_MAX",
    "HEADERS_MAX",
    "INTERVAL_MAX_S",
    "INTERVAL_MIN_S",
    "JITTER",
    "NAME_CHARS_MAX",
    "OUTPUT_BYTES_MAX",
    "PAUSE_MIN_S",
    "PIPE_GRACE_S",
    "REAP_S",
    "RESOLVER_THREADS",
    "STARTING_INTERVAL_S",
    "SUMMARY_CHARS_MAX",
    "TEXT_CHARS_MAX",
    "THRESHOLD_MAX",
    "TIMEOUT_MIN_S",
)

DEFAULT_INTERVAL_S: Final = 10.0
INTERVAL_MIN_S: Final = 1.0
"""For checks that the cluster runs; an agent's own may be faster."""
INTERVAL_MAX_S: Final = 3600.0
DEFAULT_TIMEOUT_S: Final = 2.0
TIMEOUT_MIN_S: Final = 0.01
DEFAULT_HEALTHY_AFTER: Final = 1
DEFAULT_UNHEALTHY_AFTER: Final = 3
THRESHOLD_MAX: Final = 100
JITTER: Final = 0.1
"""A pause differs from the interval by up to this part, so that checks do not march in step."""
PAUSE_MIN_S: Final = 0.01
"""Between the end of a slow probe and the next one."""
STARTING_INTERVAL_S: Final = 0.25
"""Between two probes of a program that is starting, at most; it is wanted as soon as it can."""

OUTPUT_BYTES_MAX: Final = 4 * 1024
"""What is kept of what a probe was told."""
SUMMARY_CHARS_MAX: Final = 200
"""The one line about a finding; it becomes part of the reason of a change."""
CHECKS_MAX: Final = 16
"""Of one instance."""
NAME_CHARS_MAX: Final = 63
TEXT_CHARS_MAX: Final = 2048
"""A URL, a target, a path, a service name, an argument of a command."""
ARGUMENTS_MAX: Final = 256
HEADERS_MAX: Final = 32
HEADERS_BYTES_MAX: Final = 4 * 1024

CONCURRENCY: Final = 64
"""Probes under way at once."""
RESOLVER_THREADS: Final = 4
"""A name server that does not answer holds up so many look-ups at most, and nothing else."""
REAP_S: Final = 5.0
"""How long a killed command may take to be gone (longer only if the kernel is stuck)."""
PIPE_GRACE_S: Final = 0.2
"""How long output is waited for that something in the background may still write."""
