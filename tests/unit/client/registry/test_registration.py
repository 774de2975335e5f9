"""Registrations: heartbeats, outages, statuses, and the way out."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from kvstore.client import AsyncClient, Client, InvalidRequestError, KvError, UnavailableError
from kvstore.client.endpoints import Endpoint
from kvstore.client.registry import RegistrationState, Status
from kvstore.client.registry.registration import RegistrationBase, Schedule, wanted_instance
from tests.support.fake_registry import FakeRegistry
from tests.unit.client.registry.helpers import wait_until

ROOT = Path(__file__).parents[4]


def test_register_finds_its_own_address_and_chooses_an_id(client: Client) -> None:
    with client.registry.register("payment", port=8080, tags=("eu",), zone="a") as registration:
        instance = registration.instance
        assert instance.target == "127.0.0.1:8080"
        assert instance.id.startswith("payment-")
        assert (instance.tags, instance.zone, instance.drain_s) == (("eu",), "a", 5)
        assert registration.state is RegistrationState.REGISTERED
        assert [each.id for each in client.registry.get_instances("payment")] == [registration.id]
    assert registration.state is RegistrationState.ENDED
    assert not len(client.registry.get_instances("payment"))


def test_bad_input_raises_and_nothing_goes_on(fake: FakeRegistry, client: Client) -> None:
    for wrong in ({}, {"port": 1, "ports": {"a": 1}}, {"port": 1, "ttl": 0}):
        with pytest.raises(ValueError):
            client.registry.register("payment", **wrong)  # type: ignore[arg-type]
    fake.fail["Register"] = (grpc.StatusCode.INVALID_ARGUMENT, "the weight is 70000")
    with pytest.raises(InvalidRequestError, match="70000"):
        client.registry.register("payment", port=1, required=False)
    assert not [t for t in threading.enumerate() if t.name == "kvstore-heartbeat"]


def test_all_registrations_of_a_client_share_a_heartbeat(
    fake: FakeRegistry, client: Client
) -> None:
    kept = [client.registry.register("payment", port=n, ttl=1) for n in range(1, 6)]
    wait_until(lambda: any(len(beat) == 5 for beat in fake.heartbeats))
    for each in kept:
        each.close()
    assert not fake.instances
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "kvstore-heartbeat"])


def test_a_forgotten_instance_is_registered_again_under_its_id(
    fake: FakeRegistry, client: Client
) -> None:
    registration = client.registry.register("payment", port=1, ttl=1)
    registration.set_status(Status.DEGRADED, "half of the disks")
    fake.remove(registration.id, "expired")
    wait_until(lambda: registration.id in fake.instances)
    wait_until(lambda: registration.state is RegistrationState.REGISTERED)
    assert fake.instances[registration.id].reported == 3


def test_an_outage_is_seen_and_survived(
    fake: FakeRegistry, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kvstore.client")
    registration = client.registry.register("payment", port=1, ttl=1)
    fake.stop()
    wait_until(lambda: registration.state is RegistrationState.LATE)
    assert isinstance(registration.last_error, KvError)
    with pytest.raises(KvError):
        registration.set_status(Status.DRAINING, timeout=0.2)
    assert registration.state is RegistrationState.REGISTERING
    fake.start()
    wait_until(lambda: registration.state is RegistrationState.REGISTERED)
    assert registration.last_error is None
    assert fake.instances[registration.id].reported == 4
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1


def test_a_program_may_start_before_the_cluster(fake: FakeRegistry, client: Client) -> None:
    fake.stop()
    with pytest.raises(UnavailableError):
        client.registry.register("payment", port=1, address="h", timeout=0.2)
    registration = client.registry.register(
        "payment", port=1, address="h", required=False, timeout=0.2
    )
    assert registration.state is RegistrationState.REGISTERING
    assert registration.last_error is not None
    fake.start()
    wait_until(lambda: registration.id in fake.instances)


def test_close_does_not_raise_when_the_cluster_is_away(
    fake: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(fake.endpoint, timeout=0.2) as client:
        registration = client.registry.register("payment", port=1)
        fake.stop()
        registration.close()
        assert registration.last_error is not None
    assert "could not be deregistered" in caplog.text


def test_closing_the_client_ends_the_heartbeats_only(fake: FakeRegistry) -> None:
    with Client(fake.endpoint) as client:
        registration = client.registry.register("payment", port=1)
    assert registration.state is RegistrationState.ENDED
    assert registration.id in fake.instances


def test_asyncio(fake: FakeRegistry) -> None:
    async def until(condition: Callable[[], object]) -> None:
        await asyncio.to_thread(wait_until, condition)

    async def main() -> None:
        async with AsyncClient(fake.endpoint) as client:
            async with client.registry.register("payment", port=1, ttl=1) as registration:
                await registration.set_status(Status.DEGRADED)
                fake.remove(registration.id)
                await until(lambda: registration.id in fake.instances)
                fake.stop()
                await until(lambda: registration.state is RegistrationState.LATE)
                fake.start()
                await until(lambda: registration.state is RegistrationState.REGISTERED)
            assert not fake.instances
            second = await client.registry.register("payment", port=2)
            assert second.instance.port == 2
        left = [each for each in asyncio.all_tasks() if each.get_name().startswith("kvstore")]
        assert not left

    asyncio.run(asyncio.wait_for(main(), 30))


BLOCKING = """
import signal, sys, threading
from kvstore.client import Client
if sys.argv[2] == "handler":
    signal.signal(signal.SIGTERM, lambda *_: (print("handler", flush=True), sys.exit(3)))
client = Client(sys.argv[1])
client.registry.register("payment", port=1, drain=float(sys.argv[3]), handle_sigterm=True)
client.registry.register("invoice", port=2, drain=float(sys.argv[3]), handle_sigterm=True)
print("up", flush=True)
threading.Event().wait()
"""
AWAITED = """
import asyncio, signal, sys
from kvstore.client import AsyncClient
if sys.argv[2] == "handler":
    signal.signal(signal.SIGTERM, lambda *_: (print("handler", flush=True), sys.exit(3)))
async def main():
    registry = AsyncClient(sys.argv[1]).registry
    await registry.register("payment", port=1, drain=float(sys.argv[3]), handle_sigterm=True)
    await registry.register("invoice", port=2, drain=float(sys.argv[3]), handle_sigterm=True)
    print("up", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Program:
    """A process that has registered two instances."""

    def __init__(self, source: str, fake: FakeRegistry, before: str, drain: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, fake.endpoint, before, str(drain)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"

    def __enter__(self) -> subprocess.Popen[str]:
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.process
@pytest.mark.parametrize("source", [BLOCKING, AWAITED], ids=["blocking", "asyncio"])
def test_sigterm_deregisters_first(source: str, fake: FakeRegistry) -> None:
    """Nobody watches, so nobody is waited for; then the default action ends the process."""
    with Program(source, fake, "none", 30.0) as process:
        assert len(fake.instances) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
        assert not fake.instances


@pytest.mark.process
@pytest.mark.parametrize("source", [BLOCKING, AWAITED], ids=["blocking", "asyncio"])
def test_sigterm_waits_for_who_does_not_know_then_runs_the_old_handler(
    source: str, fake: FakeRegistry
) -> None:
    with Program(source, fake, "handler", 0.5) as process:
        fake.change(lambda: fake.subscribers.add("slow"))
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: not fake.instances)
        assert process.wait(10) == 3
        assert time.monotonic() - begun >= 0.5
        assert process.stdout is not None
        assert process.stdout.read() == "handler\n"


@pytest.mark.process
def test_a_second_sigterm_is_obeyed_at_once(fake: FakeRegistry) -> None:
    with Program(BLOCKING, fake, "none", 60.0) as process:
        fake.change(lambda: fake.subscribers.add("slow"))
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: not fake.instances)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


def test_signals_are_given_back(client: Client) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with client.registry.register("payment", port=1, handle_sigterm=True):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_only_the_main_thread_can_handle_signals(client: Client) -> None:
    caught: list[ValueError] = []

    def work() -> None:
        try:
            client.registry.register("payment", port=1, handle_sigterm=True)
        except ValueError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def schedule_of(*ttls: int) -> tuple[Schedule[RegistrationBase], list[RegistrationBase]]:
    schedule: Schedule[RegistrationBase] = Schedule()
    kept = []
    for port, ttl in enumerate(ttls, 1):
        wanted = wanted_instance(
            "s", endpoint=Endpoint.parse("127.0.0.1:1"), port=port, ports=None, address="h",
            id=f"i{port}", namespace="default", ttl=ttl, grace=0, drain=0, tags=(), zone="",
            region="", version="", weight=1, metadata=None, status=Status.UP, checks=(),
        )  # fmt: skip
        each = RegistrationBase(wanted, 0.0, lambda: 0.5)
        each._state = RegistrationState.REGISTERED
        each._due = each._next_beat(0.0)
        schedule.add(each)
        kept.append(each)
    return schedule, kept


def test_heartbeats_are_due_every_third_of_the_ttl() -> None:
    schedule, (each,) = schedule_of(9)
    assert schedule.next_wake() == pytest.approx(3.0)
    assert not schedule.due(2.99, 1).heartbeats
    work = schedule.due(3.0, 1)
    assert (work.heartbeats, work.registrations, work.timeout_s) == ([each], [], 3.0)
    each._beat(9, 3.0)
    assert schedule.next_wake() == pytest.approx(6.0)


def test_who_is_due_soon_goes_along() -> None:
    schedule, (first, second, third) = schedule_of(9, 9, 30)
    second._due = 3.5
    assert set(schedule.due(3.0, 1).heartbeats) == {first, second}
    third._due = 8.0
    assert set(schedule.due(3.0, 1).heartbeats) == {first, second, third}
    third._due = 8.1
    assert set(schedule.due(3.0, 1).heartbeats) == {first, second}


@pytest.mark.parametrize("apart", [0.3, 0.9, 1.4, 1.6, 2.5, 2.9])
def test_groups_that_began_apart_meet_within_two_rounds(apart: float) -> None:
    schedule, kept = schedule_of(9, 9, 9, 9)
    for each in kept[2:]:
        each._due += apart
    calls = []
    for _ in range(3):
        now = schedule.next_wake()
        assert now is not None
        calls.append(schedule.due(now, 1).heartbeats)
        for each in calls[-1]:
            each._beat(9, now)
    assert len(calls[-1]) == 4


def test_a_lost_one_is_registered_and_not_heard_of_in_between() -> None:
    schedule, (each,) = schedule_of(9)
    each._beat(0, 3.0)
    work = schedule.due(3.0, 1)
    assert (work.heartbeats, work.registrations) == ([], [each])
    pauses = []
    for _ in range(8):
        each._failed(UnavailableError("away"), 10.0)
        pauses.append(each._due - 10.0)
    assert pauses[:3] == [0.25, 0.5, 1.0]
    assert pauses[-1] == 5.0
