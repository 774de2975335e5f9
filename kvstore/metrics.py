"""All metrics of a member under etcd's names, in one registry.

Hot paths touch only what must be counted as it happens (histograms, counters). Everything that
is a reading of present state (revision, leader, sizes) is asked for at scrape time by collectors:
those of `gateways.http.collectors` for the member, that of `api.counting` for gRPC calls.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

__all__ = ("Metrics", "exponential")


def exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Histogram bounds start, start*factor, … (`count` of them), as etcd declares its own."""
    return tuple(start * factor**i for i in range(count))


class Metrics:
    """One member's instruments. Attribute names say what is measured, units last."""

    def __init__(self) -> None:
        # etcd exports no `…_created` series, and they would double the number of lines.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._disk(self.registry)
        self._peers(self.registry)
        self._server(self.registry)
        ProcessCollector(registry=self.registry)

    def _disk(self, registry: CollectorRegistry) -> None:
        milliseconds = exponential(0.001, 2, 14)
        self.wal_fsync_seconds = Histogram(
            "etcd_disk_wal_fsync_duration_seconds",
            "The latency distributions of fsync called by WAL.",
            buckets=milliseconds,
            registry=registry,
        )
        self.wal_written_bytes = Gauge(
            "etcd_disk_wal_write_bytes_total",
            "Total number of bytes written in WAL.",
            registry=registry,
        )
        self.backend_commit_seconds = Histogram(
            "etcd_disk_backend_commit_duration_seconds",
            "The latency distributions of commit called by backend.",
            buckets=milliseconds,
            registry=registry,
        )
        self.backend_snapshot_seconds = Histogram(
            "etcd_disk_backend_snapshot_duration_seconds",
            "The latency distribution of backend snapshots.",
            buckets=exponential(0.01, 2, 17),
            registry=registry,
        )
        self.backend_defrag_seconds = Histogram(
            "etcd_disk_backend_defrag_duration_seconds",
            "The latency distribution of backend defragmentation.",
            buckets=exponential(0.1, 2, 13),
            registry=registry,
        )

    def _peers(self, registry: CollectorRegistry) -> None:
        self.peer_round_trip_seconds = Histogram(
            "etcd_network_peer_round_trip_time_seconds",
            "Round-Trip-Time histogram between peers.",
            ["To"],
            buckets=exponential(0.0001, 2, 16),
            registry=registry,
        )
        self.peer_sent_bytes = Counter(
            "etcd_network_peer_sent_bytes_total",
            "The total number of bytes sent to peers.",
            ["To"],
            registry=registry,
        )
        self.peer_received_bytes = Counter(
            "etcd_network_peer_received_bytes_total",
            "The total number of bytes received from peers.",
            ["From"],
            registry=registry,
        )
        self.peer_sent_failures = Counter(
            "etcd_network_peer_sent_failures_total",
            "The total number of send failures from peers.",
            ["To"],
            registry=registry,
        )
        self.peer_received_failures = Counter(
            "etcd_network_peer_received_failures_total",
            "The total number of receive failures from peers.",
            ["From"],
            registry=registry,
        )

    def _server(self, registry: CollectorRegistry) -> None:
        self.leader_changes = Counter(
            "etcd_server_leader_changes_seen_total",
            "The number of leader changes seen.",
            registry=registry,
        )
        self.proposals_failed = Counter(
            "etcd_server_proposals_failed_total",
            "The total number of failed proposals seen.",
            registry=registry,
        )
        self.slow_apply = Counter(
            "etcd_server_slow_apply_total",
            "The total number of slow apply requests (likely overloaded from slow disk).",
            registry=registry,
        )
        self.slow_reads = Counter(
            "etcd_server_slow_read_indexes_total",
            "The total number of pending read indexes not in sync with leader's or timed out read "
            "index requests.",
            registry=registry,
        )
        self.reads_failed = Counter(
            "etcd_server_read_indexes_failed_total",
            "The total number of failed read indexes seen.",
            registry=registry,
        )
        self.long_loop_turns = Counter(
            "kvstore_long_loop_turns_total",
            "Turns of the event loop that took more than 50 ms.",
            registry=registry,
        )
        self.health_check = Gauge(
            "etcd_server_healthcheck",
            "The result of each kind of healthcheck.",
            ["type", "name"],
            registry=registry,
        )
        self.health_checks = Counter(
            "etcd_server_healthchecks_total",
            "The total number of each kind of healthcheck.",
            ["type", "name", "status"],
            registry=registry,
        )
        self.health_successes = 0
        """Answers of /health that said well (a collector exports it under etcd's odd name)."""
        self.health_failures = 0
        """Answers of /health that said unwell."""
