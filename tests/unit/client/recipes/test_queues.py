"""Queues and counters: nothing is lost, nothing is done twice, order is kept."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kvstore.client import LeaseLostError, PreconditionError
from tests.unit.client.recipes.conftest import MakeClient, Spawn
from tests.unit.client.recipes.waiting import notice_loss, wait_until

QUEUES = ("queue", "locking_queue")


@pytest.fixture(params=QUEUES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def take(queue: Any, kind: str, timeout: float | None) -> Any:
    value = queue.get(timeout=timeout)
    if kind == "locking_queue" and value is not None:
        queue.consume()
    return value


def test_order_is_by_priority_then_by_arrival(
    kind: str, client: Any, other: Any, name: str
) -> None:
    queue, theirs = getattr(client, kind)(name), getattr(other, kind)(name)
    queue.put("c")
    theirs.put("d")  # knows nothing of the first put
    queue.put_all(["e", "f"])
    theirs.put("a", priority=5)
    queue.put("b", 5)
    theirs.put("z", priority=999)
    queue.put_all([])
    assert queue.size() == 7
    taken = [take(theirs, kind, 0) for _ in range(8)]
    assert taken == [b"a", b"b", b"c", b"d", b"e", b"f", b"z", None]
    assert theirs.get(timeout=0.02) is None
    with pytest.raises(ValueError, match="between 0 and 999"):
        queue.put("x", 1000)
    assert set(queue_keys(client, name)) == {b"sequence"}


def queue_keys(client: Any, name: str) -> list[bytes]:
    found = client.get_prefix(f"{name}/", keys_only=True)
    return [kv.key.removeprefix(f"{name}/".encode()) for kv in found]


def test_each_entry_goes_to_one_consumer(
    kind: str, make_client: MakeClient, spawn: Spawn, name: str
) -> None:
    """Consumers wait before there is anything; producers put at the same time."""
    clients = [make_client() for _ in range(3)]

    def consume(client: Any) -> list[bytes]:
        queue = getattr(client, kind)(name, ttl=30)
        taken = []
        while (value := take(queue, kind, 20)) != b"end":
            taken.append(value)
        return taken

    def produce(client: Any, number: int) -> None:
        queue = getattr(client, kind)(name)
        for turn in range(8):
            queue.put(f"{number}-{turn}")

    consuming = [spawn(consume, each) for each in clients for _ in range(2)]
    for each in [spawn(produce, clients[i], i) for i in range(3)]:
        each.result(30)
    getattr(clients[0], kind)(name).put_all(["end"] * 6, priority=999)
    taken = [value for each in consuming for value in each.result(60)]
    assert sorted(taken) == sorted(b"%d-%d" % (i, j) for i in range(3) for j in range(8))
    wait_until(lambda: queue_keys(clients[0], name) == [b"sequence"])


def test_waiting_consumers_stand_in_line(
    client: Any, other: Any, spawn: Spawn, name: str, kind: str
) -> None:
    waiting = []
    for i in range(3):
        waiting.append(spawn(take, getattr(other, kind)(name, ttl=30), kind, 10))
        wait_until(lambda i=i: len(queue_keys(client, name)) == i + 1)  # type: ignore[misc]
    queue = getattr(client, kind)(name)
    for i in range(3):
        queue.put(str(i))
        assert waiting[i].result(5) == b"%d" % i


def test_an_entry_comes_back_when_its_consumer_dies(
    client: Any, other: Any, spawn: Spawn, name: str
) -> None:
    queue, theirs = client.locking_queue(name, ttl=30), other.locking_queue(name, ttl=30)
    queue.put_all(["first", "second"])
    assert queue.get() == b"first"
    assert queue.held
    with pytest.raises(PreconditionError, match="is held by this object already"):
        queue.get()
    assert theirs.get() == b"second"
    before, guard = queue.fencing_token, queue.guard()
    theirs.consume()
    waiting = spawn(theirs.get)
    wait_until(lambda: len(theirs.contenders()) == 2)
    other.lease_revoke(queue.lease.id)
    assert waiting.result(5) == b"first"
    assert theirs.fencing_token > before
    assert not client.txn().when(guard).commit().succeeded
    # The paused consumer cannot consume what another works on.
    with pytest.raises(LeaseLostError, match="the entry went back"):
        queue.consume()
    assert theirs.size() == 1
    theirs.release()
    assert queue.get(timeout=0) == b"first"
    other.lease_revoke(queue.lease.id)
    notice_loss(queue)
    assert queue.lost
    with pytest.raises(LeaseLostError, match="somebody else may hold it now"):
        queue.consume()
    assert theirs.get(timeout=5) == b"first"
    theirs.consume()
    assert (queue.size(), queue.get(timeout=0)) == (0, None)


def test_a_given_lease_is_not_ended(client: Any, name: str) -> None:
    with client.lease(30) as lease:
        for queue in (client.queue(name, lease=lease), client.locking_queue(name, lease=lease)):
            assert queue.get(timeout=0.02) is None
            queue.put("v")
            assert queue.get(timeout=1) == b"v"
        queue.release()
        assert queue.get() == b"v"
        queue.consume()
        assert client.lease_time_to_live(lease.id, keys=True).keys == ()
        assert not lease.lost


def test_a_counter_loses_nothing(make_client: MakeClient, spawn: Spawn, name: str) -> None:
    clients = [make_client() for _ in range(4)]

    def work(client: Any, delta: int) -> None:
        counter = client.counter(name)
        for _ in range(10):
            counter.add(delta)

    for each in [spawn(work, clients[i], 1 + i) for i in range(4)]:
        each.result(30)
    counter = clients[0].counter(name)
    assert counter.value() == 100
    assert counter.add(-101) == -1
    assert (counter.pre_value, counter.post_value) == (100, -1)
    assert clients[1].get(name).value == b"-1"


def test_counters_of_either_kind(client: Any, name: str) -> None:
    real = client.counter(name, default=1.5)
    assert real.value() == 1.5
    assert real.add(1) == 2.5
    assert real.add(0.25) == 2.75
    with pytest.raises(TypeError, match="finite numbers, not nan"):
        real.add(math.nan)
    with pytest.raises(TypeError, match=r"whole numbers, not 1\.5"):
        client.counter(name).add(1.5)
    with pytest.raises(TypeError, match="default must be int or float, not 'x'"):
        client.counter(name, default="x")
    with pytest.raises(PreconditionError, match=r"holds '2\.75', which is no int; is"):
        client.counter(name).add(1)
    assert client.get(name).value == b"2.75"
