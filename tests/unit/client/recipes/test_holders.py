"""What locks of all kinds promise: exclusion, order, tokens, guards, loss, giving up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

from kvstore.client import (
    AsyncClient,
    Client,
    KvError,
    LeaseLostError,
    LeaseNotFoundError,
    LockCanceledError,
    LockTimeoutError,
    PreconditionError,
    Put,
)
from tests.unit.api.conftest import Local
from tests.unit.client.recipes.conftest import MakeClient, Spawn
from tests.unit.client.recipes.waiting import wait_until

KINDS = ("lock", "read_lock", "write_lock", "semaphore")


def make(client: Any, kind: str, name: str, **options: Any) -> Any:
    if kind == "semaphore":
        return client.semaphore(name, 1, **options)
    return getattr(client, kind)(name, **options)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_paused_owner_cannot_write(kind: str, client: Any, other: Any, name: str) -> None:
    """The owner sleeps, its lease ends, another one owns: its late write is refused."""
    owner = make(client, kind, name, ttl=30).acquire()
    guard, token = owner.guard(), owner.fencing_token
    other.lease_revoke(owner.lease.id)  # as if it had expired while the owner was asleep
    with make(other, kind, name, ttl=30) as successor:
        assert successor.fencing_token > token
        assert other.txn().when(successor.guard()).then(Put(name, "new")).commit().succeeded
        assert not client.txn().when(guard).then(Put(name, "old")).commit().succeeded
        assert client.get(name).value == b"new"


def test_loss_is_told(kind: str, client: Any, other: Any, name: str) -> None:
    held = make(client, kind, name, ttl=2).acquire()
    held.check()
    told = threading.Event()
    held.lease.on_lost(told.set)
    other.lease_revoke(held.lease.id)
    assert held.lease.wait_lost(5)
    assert told.wait(5)
    assert (held.lost, held.held) == (True, False)
    with pytest.raises(LeaseLostError, match=f"{name}.*has ended, somebody else may hold it"):
        held.check()
    # And it can be acquired again, with a new lease.
    before = held.fencing_token
    assert held.acquire().fencing_token > before
    held.release()


def test_misuse_is_explained(kind: str, client: Any, spawn: Spawn, name: str) -> None:
    held = make(client, kind, name, ttl=30)
    with pytest.raises(KvError, match=f"{name}' is not held by this object"):
        _ = held.fencing_token
    held.release()
    with held, pytest.raises(PreconditionError, match="is not reentrant: release it first"):
        held.acquire()
    if kind == "read_lock":
        return
    with make(client, kind, name, ttl=30):
        waiting = spawn(held.acquire)
        wait_until(lambda: len(held.contenders()) == 2)
        with pytest.raises(PreconditionError, match="acquiring already, in another thread"):
            held.acquire()
    waiting.result(5)
    held.release()


def test_entering_what_was_just_acquired(kind: str, server: Local, spawn: Spawn, name: str) -> None:
    with Client(server.target) as client:
        lock = make(client, kind, name, ttl=30)
        with lock.acquire(timeout=5) as same:
            assert same is lock
            with pytest.raises(PreconditionError, match="is not reentrant"), lock:
                pass
        assert not lock.held
        assert lock.try_acquire()
        with pytest.raises(PreconditionError, match="is not reentrant"):
            spawn(lock.__enter__).result(5)  # another thread has acquired nothing
        with lock:
            pass
        assert not lock.held

    async def main() -> None:
        async with AsyncClient(server.target) as client:
            lock = make(client, kind, name, ttl=30)
            async with await lock.acquire(timeout=5):
                with pytest.raises(PreconditionError, match="is not reentrant"):
                    await lock.__aenter__()
            assert await lock.try_acquire()
            with pytest.raises(PreconditionError, match="is not reentrant"):
                await asyncio.create_task(lock.__aenter__())
            async with lock:
                pass
            assert not lock.held

    asyncio.run(main())


def test_giving_up_leaves_nothing(
    kind: str, client: Any, other: Any, spawn: Spawn, name: str
) -> None:
    leases = set(client.leases().ids)
    blocker = "write_lock" if kind == "read_lock" else kind
    keys = lambda: client.get_prefix(f"{name}/").count  # noqa: E731
    with make(client, blocker, name, ttl=30, identifier="first"):
        inside = keys()
        assert not make(other, kind, name, ttl=30).try_acquire()
        with pytest.raises(LockTimeoutError, match=f"{name}.*within 0.05 s"):
            make(other, kind, name, ttl=30).acquire(timeout=0.05)
        with other.lease(30) as given:
            with pytest.raises(LockTimeoutError):
                make(other, kind, name, lease=given).acquire(timeout=0.05)
            assert keys() == inside
            waiting = make(other, kind, name, lease=given)
            done = spawn(waiting.acquire)
            wait_until(lambda: keys() > inside)
            waiting.cancel()
            with pytest.raises(LockCanceledError, match=r"cancel\(\) was called"):
                done.result(5)
            assert keys() == inside
            assert not given.lost
    assert set(client.leases().ids) == leases


def test_who_is_before_us_is_told(client: Any, name: str) -> None:
    with client.lock(name, identifier="node-7", ttl=30) as held:
        wanted = f"before us: node-7, key {name}/{held.lease.id:x}, lease {held.lease.id:x}"
        with pytest.raises(LockTimeoutError, match=wanted):
            client.lock(name).acquire(timeout=0.02)


def test_waiting_ends_with_the_own_lease(
    kind: str, client: Any, other: Any, spawn: Spawn, name: str
) -> None:
    blocker = "write_lock" if kind == "read_lock" else kind
    with make(client, blocker, name, ttl=30), other.lease(30) as mine:
        waiting = spawn(make(other, kind, name, lease=mine).acquire)
        wait_until(lambda: len(client.lease_time_to_live(mine.id, keys=True).keys) == 1)
        client.lease_revoke(mine.id)
        with pytest.raises(LeaseNotFoundError):
            mine.refresh()  # the next renewal would find it out as well
        with pytest.raises(LeaseLostError):
            waiting.result(5)


def test_waiting_ends_with_the_client(
    client: Any, make_client: MakeClient, spawn: Spawn, name: str
) -> None:
    doomed = make_client()
    with client.lock(name, ttl=30):
        waiting = spawn(doomed.lock(name, ttl=30).acquire)
        wait_until(lambda: client.get_prefix(f"{name}/").count == 2)
        doomed.close()
        with pytest.raises(KvError):
            waiting.result(5)


def test_first_come_first_served(make_client: MakeClient, spawn: Spawn, name: str) -> None:
    """Waiters are served in order, with growing tokens, also past one that died."""
    clients = [make_client() for _ in range(3)]
    first = clients[0].lock(name, ttl=30).acquire()
    locks = [clients[i % 3].lock(name, ttl=30, identifier=str(i)) for i in range(6)]
    order: list[tuple[bytes, int]] = []
    waiting: list[Future[Any]] = []

    def hold(lock: Any) -> None:
        with lock:
            order.append((lock.contenders()[0].identifier, lock.fencing_token))

    for i, lock in enumerate(locks):
        waiting.append(spawn(hold, lock))
        wait_until(lambda i=i: len(first.contenders()) == i + 2)  # type: ignore[misc]
    assert [each.identifier for each in first.contenders()[1:]] == [b"%d" % i for i in range(6)]
    dead = first.contenders()[3]
    clients[0].lease_revoke(dead.lease_id)
    first.release()
    for i, each in enumerate(waiting):
        if i == 2:
            with pytest.raises(KvError):
                each.result(5)
        else:
            each.result(5)
    assert [who for who, _ in order] == [b"0", b"1", b"3", b"4", b"5"]
    tokens = [token for _, token in order]
    assert tokens == sorted(set(tokens))


def test_exclusion_is_counted(make_client: MakeClient, spawn: Spawn, name: str) -> None:
    """Four clients, many acquisitions, some owners die: never two inside at a time."""
    counting = threading.Lock()
    inside: set[int] = set()
    most, tokens = 0, []

    def work(client: Any, number: int) -> None:
        nonlocal most
        for turn in range(5):
            lock = client.lock(name, ttl=30).acquire(timeout=20)
            with counting:
                inside.add(number)
                most = max(most, len(inside))
                tokens.append(lock.fencing_token)
            with counting:
                inside.discard(number)
            if turn == 2:
                client.lease_revoke(lock.lease.id)  # dies with the lock in its hands
            else:
                lock.release()

    jobs = [spawn(work, make_client(), i) for i in range(4)]
    for each in jobs:
        each.result(30)
    assert most == 1
    assert len(set(tokens)) == 20
    assert tokens == sorted(tokens)


def test_one_release_wakes_one(
    server: Local, make_client: MakeClient, spawn: Spawn, name: str
) -> None:
    """Everyone who waits watches one key; who is released wakes the next one only."""
    client = make_client()
    first = client.lock(name, ttl=30).acquire()
    waiters = [client.lock(name, ttl=30) for _ in range(8)]
    waiting = [spawn(each.acquire) for each in waiters]
    watchers = lambda: server.thread.call(lambda: server.node.watches.watchers)  # noqa: E731
    wait_until(lambda: watchers() == 8)
    first.release()
    for left in range(7, -1, -1):
        wait_until(partial(_as_many, left, watchers, waiting))
        (holder,) = [each for each in waiters if each.held]
        holder.release()


def _as_many(left: int, watchers: Callable[[], int], waiting: list[Future[Any]]) -> bool:
    return watchers() == left and sum(not each.done() for each in waiting) == left


def test_a_canceled_task_gives_up_its_place(kind: str, server: Local, name: str) -> None:
    async def main() -> None:
        async with AsyncClient(server.target) as client:
            leases = set((await client.leases()).ids)
            async with make(client, "write_lock" if kind == "read_lock" else kind, name, ttl=30):
                inside = (await client.get_prefix(f"{name}/")).count
                waiting = make(client, kind, name, ttl=30)
                async with client.watch(f"{name}/", prefix=True) as changes:
                    task = asyncio.create_task(waiting.acquire())
                    assert await changes.get(timeout=5)  # it stands in the line
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert (await client.get_prefix(f"{name}/")).count == inside
            assert set((await client.leases()).ids) == leases

    asyncio.run(main())


def test_a_lease_must_be_granted_first() -> None:
    async def main() -> None:
        async with AsyncClient("127.0.0.1:1") as client:
            with pytest.raises(ValueError, match="await it first"):
                await client.lock("l", lease=client.lease(5)).acquire()

    asyncio.run(main())
