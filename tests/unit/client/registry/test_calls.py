"""The registry's plain calls and watches, on both clients, against a registry in memory."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from kvstore.client import AsyncClient, Client, InvalidRequestError, NotSupportedError
from kvstore.client.registry import Instance, Status
from tests.support.fake_registry import FakeRegistry
from tests.unit.client.registry.helpers import put

ONE = Instance(service="payment", id="a", address="10.0.0.1", ports={"http": 80}, zone="z1")


def test_register_find_and_deregister(client: Client) -> None:
    registry = client.registry
    result = registry.register_instance(ONE)
    assert result.created
    assert result.instance.target == "10.0.0.1:80"
    assert result.instance.ttl_s == 10
    assert not registry.register_instance(ONE).created
    assert [each.id for each in registry.get_instances("payment")] == ["a"]
    assert registry.heartbeat([result.instance.lease, 99]).ttl_s == (10, 0)
    down = registry.set_status("payment", "a", reported=Status.DOWN).instance
    assert (down.status, down.routable) == (Status.DOWN, False)
    gone = registry.deregister("payment", "a", wait=1)
    assert gone.existed
    assert gone.acknowledged is not None
    assert gone.acknowledged.everyone


def test_a_refusal_is_a_typed_error_with_the_reason(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="no port"):
        client.registry.register_instance(Instance(service="payment", address="h"))
    with pytest.raises(NotSupportedError):
        client.registry.list_namespaces()
    with pytest.raises(ValueError, match="one of"):
        client.registry.set_status("payment", "a")


def test_heartbeats_over_a_stream(client: Client) -> None:
    lease = client.registry.register_instance(ONE).instance.lease
    answers = client.registry.heartbeat_stream([[lease], [lease, 5]])
    assert [each.ttl_s for each in answers] == [(10,), (10, 0)]


def test_watch_tells_the_state_then_each_change(client: Client) -> None:
    client.registry.register_instance(ONE)
    with client.registry.watch("payment") as watch:
        first = next(watch)
        assert first.is_snapshot
        assert [each.id for each in first.snapshot] == ["a"]
        client.registry.deregister("payment", "a")
        (event,) = next(watch).events
        assert (event.event, event.left, event.instance.id) == ("deregistered", True, "a")
        assert watch.get(0.01) is None


def test_watch_goes_on_after_an_outage_where_it_was(fake: FakeRegistry, client: Client) -> None:
    with client.registry.watch("payment") as watch:
        assert next(watch).is_snapshot
        fake.stop()
        put(fake, "b")
        fake.start()
        update = watch.get(10)
        assert update is not None
        assert [event.instance.id for event in update.events] == ["b"]
        assert fake.watches_opened[-1].after_revision == 1


def test_a_refused_watch_raises(fake: FakeRegistry, client: Client) -> None:
    fake.fail["Watch"] = (grpc.StatusCode.INVALID_ARGUMENT, "bad name")
    with pytest.raises(InvalidRequestError, match="bad name"):
        client.registry.watch("Payment!")


def test_asyncio(fake: FakeRegistry) -> None:
    async def main() -> None:
        async with AsyncClient(fake.endpoint) as client:
            registry = client.registry
            await registry.register_instance(ONE)
            async with registry.watch("payment", subscriber="me") as watch:
                assert (await anext(watch)).is_snapshot
                gone = await registry.deregister("payment", "a", wait=5)
                assert gone.acknowledged is not None
                assert gone.acknowledged.acknowledged == 1
                assert (await anext(watch)).events[0].left
            answers = [each.ttl_s async for each in registry.heartbeat_stream([[1], [2]])]
            assert answers == [(0,), (0,)]
            open_one = await registry.watch("payment")
            await open_one.get(1)
        left = [each for each in asyncio.all_tasks() if each.get_name().startswith("kvstore")]
        assert not left

    asyncio.run(asyncio.wait_for(main(), 30))
