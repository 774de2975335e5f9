"""Readings of present state, taken when somebody scrapes /metrics and at no other time."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kvstore.gateways.http.facade import Node, Status
from kvstore.metrics import Metrics
from kvstore.pb.names import alarm_name

__all__ = ("HealthCollector", "NodeCollector", "OsCollector")


Reading = Callable[[Node, Status], float]

_GAUGES: tuple[tuple[str, str, Reading], ...] = (
    (
        "etcd_server_has_leader",
        "Whether or not a leader exists. 1 is existence, 0 is not.",
        lambda node, _: bool(node.leader_id),
    ),
    (
        "etcd_server_is_leader",
        "Whether or not this member is a leader. 1 if is, 0 otherwise.",
        lambda node, _: node.is_leader,
    ),
    (
        "etcd_server_is_learner",
        "Whether or not this member is a learner. 1 if is, 0 otherwise.",
        lambda node, _: node.is_learner,
    ),
    (
        "etcd_server_proposals_committed_total",
        "The total number of consensus proposals committed.",
        lambda _, status: status.raft_index,
    ),
    (
        "etcd_server_proposals_applied_total",
        "The total number of consensus proposals applied.",
        lambda _, status: status.applied_index,
    ),
    (
        "etcd_server_proposals_pending",
        "The current number of pending proposals to commit.",
        lambda node, _: node.pending_proposals,
    ),
    (
        "etcd_server_quota_backend_bytes",
        "Current backend storage quota size in bytes.",
        lambda _, status: max(status.quota, 0),
    ),
    (
        "etcd_mvcc_db_total_size_in_bytes",
        "Total size of the underlying database physically allocated in bytes.",
        lambda _, status: status.db_size,
    ),
    (
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Total size of the underlying database logically in use in bytes.",
        lambda _, status: status.db_in_use,
    ),
    (
        "etcd_debugging_mvcc_current_revision",
        "The current revision of store.",
        lambda node, _: node.revision,
    ),
    (
        "etcd_debugging_mvcc_compact_revision",
        "The revision of the last compaction in store.",
        lambda node, _: max(node.compact_revision, 0),
    ),
    (
        "etcd_debugging_mvcc_watch_stream_total",
        "Total number of watch streams.",
        lambda node, _: node.watches.streams,
    ),
    (
        "etcd_debugging_mvcc_watcher_total",
        "Total number of watchers.",
        lambda node, _: node.watches.watchers,
    ),
    (
        "etcd_debugging_mvcc_slow_watcher_total",
        "Total number of unsynced slow watchers.",
        lambda node, _: node.watches.slow_watchers,
    ),
    (
        "kvstore_watch_responses_pending",
        "Watch responses that wait for their client to take them.",
        lambda node, _: node.watches.pending,
    ),
    ("kvstore_raft_term", "The current term.", lambda _, status: status.raft_term),
    ("kvstore_leases", "Leases that exist.", lambda node, _: node.lease_count),
)


def _labelled(
    name: str, text: str, labels: Sequence[str], rows: Iterable[Sequence[str]]
) -> GaugeMetricFamily:
    """A gauge that is 1 for each row of label values."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for row in rows:
        family.add_metric(row, 1)
    return family


class _Quiet(Collector):
    """A collector that is not asked for values when it is registered."""

    def describe(self) -> list[Metric]:
        return []


class NodeCollector(_Quiet):
    """What the member knows about itself, under etcd's names."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        node = self._node
        status = node.status()
        for name, text, reading in _GAUGES:
            yield GaugeMetricFamily(name, text, value=reading(node, status))
        member = f"{node.member_id:x}"
        yield _labelled(
            "etcd_server_id", "Server or member ID in hexadecimal.", ["server_id"], [[member]]
        )
        yield _labelled(
            "etcd_server_version",
            "Which version of the protocol is running. 1 for the version in the label.",
            ["server_version"],
            [[status.version]],
        )
        yield _labelled(
            "etcd_cluster_version",
            "Which version the cluster runs. 1 for the version in the label.",
            ["cluster_version"],
            [[node.cluster_version.rpartition(".")[0]]] if node.cluster_version else [],
        )
        yield _labelled(
            "etcd_network_known_peers",
            "The current number of known peers.",
            ["Local", "Remote"],
            [[member, f"{remote:x}"] for remote in node.remote_members],
        )
        yield _labelled(
            "etcd_network_active_peers",
            "The current number of active peer connections.",
            ["Local", "Remote"],
            [[member, f"{remote:x}"] for remote in node.connected_members],
        )
        yield _labelled(
            "etcd_debugging_server_alarms",
            "Alarms for every member in cluster. 1 for the active ones.",
            ["server_id", "alarm_type"],
            [[f"{owner:x}", alarm_name(alarm)] for owner, alarm in node.alarms()],
        )


class HealthCollector(_Quiet):
    """The outcomes of /health. etcd's names lack the `_total` that the library insists on."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for name, text, value in (
            (
                "etcd_server_health_success",
                "The total number of successful health checks.",
                self._metrics.health_successes,
            ),
            (
                "etcd_server_health_failures",
                "The total number of failed health checks.",
                self._metrics.health_failures,
            ),
        ):
            family = Metric(name, text, "unknown")
            family.add_sample(name, {}, value)
            yield family


class OsCollector(_Quiet):
    """Open files and how many there may be."""

    def __init__(self, count_open: Callable[[], int] | None = None) -> None:
        self._count_open = count_open or _open_files

    def collect(self) -> Iterator[Metric]:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield GaugeMetricFamily("os_fd_limit", "The file descriptor limit.", value=soft)
        yield GaugeMetricFamily(
            "os_fd_used", "The number of used file descriptors.", value=self._count_open()
        )


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except FileNotFoundError:
        return len(os.listdir("/dev/fd"))
