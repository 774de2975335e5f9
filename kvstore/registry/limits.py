"""The bounds of the registry, with their units, at one place."""

from __future__ import annotations

from typing import Final

__all__ = (
    "ADDRESS_CHARS_MAX",
    "CHECK_OUTPUT_BYTES_MAX",
    "CLOCK_STEP_S",
    "DEFAULT_GRACE_S",
    "DEFAULT_TTL_S",
    "DURATION_MAX_S",
    "GUARD_AT_LEAST",
    "GUARD_HOLD_MAX_S",
    "GUARD_PERCENT",
    "GUARD_WINDOW_S",
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
    "REASON_CHARS_MAX",
    "REBUILD_RETRY_S",
    "REBUILD_SLICE_INSTANCES",
    "REMOVAL_RETRY_S",
    "TAGS_MAX",
    "TAG_CHARS_MAX",
    "TEXT_CHARS_MAX",
    "VALUE_BYTES_MAX",
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

LIVENESS_TURN_MAX: Final = 2_500
"""Deadlines looked at in one turn of the loop (about 4 µs each, with what follows)."""
REMOVAL_RETRY_S: Final = 2.0
"""A removal that did not happen comes up again after this."""

KEEPER_TICK_S: Final = 0.1
"""How often the leader looks at the deadlines."""
KEEPER_RETRY_S: Final = 0.5
"""Pause after a batch that could not be proposed."""
KEEPER_BATCH_ITEMS: Final = 1_000
KEEPER_BATCH_BYTES: Final = 1024**2
"""One BATCH entry of the keeper; what is more follows in the next."""
KEEPER_SLICE_ITEMS: Final = 250
"""Instances that are changed and encoded in one turn of the loop (about 40 µs each)."""
CLOCK_STEP_S: Final = 10.0
"""While there are instances the leader sees to it that log time is not older than this."""

REBUILD_SLICE_INSTANCES: Final = 1_000
"""Instances that the catalog takes in between two turns of the loop."""
REBUILD_RETRY_S: Final = 0.05
"""Pause before the catalog is read anew when that could not be finished."""
HISTORY_SLICE_RECORDS: Final = 1_000
"""Records of the journal that a question to it looks at between two turns."""
