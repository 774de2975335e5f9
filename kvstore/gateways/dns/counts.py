"""What happens at the DNS front door, counted in plain numbers; /metrics reads them."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dns.rcode import Rcode
from dns.rdatatype import RdataType
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kvstore.metrics import exponential

__all__ = ("Counts", "DnsCollector", "kernel_drops")

BOUNDS_S = exponential(0.000_01, 2, 14)
"""10 µs to 82 ms."""
_NAMED_TYPES = frozenset(
    (
        *(RdataType.A, RdataType.AAAA, RdataType.SRV, RdataType.TXT, RdataType.PTR),
        *(RdataType.SOA, RdataType.NS, RdataType.CNAME, RdataType.ANY),
        *(RdataType.HTTPS, RdataType.MX),
    )
)
"""Others are counted together: a stranger may ask for 65,536 types."""


class Counts:
    """Plain numbers: a query costs less than a microsecond of counting."""

    def __init__(self) -> None:
        self.types: Counter[int] = Counter()
        self.rcodes: Counter[int] = Counter()
        self.hits = 0
        """Answers that were kept from before."""
        self.truncated = 0
        self.drops: Counter[str] = Counter()
        """Questions that got no answer, by why."""
        self.latencies = [0] * (len(BOUNDS_S) + 1)
        self.latency_s = 0.0

    def took(self, seconds: float) -> None:
        """An answer was made and sent in so long."""
        self.latencies[bisect_left(BOUNDS_S, seconds)] += 1
        self.latency_s += seconds


class DnsCollector(Collector):
    """The counts under the names of /metrics."""

    def __init__(
        self,
        counts: Counts,
        cached: Callable[[], int],
        spent_s: Callable[[], float],
        connections: Callable[[], int],
        sockets: Callable[[], Sequence[int]],
    ) -> None:
        self._counts = counts
        self._cached = cached
        self._spent_s = spent_s
        self._connections = connections
        self._sockets = sockets

    def describe(self) -> list[Metric]:
        """Nothing is asked for when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The present numbers."""
        counts = self._counts
        by_type: Counter[str] = Counter()
        for kind, count in counts.types.items():
            by_type[RdataType.to_text(kind) if kind in _NAMED_TYPES else "other"] += count
        yield _by_label("kvstore_dns_queries", "Questions, by type.", "type", by_type)
        by_rcode = {Rcode.to_text(rcode): count for rcode, count in counts.rcodes.items()}
        yield _by_label("kvstore_dns_answers", "Answers, by rcode.", "rcode", by_rcode)
        drops = counts.drops + Counter({"kernel": kernel_drops(self._sockets())})
        yield _by_label("kvstore_dns_drops", "Questions without an answer.", "reason", drops)
        for name, text, value in (
            ("kvstore_dns_cache_hits", "Answers that were kept from before.", counts.hits),
            ("kvstore_dns_truncated", "Answers that were cut (TC).", counts.truncated),
            ("kvstore_dns_seconds", "The loop's time that went to DNS.", self._spent_s()),
        ):
            yield CounterMetricFamily(name, text, value=value)
        yield GaugeMetricFamily(
            "kvstore_dns_cache_entries", "Answers that are kept.", value=self._cached()
        )
        yield GaugeMetricFamily(
            "kvstore_dns_connections", "Open TCP connections.", value=self._connections()
        )
        yield self._latency()

    def _latency(self) -> Metric:
        family = HistogramMetricFamily(
            "kvstore_dns_latency_seconds", "From a question's arrival here to its answer."
        )
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*BOUNDS_S, None), self._counts.latencies, strict=True):
            total += count
            buckets.append(("+Inf" if bound is None else str(bound), total))
        family.add_metric([], buckets, sum_value=self._counts.latency_s)
        return family


def _by_label(name: str, text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value in sorted(values):
        family.add_metric([value], values[value])
    return family


def kernel_drops(sockets: Sequence[int]) -> int:
    """Datagrams that found the queue of these sockets full; 0 where the system does not tell."""
    drops = 0
    try:
        inodes = {str(os.fstat(number).st_ino) for number in sockets}
        for table in ("/proc/self/net/udp", "/proc/self/net/udp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[9] in inodes:
                    drops += int(fields[12])
    except (OSError, IndexError, ValueError):
        return drops
    return drops
