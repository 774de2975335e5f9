"""The bounds of the consensus core, with their units; every queue in `raft` ends at one of them."""

from __future__ import annotations

from typing import Final

__all__ = (
    "APPEND_BYTES_MAX",
    "COMMITTED_ENTRIES_PER_READY_MAX",
    "ENTRY_OVERHEAD_BYTES",
    "FORWARDED_READ_TIMEOUTS",
    "INFLIGHT_APPENDS_MAX",
    "INFLIGHT_BYTES_MAX",
    "READS_WAITING_MAX",
    "UNCOMMITTED_BYTES_MAX",
    "WIRE_INTEGER_MAX",
)

APPEND_BYTES_MAX: Final = 1024 * 1024
"""Entries in one append message; a single larger entry still travels, alone."""

INFLIGHT_APPENDS_MAX: Final = 256
"""Append messages that a follower has not acknowledged yet."""

INFLIGHT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bytes of entries that a follower has not acknowledged yet."""

UNCOMMITTED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Proposed bytes that no quorum has yet; a leader without a quorum must not fill its memory."""

COMMITTED_ENTRIES_PER_READY_MAX: Final = 8192
"""Entries handed out for applying at once: the size of one state machine transaction."""

READS_WAITING_MAX: Final = 65_536
"""Reads that wait for a round (leader) or for the leader's answer (follower), each."""

FORWARDED_READ_TIMEOUTS: Final = 3
"""Election timeouts after which a forwarded read without an answer counts as lost."""

ENTRY_OVERHEAD_BYTES: Final = 16
"""What an entry costs beside its data; keeps a million empty entries out of one message."""

WIRE_INTEGER_MAX: Final = 2**64 - 1
"""Every integer of the protocol fits 64 bits without sign."""
