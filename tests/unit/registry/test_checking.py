"""Agentless checks on real members: who checks, what is written down, hand-over, and the guards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from kvstore.checks.reach import network
from kvstore.checks.spec import Check, HttpProbe, TcpProbe
from kvstore.errors import Code, EtcdError
from kvstore.registry import limits
from kvstore.registry.checking import Checking
from kvstore.registry.model import Instance, Status
from kvstore.registry.names import InstanceName
from kvstore.registry.registry import Registry
from tests.unit.node.nodes import until
from tests.unit.node.on_loop import on_loop

from .world import PAYMENT, Observer, World, payment, world

pytestmark = pytest.mark.sim

LOOPBACK = tuple(map(network, ("127.0.0.0/8", "::1/128")))


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """A member is missed sooner than in earnest."""
    with patch.object(limits, "CHECKER_TTL_S", 1):
        yield


class Service:
    """Something that is checked: answers HTTP with `status`, counts who comes."""

    def __init__(self) -> None:
        self.status = 200
        self.asked = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        head = f"HTTP/1.1 {self.status} As Told\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
        if await reader.readline():
            writer.write(f"{head}hello".encode())
        writer.close()


@asynccontextmanager
async def service() -> AsyncIterator[Service]:
    made = Service()
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def checked(port: int, number: int = 1, *, ttl_s: int = 3, **fields: object) -> Instance:
    """An instance at loopback with an HTTP check once a second, DOWN at the second failure."""
    check = Check(HttpProbe("/"), interval_s=1.0, timeout_s=0.9, unhealthy_after=2)
    more = {"address": "127.0.0.1", "ports": {"http": port}, "checks": (check,), **fields}
    instance = payment(number, ttl_s=ttl_s, grace_s=5)
    return Instance(
        **{name: getattr(instance, name) for name in Instance.__dataclass_fields__} | more  # type: ignore[arg-type]
    )


def checking(registry: Registry) -> Checking:
    assert registry.checking is not None
    return registry.checking


async def ready(made: World) -> None:
    """All members know that all take part."""
    await until(lambda: all(len(each.catalog.checkers) == 3 for each in made.registries.values()))


def find(registry: Registry, number: int = 1) -> Instance | None:
    entry = registry.catalog.entry(InstanceName(*PAYMENT, f"payment-{number}"))
    return entry.instance if entry is not None else None


def status(registry: Registry, number: int = 1) -> Status | None:
    instance = find(registry, number)
    return instance.status if instance is not None else None


@on_loop
async def test_one_member_checks_and_sends_the_heartbeats(tmp_path: Path) -> None:
    async with service() as asked, world(tmp_path, "a", "b", "c", check_networks=LOOPBACK) as made:
        await ready(made)
        leader = await made.leader()
        seen = Observer(leader)
        await leader.service.register(checked(asked.port, ttl_s=1))
        name = InstanceName(*PAYMENT, "payment-1")
        await until(lambda: asked.asked >= 1)
        await until(lambda: (find(leader) or payment(1)).check)
        instance = find(leader)
        assert instance is not None
        assert instance.check is not None
        assert instance.check["results"]["http"]["output"] == "HTTP 200 As Told\nhello"
        began = asked.asked
        await asyncio.sleep(2.5)  # more than twice its TTL
        assert began + 1 <= asked.asked <= began + 4, "one member asks, once a second"
        owners = [each for each in made.registries.values() if name in checking(each).duties]
        assert len(owners) == 1
        assert "unhealthy" not in seen.events()

        asked.status = 503
        await until(lambda: status(leader) is Status.DOWN)
        down = find(leader)
        assert down is not None
        assert down.reason == ("check_failed", "http: HTTP 503 As Told")
        assert not down.silent
        asked.status = 429
        await until(lambda: status(leader) is Status.DEGRADED)
        asked.status = 200
        await until(lambda: status(leader) is Status.UP)
        await asked.stop()
        await until(lambda: status(leader) is Status.DOWN)
        gone = find(leader)
        assert gone is not None
        assert gone.reason.text == "http: connection refused"

        # Registered again as it was, it stays what its checks have found.
        await leader.service.register(checked(asked.port, ttl_s=1))
        assert status(leader) is Status.DOWN
        await leader.service.deregister(name)
        await until(lambda: not any(checking(each).duties for each in made.registries.values()))


@pytest.mark.parametrize("crash", [True, False])
def test_hand_over(tmp_path: Path, crash: bool) -> None:
    """Its heartbeats go on from another member before it is missed, by a crash or a stop."""

    @on_loop
    async def go() -> None:
        names = ("a", "b", "c")
        async with service() as asked, world(tmp_path, *names, check_networks=LOOPBACK) as made:
            await ready(made)
            follower = await made.follower()
            mine = 0
            for number in range(1, 9):
                wanted = checked(asked.port, number)
                await follower.service.register(wanted)
                await until(
                    lambda name=wanted.name: any(  # type: ignore[misc]
                        name in checking(each).duties for each in made.registries.values()
                    )
                )
                mine = len(checking(follower).duties)
            assert mine, "some of eight are its own"
            others = [each for each in made.registries.values() if each is not follower]
            seen = Observer(others[0])
            loop = asyncio.get_running_loop()
            began = loop.time()
            if crash:
                # The member is gone without a word; what it was doing ends after that.
                await follower.node.stop()
                await checking(follower).stop()
            else:
                await follower.stop()

            def shared_out() -> bool:
                return sum(len(checking(each).duties) for each in others) == 8

            await until(shared_out)
            took_s = loop.time() - began
            assert took_s < (4.0 if crash else 1.5)
            await asyncio.sleep(3.5)  # longer than the TTL
            assert "unhealthy" not in seen.events()
            assert all(status(others[0], number) is Status.UP for number in range(1, 9))
            asked.status = 500
            for number in range(1, 9):
                await until(lambda number=number: status(others[0], number) is Status.DOWN)  # type: ignore[misc]

    go()


@on_loop
async def test_a_target_that_is_not_allowed_is_never_connected_to(tmp_path: Path) -> None:
    elsewhere = (network("10.0.0.0/8"),)
    async with service() as asked, world(tmp_path, "a", check_networks=elsewhere) as made:
        leader = await made.leader()
        await until(lambda: leader.catalog.checkers)
        await leader.service.register(checked(asked.port))
        target = f"[::ffff:127.0.0.1]:{asked.port}"
        tcp = Check(TcpProbe(target), interval_s=1.0, timeout_s=0.9, unhealthy_after=1)
        await leader.service.register(checked(asked.port, 2, checks=(tcp,)))
        await until(lambda: status(leader, 1) is status(leader, 2) is Status.DOWN)
        instance = find(leader)
        assert instance is not None
        assert "lies outside of the networks that checks may reach" in instance.reason.text
        assert asked.asked == 0


@on_loop
async def test_who_starts_is_up_when_every_check_has_passed(tmp_path: Path) -> None:
    async with service() as asked, world(tmp_path, "a", check_networks=LOOPBACK) as made:
        asked.status = 500
        leader = await made.leader()
        await until(lambda: leader.catalog.checkers)
        http = Check(HttpProbe("/"), interval_s=1.0, timeout_s=0.9)
        tcp = Check(TcpProbe(), interval_s=1.0, timeout_s=0.9)
        wanted = checked(asked.port, checks=(http, tcp), reported=Status.STARTING)
        await leader.service.register(wanted)
        before = asked.asked
        await until(lambda: asked.asked >= before + 4)
        assert status(leader) is Status.STARTING, "one of two has passed"
        asked.status = 200
        await until(lambda: status(leader) is Status.UP)


@on_loop
async def test_checks_that_nobody_would_run_are_refused(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        leader = await made.leader()
        with pytest.raises(EtcdError, match="no member runs any") as refused:
            await leader.service.register(checked(1))
        assert refused.value.code is Code.FAILED_PRECONDITION
        assert find(leader) is None
