"""Both clients and the real registry: registration, expiry, failover, and acknowledgements."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from kvstore.client import AsyncClient, Client, InvalidRequestError, PreconditionError
from kvstore.client.registry import (
    Check,
    Health,
    Instance,
    InstanceName,
    NoInstanceError,
    Selection,
    Settings,
    Status,
    TcpCheck,
    Update,
)
from tests.process.client_cluster import Cluster, cluster_fixture, wait_until
from tests.support.servers import ROOT

pytestmark = pytest.mark.process
cluster = cluster_fixture(3)


def test_every_call(cluster: Cluster) -> None:
    with cluster.client() as client:
        registry = client.registry
        assert registry.create_namespace("shop")
        assert "shop" in tuple(registry.list_namespaces())
        one = Instance(
            service="pay",
            namespace="shop",
            id="a",
            address="10.0.0.1",
            ports={"http": 80, "admin": 81},
        )
        with pytest.raises(PreconditionError, match="agentless"):
            registry.register_instance(replace(one, checks=(Check(TcpCheck()),)))
        result = registry.register_instance(one)
        assert result.created
        registry.set_settings("pay", Settings(guard_enabled=False), namespace="shop")
        assert registry.get_settings("pay", namespace="shop").stored
        found = registry.get_instances("pay", namespace="shop", linearizable=True)
        assert [list(each.ports) for each in found] == [["http", "admin"]]
        assert [s.by_status[Status.UP] for s in registry.list_services(namespace="shop")] == [1]
        name = InstanceName("shop", "pay", "a")
        assert registry.heartbeat([result.instance.lease], instances=[name]).ttl_s == (10, 10)
        answers = registry.heartbeat_stream([[result.instance.lease], [1]])
        assert [each.ttl_s for each in answers] == [(10,), (0,)]
        out = registry.set_status(
            "pay", "a", namespace="shop", override=Status.OUT_OF_SERVICE, reason="repairs"
        )
        assert not out.instance.routable
        assert out.instance.reason.text == "repairs"
        why = registry.explain("pay", "a", namespace="shop")
        assert not why.routable
        assert {each.rule for each in why.findings if not each.passes} >= {"override"}
        registry.set_status("pay", "a", namespace="shop", release=True)
        assert registry.drain("pay", namespace="shop", wait=1).acknowledged is not None
        assert registry.drain("pay", namespace="shop", undo=True).instances[0].routable
        everyone = Selection(health=Health.ALL)
        assert len(registry.get_instances("pay", namespace="shop", selection=everyone)) == 1
        assert registry.deregister("pay", "a", namespace="shop", reason="done").existed
        events = [past.event.event for past in registry.history("pay", namespace="shop").events]
        assert events[0] == "registered"
        assert events[-1] == "deregistered"
        with pytest.raises(InvalidRequestError):
            registry.register_instance(Instance(service="Pay!", address="h", ports={"p": 1}))


SILENT = """
import os, signal, sys
from kvstore.client import Client
client = Client(sys.argv[1])
client.registry.register("mortal", id="m", port=1, ttl=1, grace=1)
print("up", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_is_killed_goes_down_then_away(cluster: Cluster) -> None:
    with cluster.client() as client:
        client.registry.set_settings("mortal", Settings(guard_enabled=False))
        everyone = Selection(health=Health.ALL)
        with client.registry.watch("mortal", selection=everyone) as watch:
            subprocess.run(
                [sys.executable, "-c", SILENT, ",".join(cluster.endpoints)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                check=False,
            )
            told: list[tuple[str, Status, bool]] = []
            while not told or not told[-1][2]:
                update = watch.get(10)
                assert isinstance(update, Update)
                told += [(e.event, e.instance.status, e.left) for e in update.events]
        assert told == [
            ("registered", Status.UP, False),
            ("unhealthy", Status.DOWN, False),
            ("expired", Status.DOWN, True),
        ]


def test_a_resolver_outlives_its_member(cluster: Cluster) -> None:
    with (
        cluster.client() as client,
        Client(cluster.endpoints[1:], shuffle=False) as other,
        client.registry.resolver("pay") as resolver,
    ):
        resolver.wait_ready(5)
        first = cluster.servers[0]
        with other.registry.register("pay", id="a", port=1, ttl=5) as registration:
            wait_until(lambda: len(resolver.instances()) == 1)
            first.kill()
            try:
                assert resolver.pick().id == "a"
                with other.registry.register("pay", id="b", port=2):
                    wait_until(lambda: len(resolver.instances()) == 2, 20)
                    wait_until(lambda: not resolver.stale, 20)
                done = registration.deregister(wait=3)
                wait_until(lambda: not resolver.instances(), 20)
                # The dead member cannot say who watched there.
                assert done.acknowledged is not None
                assert done.acknowledged.acknowledged == 1
                with pytest.raises(NoInstanceError):
                    resolver.pick()
            finally:
                first.start()
                cluster.wait_ready()


def test_deregistering_waits_for_subscribers_of_all_members(cluster: Cluster) -> None:
    clients = [Client(endpoint) for endpoint in cluster.endpoints]
    try:
        resolvers = [each.registry.resolver("pay").wait_ready(5) for each in clients]
        registration = clients[0].registry.register("pay", id="a", port=1)
        for each in resolvers:
            wait_until(lambda r=each: r.instances())
        done = registration.deregister(wait=5)
        assert done.acknowledged is not None
        assert done.acknowledged.everyone
        assert done.acknowledged.acknowledged == len(clients)
        assert not any(each.instances() for each in resolvers)
        slow = threading.Event()
        resolvers[1].on_change(lambda change: slow.wait(5) and None)
        registration = clients[0].registry.register("pay", id="b", port=1)
        done = registration.deregister(wait=0.3)
        assert done.acknowledged is not None
        assert not done.acknowledged.complete
        assert len(done.acknowledged.laggards) == 1
        slow.set()
    finally:
        for client in clients:
            client.close()


def test_asyncio(cluster: Cluster) -> None:
    async def main() -> None:
        async with (
            AsyncClient(cluster.endpoints) as client,
            client.registry.resolver("pay") as resolver,
        ):
            await resolver.wait_ready(5)
            async with client.registry.register("pay", port=8080, ttl=1) as registration:
                while not resolver.instances():
                    await asyncio.to_thread(wait_until, resolver.instances)
                await asyncio.sleep(1.5)  # longer than its TTL: heartbeats keep it
                assert [each.id for each in resolver.instances()] == [registration.id]
                await registration.set_status(Status.DRAINING)
                await asyncio.to_thread(wait_until, lambda: not resolver.instances())
                await registration.set_status(Status.UP)
                await asyncio.to_thread(wait_until, resolver.instances)
                done = await registration.deregister(wait=5)
                assert done.acknowledged is not None
                assert done.acknowledged.everyone
                assert not resolver.instances()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_the_example_runs(cluster: Cluster) -> None:
    begun = time.monotonic()
    shown = subprocess.run(
        [sys.executable, "examples/client_side_discovery.py", ",".join(cluster.endpoints)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    before, web_left, greeter_left, after = shown.stdout.splitlines()
    assert len(re.findall(r"(web|greeter)-[123]: ", before)) == 6
    assert "1 subscriber(s) know" in web_left
    assert "1 subscriber(s) know" in greeter_left
    assert len(re.findall(r"(web|greeter)-[23]: ", after)) == 4
    assert "-1" not in after
    assert time.monotonic() - begun < 30
