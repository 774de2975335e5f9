"""Rolling restarts under a steady load through the SDK: no request fails, everyone knows at once.

KVSTORE_RESTARTS sets how many instances are restarted (a dozen, or 100 in `make test-long`).
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kvstore.client import Client
from kvstore.client.registry import Change, Instance, LeastRequests, Resolver
from tests.process.client_cluster import Cluster, cluster_fixture, wait_until
from tests.support.servers import ROOT, free_ports

pytestmark = pytest.mark.process
cluster = cluster_fixture(3)

INSTANCES = 3
CALLERS = 4
PAUSE_S = 0.02
WATCHERS = 20
KNOWN_P99_S = 0.1
"""From a SIGTERM until the last watcher knows."""


class Fleet:
    """Processes of one service, each at a port of its own."""

    def __init__(self, endpoints: list[str], service: str) -> None:
        self._endpoints = ",".join(endpoints)
        self._service = service
        self._ports = free_ports(INSTANCES)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._generation = 0

    def start(self, slot: int) -> str:
        """A new instance with a new id; returns the id."""
        self._generation += 1
        id = f"{slot}-{self._generation}"
        module = "tests.process.registered_http"
        argv = [self._endpoints, self._service, id, str(self._ports[slot])]
        self._processes[slot] = subprocess.Popen(
            [sys.executable, "-m", module, *argv],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        return id

    def stop(self, slot: int) -> float:
        """SIGTERM, and wait for the end; returns when the signal was sent."""
        sent = time.monotonic()
        self._processes[slot].send_signal(signal.SIGTERM)
        assert self._processes[slot].wait(15) == 0
        return sent

    def kill(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


class Load:
    """Callers that call all the time; what fails is kept."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._stopped = threading.Event()
        self.answers: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(CALLERS)]

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                # Not said to be idempotent: repeated only if it surely was not sent.
                self.answers[self._resolver.call(ask, timeout=10)] += 1
            except Exception as error:
                self.failures.append(error)
            self._stopped.wait(PAUSE_S)

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in self._threads:
                thread.join()


def ask(instance: Instance) -> str:
    with urllib.request.urlopen(instance.url(), timeout=10) as answer:
        body: bytes = answer.read()
    return body.decode()


class Watchers:
    """When each of many resolvers has heard that an instance left."""

    def __init__(self, client: Client, service: str) -> None:
        self._told: dict[str, list[float]] = {}
        self._lock = threading.Lock()
        self._resolvers = [client.registry.resolver(service) for _ in range(WATCHERS)]
        for each in self._resolvers:
            each.wait_ready(10).on_change(self._heard)

    def _heard(self, change: Change) -> None:
        now = time.monotonic()
        with self._lock:
            for instance in change.left:
                self._told.setdefault(instance.id, []).append(now)

    def last_told(self, id: str) -> float:
        wait_until(lambda: len(self._told.get(id, ())) == WATCHERS)
        return max(self._told[id])


def roll(cluster: Cluster, service: str, restarts: int) -> None:
    fleet = Fleet(cluster.endpoints, service)
    try:
        with (
            Client(cluster.endpoints) as client,
            client.registry.resolver(service, balancer=LeastRequests()) as resolver,
        ):
            ids = [fleet.start(slot) for slot in range(INSTANCES)]
            wait_until(lambda: {each.id for each in resolver.instances()} == set(ids), 20)
            watchers, load = Watchers(client, service), Load(resolver)
            known_s = []
            with load.running():
                wait_until(lambda: len(load.answers) == INSTANCES)
                for restart in range(restarts):
                    slot = restart % INSTANCES
                    sent = fleet.stop(slot)
                    known_s.append(watchers.last_told(ids[slot]) - sent)
                    ids[slot] = fleet.start(slot)
                    wait_until(lambda i=ids[slot]: load.answers[i], 20)
            known_s.sort()
            p99_s = known_s[math.ceil(len(known_s) * 0.99) - 1]
            print(
                f"\n{restarts} restarts, {load.answers.total()} requests, "
                f"{len(load.failures)} failed; known to {WATCHERS} watchers after "
                f"{known_s[len(known_s) // 2] * 1000:.1f} ms (median), "
                f"{p99_s * 1000:.1f} ms (p99), {known_s[-1] * 1000:.1f} ms (longest)"
            )
            assert not load.failures, load.failures[0]
            assert len(load.answers) == INSTANCES + restarts
            assert p99_s < KNOWN_P99_S
    finally:
        fleet.kill()


def test_rolling_restarts(cluster: Cluster) -> None:
    roll(cluster, "payment", int(os.environ.get("KVSTORE_RESTARTS", "12")))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_rolling_restarts(cluster: Cluster) -> None:
    roll(cluster, "invoice", int(os.environ.get("KVSTORE_RESTARTS", "100")))
