"""Settings of the state machine; every member must have the same, since they decide outcomes."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.machine.limits import JOURNAL_MAX_AGE_MS, JOURNAL_MAX_RECORDS, JOURNAL_PREFIX
from kvstore.machine.quota import DEFAULT_QUOTA_BYTES

__all__ = ("MachineConfig",)


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """Defaults are etcd's."""

    min_lease_ttl_s: int = 2
    """A smaller TTL is raised to this: 1.5 election timeouts, rounded up."""
    max_learners: int = 1
    quota_bytes: int = DEFAULT_QUOTA_BYTES
    """0: etcd's default of 2 GiB; negative: unlimited. Only `Machine.over_quota` asks for it."""
    journal_prefix: bytes = JOURNAL_PREFIX
    """Changes of keys that begin with this are written to the journal (empty: of all keys)."""
    journal_max_records: int = JOURNAL_MAX_RECORDS
    journal_max_age_ms: int = JOURNAL_MAX_AGE_MS
