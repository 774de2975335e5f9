"""The DNS server of a member: its parts, put together; `start`, `stop`."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from prometheus_client.registry import Collector

from kvstore.gateways.dns.budget import Budget, Worker
from kvstore.gateways.dns.counts import Counts, DnsCollector
from kvstore.gateways.dns.responder import Responder
from kvstore.gateways.dns.settings import DnsSettings
from kvstore.gateways.dns.tcp import TcpEndpoint
from kvstore.gateways.dns.udp import UdpEndpoint
from kvstore.registry.catalog import Catalog

__all__ = ("DnsServer",)


class DnsServer:
    """Answers for a catalog, whether there is a leader or not. Made on a running loop."""

    def __init__(self, settings: DnsSettings, catalog: Catalog) -> None:
        self.counts = Counts()
        self.budget = Budget()
        self._worker = Worker(self.budget)
        self.responder = Responder(settings, catalog, self._worker.run, self.counts)
        self._tcp = TcpEndpoint(self.responder, self.budget, self.counts)
        self._udp: list[UdpEndpoint] = []

    async def start(self, udp: Sequence[socket.socket], tcp: Sequence[socket.socket]) -> None:
        """Serves on these bound sockets, which are its own from now on."""
        self.responder.start()
        for each in udp:
            endpoint = UdpEndpoint(each, self.responder, self.budget, self.counts)
            self._udp.append(endpoint)
            endpoint.start()
        await self._tcp.start(tcp)

    async def stop(self) -> None:
        """Answers nobody any more, at once."""
        for endpoint in self._udp:
            endpoint.stop()
        self._udp.clear()
        await self._tcp.stop()
        self._worker.stop()
        self.responder.stop()

    def collector(self) -> Collector:
        """What /metrics shows of it."""
        return DnsCollector(
            self.counts,
            lambda: self.responder.cached,
            lambda: self.budget.spent_s,
            lambda: len(self._tcp.connections),
            lambda: [each.socket.fileno() for each in self._udp],
        )
