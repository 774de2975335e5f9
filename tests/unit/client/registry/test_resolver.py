"""Resolvers: a cache fed by a watch, and calls that find another instance."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest

from kvstore.client import AsyncClient, Client, DeadlineError
from kvstore.client.registry import (
    NO_RETRY,
    Change,
    CircuitBreaker,
    CircuitOpenError,
    ConsistentHash,
    Health,
    Instance,
    LeastRequests,
    NoInstanceError,
    OutlierPolicy,
    Outliers,
    Resolver,
    RetryPolicy,
    Selection,
    Status,
    convert,
    timeout_s,
)
from kvstore.pb import registry_pb2 as pb
from tests.support.fake_registry import FakeRegistry
from tests.unit.client.registry.helpers import put, wait_until

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")


@pytest.fixture
def resolver(fake: FakeRegistry, client: Client) -> Iterator[Resolver]:
    for id in "abc":
        put(fake, id)
    with client.registry.resolver("payment") as resolver:
        yield resolver.wait_ready(5)


def ids(resolver: Resolver) -> list[str]:
    return [each.id for each in resolver.instances()]


def test_changes_arrive_and_are_acknowledged(fake: FakeRegistry, resolver: Resolver) -> None:
    changes: list[Change] = []
    resolver.on_change(changes.append)
    assert ids(resolver) == ["a", "b", "c"]
    put(fake, "d")
    wait_until(lambda: ids(resolver) == ["a", "b", "c", "d"])
    put(fake, "b", pb.DRAINING)
    wait_until(lambda: ids(resolver) == ["a", "c", "d"])
    fake.remove("c")
    wait_until(lambda: ids(resolver) == ["a", "d"])
    put(fake, "a", weight=7)
    wait_until(lambda: resolver.instances()[0].weight == 7)
    joined, drained, gone, changed = changes
    assert [each.id for each in joined.joined] == ["d"]
    assert [each.status for each in drained.left] == [Status.DRAINING]
    assert [each.id for each in gone.left] == ["c"]
    assert [each.weight for each in changed.changed] == [7]
    wait_until(lambda: list(fake.acked.values()) == [fake.revision])


def test_who_leaves_is_picked_no_more_once_deregistering_returns(
    fake: FakeRegistry, client: Client, resolver: Resolver
) -> None:
    for id in "ab":
        done = client.registry.deregister("payment", id, wait=5)
        assert done.acknowledged is not None
        assert done.acknowledged.everyone
        assert id not in {resolver.pick().id for _ in range(10)}
    client.registry.deregister("payment", "c", wait=5)
    with pytest.raises(NoInstanceError, match="no healthy instance"):
        resolver.pick()


def test_it_keeps_answering_marked_stale_and_goes_on(
    fake: FakeRegistry, resolver: Resolver
) -> None:
    assert not resolver.stale
    fake.stop()
    wait_until(lambda: resolver.stale)
    assert resolver.last_error is not None
    assert ids(resolver) == ["a", "b", "c"]
    assert resolver.pick().id in "abc"
    fake.remove("a")
    fake.start()
    wait_until(lambda: not resolver.stale)
    assert ids(resolver) == ["b", "c"]
    assert fake.watches_opened[-1].after_revision == 4
    fake.stop()
    fake.remove("b")
    fake.kept_deltas = False
    fake.start()
    wait_until(lambda: ids(resolver) == ["c"])


def test_a_member_without_leader_makes_it_stale(fake: FakeRegistry, resolver: Resolver) -> None:
    fake.no_leader = True
    put(fake, "d")
    wait_until(lambda: len(ids(resolver)) == 4)
    assert resolver.stale


def test_an_older_answer_is_not_taken_unless_all_insist(
    fake: FakeRegistry, resolver: Resolver
) -> None:
    fake.stop()
    fake.kept_deltas = False
    fake.revision = 2
    fake.instances.pop("a")
    fake.start()
    wait_until(lambda: len(fake.watches_opened) >= 4)
    assert ids(resolver) == ["a", "b", "c"]
    wait_until(lambda: ids(resolver) == ["b", "c"])


def test_another_cluster_is_believed_at_once(fake: FakeRegistry, resolver: Resolver) -> None:
    fake.stop()
    fake.kept_deltas = False
    fake.cluster_id, fake.revision = 8, 1
    fake.instances.clear()
    fake.start()
    wait_until(lambda: not ids(resolver))


def test_waiting_for_a_cluster_that_is_away_says_why(fake: FakeRegistry, client: Client) -> None:
    fake.fail["Watch"] = (grpc.StatusCode.NOT_FOUND, "there is no namespace shop")
    with client.registry.resolver("payment", namespace="shop") as resolver:
        with pytest.raises(NoInstanceError, match="has not answered"):
            resolver.pick()
        wait_until(lambda: resolver.last_error)
        with pytest.raises(DeadlineError, match="no namespace shop"):
            resolver.wait_ready(0.05)
        del fake.fail["Watch"]
        resolver.wait_ready(5)


def test_all_of_them_when_none_is_healthy(fake: FakeRegistry, client: Client) -> None:
    put(fake, "a")
    anyone = Selection(health=Health.HEALTHY_OR_ELSE_ALL, prefer_zone="z")
    with client.registry.resolver("payment", selection=anyone) as resolver:
        resolver.wait_ready(5)
        message = pb.WatchResponse(
            revision=99, is_snapshot=True, header=pb.Header(cluster_id=7, revision=99)
        )
        for id, zone in (("b", ""), ("c", "z")):
            message.snapshot.append(
                pb.Instance(
                    name=pb.InstanceName(service="payment", id=id), zone=zone, status=pb.DOWN
                )
            )
        resolver.apply(convert.update(message))
        assert ids(resolver) == ["c", "b"]
        assert {resolver.pick().id for _ in range(4)} == {"b", "c"}


def test_a_call_goes_to_another_instance_when_it_was_not_sent(resolver: Resolver) -> None:
    asked: list[str] = []

    def work(instance: Instance) -> str:
        asked.append(instance.id)
        if len(asked) < 3:
            raise REFUSED
        return instance.id

    assert resolver.call(work) == asked[-1]
    assert len(set(asked)) == 3


def test_only_idempotent_calls_are_repeated_when_they_may_have_happened(
    resolver: Resolver,
) -> None:
    asked: Counter[bool] = Counter()

    def reset(idempotent: bool) -> None:
        asked[idempotent] += 1
        raise ConnectionResetError

    for idempotent in (False, True):
        with pytest.raises(ConnectionResetError):
            resolver.call(lambda _, i=idempotent: reset(i), idempotent=idempotent)
    assert asked == {False: 1, True: 3}


def test_errors_of_the_caller_and_spent_time_end_a_call(resolver: Resolver) -> None:
    asked: list[str] = []

    def work(instance: Instance) -> None:
        asked.append(instance.id)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        resolver.call(work, idempotent=True)
    assert len(asked) == 1
    with pytest.raises(ConnectionRefusedError):
        resolver.call(lambda _: (_ for _ in ()).throw(REFUSED), timeout=0.0)
    with pytest.raises(ConnectionRefusedError):
        resolver.call(lambda _: (_ for _ in ()).throw(REFUSED), retry=NO_RETRY)


def test_the_time_left_is_known_inside(resolver: Resolver) -> None:
    left = resolver.call(lambda _: timeout_s(), timeout=5.0)
    assert left is not None
    assert 4.0 < left <= 5.0
    short = resolver.call(lambda _: timeout_s(), timeout=5.0, retry=RetryPolicy(attempt_s=0.5))
    assert short is not None
    assert short <= 0.5
    assert resolver.call(lambda _: timeout_s()) is None


def test_who_keeps_failing_is_left_out(fake: FakeRegistry, client: Client) -> None:
    for id in "abc":
        put(fake, id)
    outliers = Outliers(OutlierPolicy(consecutive_failures=2, ejection_s=600))
    with client.registry.resolver("payment", outliers=outliers) as resolver:

        def work(instance: Instance) -> str:
            if instance.id == "b":
                raise TimeoutError
            return instance.id

        for _ in range(9):
            resolver.call(work, idempotent=True)
        assert outliers.ejected() == {"b"}
        assert {resolver.pick().id for _ in range(6)} == {"a", "c"}
        # Better one that may fail than one that has, in this call.
        assert resolver.pick(avoid={"a", "c"}).id == "b"
        assert resolver.pick(avoid={"a", "b", "c"}).id in "abc"


def test_keys_stay_and_requests_are_counted(fake: FakeRegistry, client: Client) -> None:
    for id in "abc":
        put(fake, id)
    with client.registry.resolver("payment", balancer=ConsistentHash()) as resolver:
        resolver.wait_ready(5)
        assert len({resolver.call(lambda i: i.id, key="user-1") for _ in range(5)}) == 1
    balancer = LeastRequests()
    with client.registry.resolver("payment", balancer=balancer) as resolver:
        seen = resolver.call(lambda i: balancer.under_way(i.id))
        assert seen == 1
        assert not sum(balancer.under_way(id) for id in "abc")


def test_a_breaker_around_calls(resolver: Resolver) -> None:
    breaker = CircuitBreaker("payment", at_least=2, open_s=60)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            resolver.call(lambda _: (_ for _ in ()).throw(TimeoutError()), breaker=breaker)
    with pytest.raises(CircuitOpenError):
        resolver.call(lambda i: i.id, breaker=breaker)


def test_a_failing_callback_harms_nobody(
    fake: FakeRegistry, resolver: Resolver, caplog: pytest.LogCaptureFixture
) -> None:
    resolver.on_change(lambda change: 1 / 0)
    put(fake, "d")
    wait_until(lambda: len(ids(resolver)) == 4)
    assert "on_change" in caplog.text


def test_nothing_is_left_after_close(fake: FakeRegistry) -> None:
    with Client(fake.endpoint) as client:
        resolver = client.registry.resolver("payment").wait_ready(5)
    assert resolver.stale
    assert not [t for t in threading.enumerate() if t.name.startswith("kvstore")]


def test_asyncio(fake: FakeRegistry) -> None:
    for id in "abc":
        put(fake, id)

    async def main() -> None:
        async with (
            AsyncClient(fake.endpoint) as client,
            client.registry.resolver("payment") as resolver,
        ):
            asked: list[str] = []

            async def work(instance: Instance) -> str:
                asked.append(instance.id)
                if len(asked) < 3:
                    raise REFUSED
                return instance.id

            assert await resolver.call(work) == asked[-1]
            assert len(set(asked)) == 3

            async def slow(instance: Instance) -> None:
                asked.append(instance.id)
                await asyncio.sleep(60)

            asked.clear()
            policy = RetryPolicy(attempt_s=0.05)
            with pytest.raises(TimeoutError):
                await resolver.call(slow, idempotent=True, retry=policy, timeout=5)
            assert len(set(asked)) == 3
            done = await client.registry.deregister("payment", "a", wait=5)
            assert done.acknowledged is not None
            assert done.acknowledged.everyone
            assert [each.id for each in resolver.instances()] == ["b", "c"]
            fake.stop()
            await asyncio.to_thread(wait_until, lambda: resolver.stale)
            assert resolver.pick().id in "bc"
            fake.start()
            await asyncio.to_thread(wait_until, lambda: not resolver.stale)
        left = [each for each in asyncio.all_tasks() if each.get_name().startswith("kvstore")]
        assert not left

    asyncio.run(asyncio.wait_for(main(), 30))
