"""The bounds of the state machine, with their units, at one place."""

from __future__ import annotations

__all__ = (
    "CHANGES_MAX",
    "COUNT_CACHE_ENTRIES",
    "JOURNAL_MAX_AGE_MS",
    "JOURNAL_MAX_RECORDS",
    "JOURNAL_PREFIX",
    "JOURNAL_PRUNED_PER_COMMAND",
    "JOURNAL_PRUNED_PER_RECORD",
    "JOURNAL_STEP_MAX_MS",
    "LEASE_TTL_MAX_S",
    "RANGE_CACHE_BLOCKS",
    "RANGE_CACHE_BYTES",
    "RANGE_CACHE_ENTRY_BYTES",
    "RANGE_CACHE_KEYS",
    "RANGE_CACHE_PAIR_MAX",
    "RANGE_CACHE_SLICES",
    "SLICE_BATCH",
    "SLICE_DELETES",
    "SLICE_OPERATIONS",
    "SLICE_RECORDS",
    "SLICE_VALUES",
    "STALE_RUN",
)

SLICE_RECORDS = 4_000
"""Version records that a read looks at between two yields (about 1 µs each)."""

SLICE_VALUES = 1_000
"""Key-value pairs that a read fetches, hashes or checks between two yields (2 to 5 µs each)."""

SLICE_DELETES = 512
"""Keys that a write deletes between two yields (4 to 8 µs each)."""

CHANGES_MAX = 16_384
"""Changes that a batch keeps for the watchers; of a larger one they read the history."""

SLICE_OPERATIONS = 512
"""Operations of a transaction that are judged or run between two yields (10 µs for a put)."""

STALE_RUN = 24
"""Superseded versions of one key that a walk steps over before it seeks to the next key."""

COUNT_CACHE_ENTRIES = 256
"""Remembered range counts (they make paging through a large range linear)."""

LEASE_TTL_MAX_S = 9_000_000_000
"""etcd's largest lease TTL."""

RANGE_CACHE_BYTES = 32 * 1024**2
"""What range answers may keep in memory: some 100,000 pairs of 100 bytes."""
RANGE_CACHE_BLOCKS = 4096
"""Stretches that they may be in (each change looks for its own by bisection)."""
RANGE_CACHE_KEYS = 16
"""A stretch with fewer keys is not kept."""
RANGE_CACHE_PAIR_MAX = 4096
"""Nor one with a longer pair (bytes): copying costs more there than finding."""
RANGE_CACHE_ENTRY_BYTES = 96
"""What an entry takes in memory beside its key and pair."""
RANGE_CACHE_SLICES = 4
"""Stretches that one range may add: reading a whole store must not push everything else out."""

SLICE_BATCH = 128
"""Items of a BATCH that are applied between two yields (about 40 µs each, journal included)."""

JOURNAL_PREFIX = b"/kvstore/services/"
"""Where the instances of services are: changes below it are kept in the journal."""

JOURNAL_MAX_RECORDS = 1_000_000
JOURNAL_MAX_AGE_MS = 7 * 24 * 3600 * 1000
"""What the journal keeps: the older records beyond either bound go."""
JOURNAL_STEP_MAX_MS = 60_000
"""What one command can add to the age of records, however far its time leaps. While there are
instances a time is carried every ten seconds, so that time which really passes counts in full."""

JOURNAL_PRUNED_PER_RECORD = 2
JOURNAL_PRUNED_PER_COMMAND = 64
"""Old records that go with each new one, and with each command that carries a time."""
