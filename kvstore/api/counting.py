"""gRPC metrics at scrape time, read from the plain integers that the calls count into."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from kvstore.api.call import MethodTable
from kvstore.api.guard import Guard
from kvstore.errors import Code

__all__ = ("GrpcCollector",)

_CODE_NAMES = {code: code.name.title().replace("_", "") for code in Code} | {
    Code.OK: "OK",
    Code.CANCELLED: "Canceled",
}
"""As grpc-go writes them: OK, Canceled, InvalidArgument, …"""


class GrpcCollector(Collector):
    """Exports `grpc_server_*` and the client counters; every method is there from the start."""

    def __init__(self, table: MethodTable, guard: Guard) -> None:
        self._table = table
        self._guard = guard

    def collect(self) -> Iterator[Metric]:
        labels = ["grpc_type", "grpc_service", "grpc_method"]
        started = CounterMetricFamily(
            "grpc_server_started", "Total number of RPCs started on the server.", labels=labels
        )
        handled = CounterMetricFamily(
            "grpc_server_handled",
            "Total number of RPCs completed on the server, regardless of success or failure.",
            labels=[*labels, "grpc_code"],
        )
        received = CounterMetricFamily(
            "grpc_server_msg_received",
            "Total number of RPC stream messages received on the server.",
            labels=labels,
        )
        sent = CounterMetricFamily(
            "grpc_server_msg_sent",
            "Total number of gRPC stream messages sent by the server.",
            labels=labels,
        )
        for method in self._table:
            names = [method.kind, method.service, method.name]
            started.add_metric(names, method.started)
            received.add_metric(names, method.received)
            sent.add_metric(names, method.sent)
            for code, count in enumerate(method.handled):
                handled.add_metric([*names, _CODE_NAMES[Code(code)]], count)
        yield from (started, handled, received, sent)
        yield CounterMetricFamily(
            "etcd_network_client_grpc_received_bytes",
            "The total number of bytes received from grpc clients.",
            value=self._table.received_bytes,
        )
        yield CounterMetricFamily(
            "etcd_network_client_grpc_sent_bytes",
            "The total number of bytes sent to grpc clients.",
            value=self._table.sent_bytes,
        )
        clients = CounterMetricFamily(
            "etcd_server_client_requests",
            "The total number of client requests per client version.",
            labels=["type", "client_api_version"],
        )
        for (kind, version), count in self._guard.clients.items():
            clients.add_metric([kind, version], count)
        yield clients
