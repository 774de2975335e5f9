"""Readings of present state, taken when somebody scrapes /metrics and at no other time."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kvstore.gateways.http.facade import Node
from kvstore.metrics import Metrics
from kvstore.pb import rpc_pb2

__all__ = ("HealthCollector", "NodeCollector", "OsCollector")


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _info(name: str, text: str, label: str, value: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    family.add_metric([value], 1)
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
        member = f"{node.member_id:x}"
        yield _gauge(
            "etcd_server_has_leader",
            "Whether or not a leader exists. 1 is existence, 0 is not.",
            bool(node.leader_id),
        )
        yield _gauge(
            "etcd_server_is_leader",
            "Whether or not this member is a leader. 1 if is, 0 otherwise.",
            node.is_leader,
        )
        yield _gauge(
            "etcd_server_is_learner",
            "Whether or not this member is a learner. 1 if is, 0 otherwise.",
            node.is_learner,
        )
        yield _info("etcd_server_id", "Server or member ID in hexadecimal.", "server_id", member)
        yield _info(
            "etcd_server_version",
            "Which version of the protocol is running. 1 for the version in the label.",
            "server_version",
            status.version,
        )
        if node.cluster_version:
            yield _info(
                "etcd_cluster_version",
                "Which version the cluster runs. 1 for the version in the label.",
                "cluster_version",
                ".".join(node.cluster_version.split(".")[:2]),
            )
        yield _gauge(
            "etcd_server_proposals_committed_total",
            "The total number of consensus proposals committed.",
            status.raft_index,
        )
        yield _gauge(
            "etcd_server_proposals_applied_total",
            "The total number of consensus proposals applied.",
            status.applied_index,
        )
        yield _gauge(
            "etcd_server_proposals_pending",
            "The current number of pending proposals to commit.",
            node.pending_proposals,
        )
        yield _gauge("kvstore_raft_term", "The current term.", status.raft_term)
        yield _gauge(
            "etcd_server_quota_backend_bytes",
            "Current backend storage quota size in bytes.",
            max(status.quota, 0),
        )
        yield _gauge(
            "etcd_mvcc_db_total_size_in_bytes",
            "Total size of the underlying database physically allocated in bytes.",
            status.db_size,
        )
        yield _gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Total size of the underlying database logically in use in bytes.",
            status.db_in_use,
        )
        yield _gauge(
            "etcd_debugging_mvcc_current_revision", "The current revision of store.", node.revision
        )
        yield _gauge(
            "etcd_debugging_mvcc_compact_revision",
            "The revision of the last compaction in store.",
            max(node.compact_revision, 0),
        )
        yield _gauge("kvstore_leases", "Leases that exist.", node.lease_count())
        yield self._alarms()
        yield self._peers()
        yield from self._watches()

    def _alarms(self) -> Metric:
        family = GaugeMetricFamily(
            "etcd_debugging_server_alarms",
            "Alarms for every member in cluster. 1 for the active ones.",
            labels=["server_id", "alarm_type"],
        )
        for member, alarm in self._node.alarms():
            family.add_metric([f"{member:x}", rpc_pb2.AlarmType.Name(alarm)], 1)
        return family

    def _peers(self) -> Metric:
        family = GaugeMetricFamily(
            "etcd_network_known_peers",
            "The current number of known peers.",
            labels=["Local", "Remote"],
        )
        for remote in self._node.remote_members:
            family.add_metric([f"{self._node.member_id:x}", f"{remote:x}"], 1)
        return family

    def _watches(self) -> Iterator[Metric]:
        watches = self._node.watches
        yield _gauge(
            "etcd_debugging_mvcc_watch_stream_total",
            "Total number of watch streams.",
            watches.streams,
        )
        yield _gauge(
            "etcd_debugging_mvcc_watcher_total", "Total number of watchers.", watches.watchers
        )
        yield _gauge(
            "etcd_debugging_mvcc_slow_watcher_total",
            "Total number of unsynced slow watchers.",
            watches.slow_watchers,
        )
        yield _gauge(
            "kvstore_watch_responses_pending",
            "Watch responses that wait for their client to take them.",
            watches.pending,
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
        yield _gauge("os_fd_limit", "The file descriptor limit.", soft)
        yield _gauge("os_fd_used", "The number of used file descriptors.", self._count_open())


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except FileNotFoundError:
        return len(os.listdir("/dev/fd"))
