"""The bounds of the registry, with their units, at one place."""

from __future__ import annotations

from typing import Final

__all__ = (
    "ACK_SLICE_S",
    "ACK_WAITS_MAX",
    "ACK_WAIT_MAX_S",
    "ADDRESS_CHARS_MAX",
    "BEATS_PER_TTL",
    "CHANGE_ATTEMPTS",
    "CHECKER_LEAVE_S",
    "CHECKER_TTL_S",
    "CHECKING_JITTER",
    "CHECKING_RENEWALS",
    "CHECKING_RETRY_S",
    "CHECKING_SOON_S",
    "CHECKING_TELLERS",
    "CHECKING_TICK_S",
    "CHECKS_MAX",
    "CHECK_OUTPUT_BYTES_MAX",
    "CLOCK_STEP_S",
    "CONFIRMED_PAUSE_S",
    "DEFAULT_GRACE_S",
    "DEFAULT_TTL_S",
    "DURATION_MAX_S",
    "EXPLAIN_EVENTS",
    "EXPLAIN_LEASE_S",
    "GUARD_AT_LEAST",
    "GUARD_HOLD_MAX_S",
    "GUARD_PERCENT",
    "GUARD_WINDOW_S",
    "HEARTBEAT_CHUNK",
    "HEARTBEAT_MARGIN_S",
    "HISTORY_SLICE_RECORDS",
    "INSTANCE_ID_CHARS_MAX",
    "KEEPER_BATCH_BYTES",
    "KEEPER_BATCH_ITEMS",
    "KEEPER_RETRY_S",
    "KEEPER_SLICE_ITEMS",
    "KEEPER_TICK_S",
    "LABEL_CHARS_MAX",
    "LIVENESS_TURN_MAX",
    "METADATA_BYTES_MAX",
    "PORTS_MAX",
    "READING_SLICE_INSTANCES",
    "REASON_CHARS_MAX",
    "REBUILD_RETRY_S",
    "REBUILD_SLICE_INSTANCES",
    "RECENT_DELTAS",
    "REMOVAL_RETRY_S",
    "RESUME_WAIT_S",
    "SUBSCRIBER_EVENTS_MAX",
    "SUBSCRIBER_ID_CHARS_MAX",
    "TAGS_MAX",
    "TAG_CHARS_MAX",
    "TEXT_CHARS_MAX",
    "VALUE_BYTES_MAX",
    "WAKE_SLICE_SUBSCRIBERS",
    "WATCH_PROGRESS_S",
    "WATCH_TICK_S",
    "WEIGHT_MAX",
)

LABEL_CHARS_MAX: Final = 63
"""A DNS label: names of namespaces, services and ports."""
INSTANCE_ID_CHARS_MAX: Final = 128
ADDRESS_CHARS_MAX: Final = 253
"""A host name at its longest."""
TEXT_CHARS_MAX: Final = 128
"""Zone, region and version."""
TAG_CHARS_MAX: Final = 128
TAGS_MAX: Final = 64
PORTS_MAX: Final = 32
METADATA_BYTES_MAX: Final = 16 * 1024
"""Names and values of the metadata together, as UTF-8."""
REASON_CHARS_MAX: Final = 512
CHECKS_MAX: Final = 16
"""Of one instance."""
CHECK_OUTPUT_BYTES_MAX: Final = 4 * 1024
VALUE_BYTES_MAX: Final = 64 * 1024
"""An instance as it is stored."""
WEIGHT_MAX: Final = 65_535
"""As in an SRV record."""
DURATION_MAX_S: Final = 86_400 * 30
"""TTL, grace and drain time."""
DEFAULT_TTL_S: Final = 10
DEFAULT_GRACE_S: Final = 30

GUARD_PERCENT: Final = 30
GUARD_AT_LEAST: Final = 3
GUARD_WINDOW_S: Final = 60.0
GUARD_HOLD_MAX_S: Final = 600.0
"""More than so many percent, and at least so many instances, silent within the window: they are
held, for so long at most."""
CONFIRMED_PAUSE_S: Final = 2.0
"""Who is confirmed to be gone is DOWN for so long, written and told, and then removed."""

LIVENESS_TURN_MAX: Final = 2_500
"""Deadlines looked at in one turn of the loop (about 4 µs each, with what follows)."""
REMOVAL_RETRY_S: Final = 2.0
"""A removal that did not happen comes up again after this."""

KEEPER_TICK_S: Final = 0.1
"""How often the leader looks at the deadlines."""
KEEPER_RETRY_S: Final = 0.5
"""Pause after a batch that could not be proposed."""
KEEPER_BATCH_ITEMS: Final = 100
KEEPER_BATCH_BYTES: Final = 1024**2
"""One BATCH entry; what is more follows in the next. Whatever is written meanwhile waits behind it:
a thousand at once took 0.2 to 0.7 s on two cores, a hundred take some 30 ms."""
KEEPER_SLICE_ITEMS: Final = 250
"""Instances that are changed and encoded in one turn of the loop (about 40 µs each)."""
CLOCK_STEP_S: Final = 10.0
"""While there are instances the leader sees to it that log time is not older than this."""

REBUILD_SLICE_INSTANCES: Final = 1_000
"""Instances that the catalog takes in between two turns of the loop."""
REBUILD_RETRY_S: Final = 0.05
"""Pause before the catalog is read anew when that could not be finished."""
HEARTBEAT_MARGIN_S: Final = 0.2
"""What a heartbeat may take from its arrival until it counts, beyond the TTL."""
HISTORY_SLICE_RECORDS: Final = 1_000
"""Records of the journal that a question to it looks at between two turns."""

CHANGE_ATTEMPTS: Final = 6
"""How often a change is tried when somebody else changes the same instance meanwhile."""
HEARTBEAT_CHUNK: Final = 5_000
"""Leases renewed with one confirmation by the leader."""

READING_SLICE_INSTANCES: Final = 250
"""Instances that are read, or put into an answer, between two turns of the loop."""
EXPLAIN_EVENTS: Final = 10
"""What happened to an instance lately, as an explanation has it."""
EXPLAIN_LEASE_S: Final = 1.0
"""How long an explanation waits for the leader to say what is left of a lease."""

RECENT_DELTAS: Final = 10_000
"""Changes that a member remembers, for watchers that come back after a pause."""
RESUME_WAIT_S: Final = 3.0
"""How long a member that is behind a watcher waits until it has caught up."""
SUBSCRIBER_EVENTS_MAX: Final = 2_000
"""Events that wait for one subscriber; one that is slower gets a new snapshot instead."""
SUBSCRIBER_ID_CHARS_MAX: Final = 128
WAKE_SLICE_SUBSCRIBERS: Final = 200
"""Subscribers that are woken in one turn of the loop (each then writes to its stream)."""
WATCH_PROGRESS_S: Final = 10.0
"""A stream on which nothing happens says that it lives, and how far it is."""
WATCH_TICK_S: Final = 0.5
"""How often quiet streams, and whether there is a leader, are looked at."""
ACK_WAIT_MAX_S: Final = 60.0
"""How long a change waits at most until subscribers have acknowledged it."""
ACK_SLICE_S: Final = 0.5
"""How much longer than the members themselves the one who asked them waits."""
ACK_WAITS_MAX: Final = 256
"""Changes for which a member waits at once; to more it gives no answer."""

CHECKER_TTL_S: Final = 4
"""A member that runs agentless checks is missed after this; others take over then. A third of an
instance's TTL and this together should be less than that TTL, or it is DOWN for a moment."""
CHECKER_LEAVE_S: Final = 1.0
"""How long the end of a member waits until the others know that it checks no more."""
BEATS_PER_TTL: Final = 3
CHECKING_JITTER: Final = 0.1
CHECKING_TICK_S: Final = 0.2
"""How often a member looks what it has to check, and whose heartbeat is due."""
CHECKING_RENEWALS: Final = 5_000
"""Leases in one renewal."""
CHECKING_TELLERS: Final = 32
"""Instances of which results are written down at once."""
CHECKING_RETRY_S: Final = 0.5
CHECKING_SOON_S: Final = 0.5
"""A new instance is checked for the first time within this."""
