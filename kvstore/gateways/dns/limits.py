"""The bounds of the DNS front door, with their units, at one place."""

from __future__ import annotations

from typing import Final

__all__ = (
    "ANSWER_INSTANCES_MAX",
    "BUDGET_BURST_S",
    "BUDGET_SHARE",
    "CACHE_BYTES_MAX",
    "CACHE_NAMES_MAX",
    "INDEX_SLICE",
    "NAME_BYTES_MAX",
    "NEGATIVE_TTL_S_MAX",
    "QUERY_BYTES_MAX",
    "TCP_BYTES_MAX",
    "TCP_CONNECTIONS_MAX",
    "TCP_IDLE_S",
    "TURN_S",
    "UDP_BYTES_MAX",
    "UDP_BYTES_PLAIN",
    "UNREAD_MAX",
    "WAITING_MAX",
    "ZONE_BYTES_MAX",
)

NAME_BYTES_MAX: Final = 255
"""A name on the wire."""
ZONE_BYTES_MAX: Final = 80
"""A zone on the wire: the longest names of services and of IPv6 addresses still fit before it."""
QUERY_BYTES_MAX: Final = 4096
"""What is read of a datagram; no real question is as long."""

UDP_BYTES_PLAIN: Final = 512
"""The longest answer to somebody who did not say how much he takes."""
UDP_BYTES_MAX: Final = 1232
"""The longest answer over UDP: it passes every network in one piece."""
TCP_BYTES_MAX: Final = 65_535

ANSWER_INSTANCES_MAX: Final = 1_000
"""Of a larger service an answer shows so many, others each time that it is made anew. More SRV
records would hardly fit into 64 KiB."""
NEGATIVE_TTL_S_MAX: Final = 5
"""How long others may remember that there is nothing (or the zone's TTL, if that is less)."""

CACHE_NAMES_MAX: Final = 20_000
CACHE_BYTES_MAX: Final = 16 * 1024**2
"""Each of the two caches (of answers, and of refusals) has these bounds."""

BUDGET_SHARE: Final = 0.19
"""DNS gets this share of the loop's time …"""
BUDGET_BURST_S: Final = 0.01
"""… and may use so much at once: in no second more than a fifth."""
TURN_S: Final = 0.002
"""The longest turn of the loop that goes to DNS; then others have theirs."""

UNREAD_MAX: Final = 100
"""A service with more instances whose JSON was not read yet is read first, in slices (about 40 µs
an instance)."""
WAITING_MAX: Final = 1_000
"""Questions that wait for that."""
INDEX_SLICE: Final = 1_000
"""Instances that are put into the index of addresses between two turns (about 2 µs each)."""

TCP_CONNECTIONS_MAX: Final = 512
TCP_IDLE_S: Final = 10.0
"""A connection without a question for so long is closed."""
