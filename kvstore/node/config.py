"""What a member must be told to run; the flags of `kvstore serve` become one of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kvstore.node.limits import SNAPSHOT_MIN_WAL_BYTES
from kvstore.storage.limits import SEGMENT_BYTES

__all__ = ("NodeConfig",)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One member's settings. Names and defaults are etcd's; units stand in the names."""

    name: str
    data_dir: Path
    listen_peer_urls: tuple[str, ...]
    advertise_peer_urls: tuple[str, ...]
    advertise_client_urls: tuple[str, ...]
    initial_cluster: Mapping[str, tuple[str, ...]]
    """Member name to its advertised peer URLs; read only when the data directory is new.
    Empty: not given, this member is alone in it."""
    initial_cluster_state: str = "new"
    initial_cluster_token: str = "etcd-cluster"
    wal_dir: Path | None = None
    wal_segment_bytes: int = SEGMENT_BYTES

    heartbeat_ms: int = 100
    election_ms: int = 1000
    pre_vote: bool = True
    initial_election_tick_advance: bool = True

    snapshot_count: int = 10_000
    snapshot_catchup_entries: int = 5_000
    snapshot_min_wal_bytes: int = SNAPSHOT_MIN_WAL_BYTES
    """How much the log must have grown before another periodic snapshot is made."""
    quota_bytes: int = 2 * 1024**3
    """Negative: unlimited."""
    max_request_bytes: int = 1_572_864
    max_txn_ops: int = 128
    auto_compaction_mode: str = "periodic"
    """"periodic" or "revision"."""
    auto_compaction_retention: float = 0.0
    """Seconds (periodic) or revisions; 0 is off."""
    compaction_batch_limit: int = 1_000
    compaction_sleep_ms: float = 10.0
    watch_progress_interval_s: float = 600.0
    compact_hash_check_s: float = 60.0
    """How often the leader compares the members' hashes; 0 is off."""
    corrupt_check_s: float = 0.0
    strict_reconfig_check: bool = True
    max_learners: int = 1
    force_new_cluster: bool = False
    unsafe_no_fsync: bool = False
