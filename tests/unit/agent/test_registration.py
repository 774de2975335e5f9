"""One instance kept registered, against a cluster that does whatever the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from kvstore.agent import limits
from kvstore.agent.registration import Refused, Registration
from kvstore.client.errors import KvError, UnavailableError
from kvstore.client.registry import (
    Acknowledged,
    AsyncRegistry,
    CheckResult,
    DeregisterResult,
    HeartbeatResult,
    Instance,
    RegisterResult,
    RegistryHeader,
    Status,
    StatusResult,
)
from kvstore.errors import Code

HEADER = RegistryHeader()
PAYMENT = Instance(service="payment", id="p1", address="h", ports={"main": 1}, ttl_s=1, grace_s=2)


class Cluster:
    """The calls that a registration makes, and what comes of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.instance: Instance | None = None
        self.fails: KvError | None = None
        self.slow: Callable[[], Awaitable[None]] | None = None
        """Awaited before a registration takes effect."""
        self.acknowledged: Acknowledged | None = Acknowledged(True, 1)

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if self.fails is not None:
            raise self.fails

    async def register_instance(self, instance: Instance, **_: Any) -> RegisterResult:
        self._called(f"register {instance.reported.value}")
        if self.slow is not None:
            await self.slow()
        self.instance = replace(instance, lease=7, status=instance.reported)
        return RegisterResult(HEADER, self.instance, True)

    async def heartbeat(self, leases: list[int], **_: Any) -> HeartbeatResult:
        self._called("heartbeat")
        assert leases == [7]
        return HeartbeatResult(HEADER, (0 if self.instance is None else 1,))

    async def set_status(self, *_: Any, check: CheckResult, **__: Any) -> StatusResult:
        self._called(f"{check.name} {check.status.value}")
        if self.instance is None:
            raise KvError("no such instance", code=Code.NOT_FOUND)
        return StatusResult(HEADER, self.instance)

    async def deregister(self, *_: Any, reason: str, wait: float | None, **__: Any) -> Any:
        self._called(f"deregister: {reason} ({wait})")
        self.instance = None
        return DeregisterResult(HEADER, True, None, self.acknowledged)


def made(cluster: Cluster, **fields: Any) -> Registration:
    calls = cast("AsyncRegistry", cluster)
    return Registration(calls, replace(PAYMENT, **fields), chance=lambda: 0.5)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(8):
        while not holds():  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(0.002)


def result(name: str, status: Status) -> CheckResult:
    return CheckResult(name, status, "told", 0)


def test_it_lives_by_heartbeats_until_it_is_deregistered() -> None:
    async def go() -> None:
        cluster = Cluster()
        one = made(cluster)
        one.start()
        await until(lambda: cluster.calls.count("heartbeat") == 3)
        assert await one.deregister("enough", 2.0)
        assert cluster.calls == ["register UP", *["heartbeat"] * 3, "deregister: enough (2.0)"]

    asyncio.run(go())


def test_a_lost_registration_is_made_again_as_it_is_now() -> None:
    async def go() -> None:
        cluster = Cluster()
        one = made(cluster, reported=Status.STARTING)
        one.start()
        await until(lambda: cluster.instance)
        one.report(Status.UP, {"http": result("http", Status.UP)})
        await until(lambda: "http UP" in cluster.calls)
        cluster.instance = None
        await until(lambda: cluster.calls[-1] == "http UP" and "register UP" in cluster.calls)
        assert cluster.calls.count("http UP") == 2, "the new registration knows no results"
        # It is noticed by a result, too, and not only by a heartbeat.
        cluster.instance = None
        one.report(Status.DOWN, {"http": result("http", Status.DOWN)})
        await until(lambda: cluster.calls[-2:] == ["register DOWN", "http DOWN"])
        await one.deregister("", 0.0)

    asyncio.run(go())


def test_bad_news_first_and_nothing_twice() -> None:
    async def go() -> None:
        cluster = Cluster()
        one = made(cluster, reported=Status.STARTING)
        one.start()
        await until(lambda: cluster.instance)
        results = {
            "a": result("a", Status.UP),
            "b": result("b", Status.DEGRADED),
            "c": result("c", Status.UP),
        }
        one.report(Status.DEGRADED, results)
        await until(lambda: "c UP" in cluster.calls)
        for _ in range(3):
            one.report(Status.DEGRADED, results)
        await until(lambda: "heartbeat" in cluster.calls)
        told = [call for call in cluster.calls if call != "heartbeat"]
        assert told == ["register STARTING", "b DEGRADED", "a UP", "c UP"]
        await one.deregister("", 0.0)

    asyncio.run(go())


def test_an_outage_is_waited_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def go() -> None:
        cluster = Cluster()
        cluster.fails = UnavailableError("nobody there")
        one = made(cluster)
        one.start()
        await until(lambda: len(cluster.calls) >= 3)
        cluster.fails = None
        await until(lambda: one.registered)
        cluster.fails = UnavailableError("nobody there")
        await until(lambda: cluster.calls.count("heartbeat") >= 2)
        cluster.fails = None
        await until(lambda: caplog.text.count("the cluster answers again") == 2)
        await one.deregister("", 0.0)

    asyncio.run(go())
    assert caplog.text.count("does not answer") == 2, "each outage is told of once"


def test_what_is_refused_once_and_for_all() -> None:
    async def go() -> None:
        cluster = Cluster()
        cluster.fails = KvError("no namespace 'x'", code=Code.NOT_FOUND)
        one = made(cluster)
        with pytest.raises(Refused, match="no namespace 'x'"):
            await one.start()
        cluster.fails = None
        assert await one.deregister("", 1.0), "there is nobody to be told"
        assert cluster.calls == ["register UP"]

    asyncio.run(go())


def test_a_registration_that_is_refused_later_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "REFUSED_PAUSE_S", 0.01)

    async def go() -> None:
        cluster = Cluster()
        one = made(cluster)
        task = one.start()
        await until(lambda: one.registered)
        cluster.instance = None
        cluster.fails = KvError("no namespace", code=Code.NOT_FOUND)
        await until(lambda: len(cluster.calls) >= 4)
        assert not task.done()
        cluster.fails = None
        await until(lambda: cluster.instance)
        await one.deregister("", 0.0)

    asyncio.run(go())


def test_no_registration_comes_after_the_deregistration() -> None:
    async def go() -> None:
        cluster = Cluster()
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            arrived.set()
            await go_on.wait()

        cluster.slow = slow
        one = made(cluster)
        one.start()
        await arrived.wait()
        leaving = asyncio.create_task(one.deregister("end", 0.0))
        await asyncio.sleep(0.02)
        assert cluster.calls == ["register UP"]
        go_on.set()
        await leaving
        assert cluster.calls == ["register UP", "deregister: end (None)"]
        assert cluster.instance is None

    asyncio.run(go())


@pytest.mark.parametrize(
    ("acknowledged", "everyone"),
    [
        (Acknowledged(True, 3), True),
        (Acknowledged(True, 3, cannot_acknowledge={"dns": 0}), True),
        (Acknowledged(True, 3, cannot_acknowledge={"etcd watch": 1}), False),
        (Acknowledged(False, 3), False),
        (None, False),
    ],
)
def test_who_knows_of_the_end(acknowledged: Acknowledged | None, everyone: bool) -> None:
    async def go() -> None:
        cluster = Cluster()
        cluster.acknowledged = acknowledged
        one = made(cluster)
        one.start()
        await until(lambda: one.registered)
        assert await one.deregister("end", 1.0) is everyone

    asyncio.run(go())


def test_an_end_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEREGISTER_S", 0.1)

    async def go() -> None:
        cluster = Cluster()
        one = made(cluster)
        one.start()
        await until(lambda: one.registered)
        cluster.fails = UnavailableError("nobody there")
        assert not await one.deregister("end", 0.1)

    asyncio.run(go())
