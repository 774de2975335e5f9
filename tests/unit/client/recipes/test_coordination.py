"""Read/write locks, semaphores, elections, barriers and parties among several clients."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from kvstore.client import (
    Client,
    ElectionError,
    LeaseLostError,
    LockCanceledError,
    LockTimeoutError,
    PreconditionError,
)
from tests.unit.client.recipes.conftest import MakeClient, Spawn
from tests.unit.client.recipes.waiting import notice_loss, wait_until


def test_readers_share_and_writers_do_not(client: Any, other: Any, spawn: Spawn, name: str) -> None:
    one = client.read_lock(name, ttl=30, identifier="r1").acquire()
    two = other.read_lock(name, ttl=30, identifier="r2").acquire()
    assert not other.write_lock(name).try_acquire()
    writer = other.write_lock(name, ttl=30, identifier="w")
    writing = spawn(writer.acquire)
    wait_until(lambda: len(one.contenders()) == 3)
    # A reader behind a waiting writer waits, or writers would starve.
    late = client.read_lock(name, ttl=30, identifier="r3")
    assert not late.try_acquire()
    reading = spawn(late.acquire)
    wait_until(lambda: len(one.contenders()) == 4)
    assert [each.identifier for each in one.contenders()] == [b"r1", b"r2", b"w", b"r3"]
    one.release()
    assert not writing.done()
    two.release()
    writing.result(5)
    assert not reading.done()
    before = writer.fencing_token
    writer.release()
    reading.result(5)
    assert late.fencing_token > before
    late.release()


def test_upgrading_is_refused_not_a_deadlock(client: Any, name: str) -> None:
    with client.lease(30) as lease:
        reader, writer = client.read_lock(name, lease=lease), client.write_lock(name, lease=lease)
        reader.acquire()
        with pytest.raises(PreconditionError, match="would wait for itself"):
            writer.acquire()
        reader.release()
        writer.acquire()
        with pytest.raises(PreconditionError, match="use another lease"):
            reader.acquire()
        writer.release()
    assert client.get_prefix(f"{name}/").count == 0


def test_a_semaphore_has_so_many_places(make_client: MakeClient, spawn: Spawn, name: str) -> None:
    counting = threading.Lock()
    together = threading.Barrier(3)
    inside = most = 0

    def work(client: Any) -> None:
        nonlocal inside, most
        for _ in range(3):
            with client.semaphore(name, 3, ttl=30):
                together.wait(20)  # three can be inside at once
                with counting:
                    inside += 1
                    most = max(most, inside)
                together.wait(20)
                with counting:
                    inside -= 1

    clients = [make_client() for _ in range(3)]
    for each in [spawn(work, clients[i % 3]) for i in range(9)]:
        each.result(30)
    assert most == 3
    assert clients[0].get_prefix(f"{name}/", keys_only=True).kvs[0].key == f"{name}/limit".encode()


def test_a_semaphores_number_is_agreed(client: Any, other: Any, name: str) -> None:
    held = client.semaphore(name, 2, ttl=30, identifier="a").acquire()
    with pytest.raises(PreconditionError, match="in use with max_leases 2, not 5; all its users"):
        other.semaphore(name, 5).acquire()
    with other.semaphore(name, 2, ttl=30, identifier="b") as second:
        assert [each.identifier for each in second.holders()] == [b"a", b"b"]
        with pytest.raises(LockTimeoutError, match="all 2 places are taken"):
            other.semaphore(name, 2).acquire(timeout=0.05)
        with other.lease(30) as lease, pytest.raises(LockTimeoutError):
            other.semaphore(name, 2, lease=lease).acquire(timeout=0.05)
        assert len(second.contenders()) == 2
    held.release()
    with other.semaphore(name, 5, ttl=30) as bigger:  # unused: a new number can be agreed
        assert bigger.max_leases == 5
    with pytest.raises(ValueError, match="must be 1 or more, not 0"):
        client.semaphore(name, 0)
    with client.lease(30) as lease, client.semaphore(name, 2, lease=lease) as one:
        with pytest.raises(PreconditionError, match="is inside already"):
            client.semaphore(name, 2, lease=lease).acquire()
        assert len(one.contenders()) == 1


def test_a_dead_holders_place_is_free(client: Any, other: Any, spawn: Spawn, name: str) -> None:
    first = client.semaphore(name, 2, ttl=30).acquire()
    client.semaphore(name, 2, ttl=30).acquire()
    waiting = spawn(other.semaphore(name, 2, ttl=30).acquire)
    wait_until(lambda: len(first.contenders()) == 3)
    client.lease_revoke(first.lease.id)
    waiting.result(5).release()


def test_an_election(client: Any, other: Any, spawn: Spawn, name: str) -> None:
    election, rival = client.election(name), other.election(name)
    with pytest.raises(ElectionError):
        election.leader()
    first = election.campaign("a", ttl=30)
    seen = rival.observe()
    assert next(seen).value == b"a"
    campaigning = spawn(rival.campaign, "b", ttl=30)
    wait_until(lambda: len(election.contenders()) == 2)
    assert [each.identifier for each in rival.contenders()] == [b"a", b"b"]
    first.proclaim("a, busy")
    assert next(seen).value == b"a, busy"
    first.resign()
    second = campaigning.result(5)
    assert next(seen).value == b"b"
    assert second.fencing_token > 0
    assert election.leader().create_revision == second.fencing_token
    waiting = spawn(election.campaign, "a again", ttl=30)
    wait_until(lambda: len(election.contenders()) == 2)
    election.cancel()
    with pytest.raises(LockCanceledError):
        waiting.result(5)
    client.lease_revoke(second.lease.id)
    with pytest.raises(ElectionError):
        election.leader()
    notice_loss(second)
    with pytest.raises(LeaseLostError):
        second.proclaim("still me")


def test_leading_for_the_length_of_a_call(client: Any, name: str) -> None:
    def work(leadership: Any) -> Any:
        return leadership.key

    async def awaited(leadership: Any) -> Any:
        return leadership.key

    key = client.election(name).run("me", work if isinstance(client, Client) else awaited)
    assert key.startswith(f"{name}/".encode())
    assert client.get_prefix(f"{name}/").count == 0


def test_a_barrier(client: Any, other: Any, spawn: Spawn, name: str) -> None:
    barrier = client.barrier(name)
    assert barrier.wait(timeout=1)  # there is none
    assert barrier.create()
    assert not other.barrier(name).create()
    assert not barrier.wait(timeout=0.02)
    waiting = [spawn(other.barrier(name).wait) for _ in range(3)]
    assert barrier.remove()
    assert all(each.result(5) for each in waiting)
    assert not barrier.remove()


def test_a_double_barrier_again_and_again(make_client: MakeClient, spawn: Spawn, name: str) -> None:
    """Nobody is inside before all are there; nobody is out before all end; rounds do not mix."""
    rounds = 4
    counting = threading.Lock()
    entered, left = [0] * rounds, [0] * rounds
    wrong: list[str] = []

    def work(client: Any) -> None:
        barrier = client.double_barrier(name, 3, ttl=30)
        for turn in range(rounds):
            with counting:
                entered[turn] += 1
            barrier.enter(timeout=20)
            if entered[turn] != 3:
                wrong.append(f"in round {turn} with {entered[turn]} there")
            with counting:
                left[turn] += 1
            barrier.leave(timeout=20)
            if left[turn] != 3:
                wrong.append(f"out of round {turn} with {left[turn]} ended")

    for each in [spawn(work, make_client()) for _ in range(3)]:
        each.result(60)
    assert not wrong
    assert make_client().get_prefix(f"{name}/").count == 0


def test_a_double_barrier_with_deaths(client: Any, other: Any, spawn: Spawn, name: str) -> None:
    lonely = client.double_barrier(name, 2, ttl=30)
    with pytest.raises(LockTimeoutError, match="1 of 2 participants are here"):
        lonely.enter(timeout=0.05)
    assert client.get_prefix(f"{name}/").count == 0
    # One dies inside: the other one's leaving does not hang.
    entering = spawn(lonely.enter)
    dying = other.double_barrier(name, 2, ttl=30)
    dying.enter(timeout=5)
    entering.result(5)
    with pytest.raises(LockTimeoutError, match="others had not ended within"):
        lonely.leave(timeout=0.05)
    entering = spawn(lonely.enter)  # a new round must wait until the old one is over
    wait_until(lambda: len(dying.contenders()) == 1)
    assert not entering.done()
    client.lease_revoke(dying.lease.id)  # the last one inside dies and leaves `ready` behind
    late = client.double_barrier(name, 2, ttl=30)
    late.enter(timeout=5)
    entering.result(5)
    leaving = spawn(lonely.leave)
    late.leave(timeout=5)
    leaving.result(5)
    assert client.get_prefix(f"{name}/").count == 0


def test_a_party(client: Any, other: Any, name: str) -> None:
    here = client.party(name, "a", ttl=30)
    with here, other.party(name, "b", ttl=30) as there:
        here.join()  # twice is once
        assert [each.identifier for each in here.members()] == [b"a", b"b"]
        other.lease_revoke(here.lease.id)
        assert [each.identifier for each in there.members()] == [b"b"]
        notice_loss(here)
        assert here.lost
        here.join()
        assert [each.identifier for each in here.members()] == [b"b", b"a"]
    assert here.members() == ()
