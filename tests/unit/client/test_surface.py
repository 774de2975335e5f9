"""Both clients offer the same things under the same names with the same arguments."""

from __future__ import annotations

import inspect

import pytest

import kvstore.client
from kvstore.client import (
    AsyncBarrier,
    AsyncClient,
    AsyncCounter,
    AsyncDoubleBarrier,
    AsyncElection,
    AsyncLeadership,
    AsyncLease,
    AsyncLock,
    AsyncLockingQueue,
    AsyncPartitioner,
    AsyncParty,
    AsyncQueue,
    AsyncReadLock,
    AsyncSemaphore,
    AsyncTreeCache,
    AsyncWatch,
    AsyncWriteLock,
    Barrier,
    Client,
    Counter,
    DoubleBarrier,
    Election,
    Leadership,
    Lease,
    Lock,
    LockingQueue,
    Partitioner,
    Party,
    Queue,
    ReadLock,
    Semaphore,
    TreeCache,
    Watch,
    WriteLock,
    operations,
)
from kvstore.client.base import _tls
from kvstore.client.registry import (
    AsyncRegistration,
    AsyncRegistry,
    AsyncRegistryWatch,
    AsyncResolver,
    Registration,
    Registry,
    RegistryWatch,
    Resolver,
)
from kvstore.client.registry import operations as registry_operations


def methods(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("blocking", "awaited"),
    [
        (Client, AsyncClient),
        (Watch, AsyncWatch),
        (Lease, AsyncLease),
        (Lock, AsyncLock),
        (Election, AsyncElection),
        (Leadership, AsyncLeadership),
        (Barrier, AsyncBarrier),
        (Counter, AsyncCounter),
        (DoubleBarrier, AsyncDoubleBarrier),
        (LockingQueue, AsyncLockingQueue),
        (Partitioner, AsyncPartitioner),
        (Party, AsyncParty),
        (Queue, AsyncQueue),
        (ReadLock, AsyncReadLock),
        (Semaphore, AsyncSemaphore),
        (TreeCache, AsyncTreeCache),
        (WriteLock, AsyncWriteLock),
        (Registry, AsyncRegistry),
        (RegistryWatch, AsyncRegistryWatch),
        (Registration, AsyncRegistration),
        (Resolver, AsyncResolver),
    ],
)
def test_same_methods_and_arguments(blocking: type, awaited: type) -> None:
    assert methods(blocking) == methods(awaited)
    for name in methods(blocking):
        one, other = getattr(blocking, name), getattr(awaited, name)
        if callable(one):
            here = inspect.signature(one).parameters.values()
            there = inspect.signature(other).parameters.values()
            assert [(p.name, p.kind, p.default) for p in here] == [
                (p.name, p.kind, p.default) for p in there
            ], name


def test_programs_become_methods_with_their_own_face() -> None:
    acquire = inspect.signature(Semaphore.holders)
    assert list(acquire.parameters) == ["self"]
    assert acquire.return_annotation == "tuple[Contender, ...]"
    assert LockingQueue.put.__doc__ == AsyncLockingQueue.put.__doc__
    assert str(inspect.signature(AsyncQueue.get)) == (
        "(self, timeout: 'float | None' = None) -> 'bytes | None'"
    )


def test_every_operation_is_a_method() -> None:
    inner = {"authenticate", "move_leader_at"}
    for name in set(operations.__all__) - inner:
        for client in (Client, AsyncClient):
            method = getattr(client, name)
            build = getattr(operations, name)
            assert method.__doc__ == build.__doc__
            parameters = list(inspect.signature(method).parameters)
            assert parameters == ["self", *inspect.signature(build).parameters]


def test_every_call_of_the_registry_is_a_method() -> None:
    for name in registry_operations.__all__:
        build = getattr(registry_operations, name)
        for registry in (Registry, AsyncRegistry):
            method = getattr(registry, name)
            assert method.__doc__ == build.__doc__
            parameters = list(inspect.signature(method).parameters)
            assert parameters == ["self", *inspect.signature(build).parameters]


def test_the_package_exports_what_it_says() -> None:
    for package in (kvstore.client, kvstore.client.registry):
        for name in package.__all__:
            assert hasattr(package, name)
        assert list(package.__all__) == sorted(package.__all__)


def test_settings_that_cannot_work_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="together"):
        Client("localhost", cert=b"pem")
    with pytest.raises(ValueError, match="no endpoint"):
        Client("")
    with pytest.raises(FileNotFoundError):
        _tls("/nonexistent/ca.pem", None, None)


def test_endpoints_are_shuffled_by_the_given_randomness() -> None:
    numbers = iter([0.9, 0.1])
    client = Client("a,b", random=lambda: next(numbers))
    assert list(client.endpoints) == ["b", "a"]
    client.set_endpoints("c")
    assert list(client.endpoints) == ["c"]
    assert Client("a,b", shuffle=False).endpoints == ("a", "b")
