"""The client whose calls are awaited, on grpc.aio."""

from kvstore.client.aio.client import AsyncBoundTxn, AsyncClient
from kvstore.client.aio.lease import AsyncLease
from kvstore.client.aio.partitioner import AsyncPartitioner
from kvstore.client.aio.sync import (
    AsyncBarrier,
    AsyncCounter,
    AsyncDoubleBarrier,
    AsyncElection,
    AsyncLeadership,
    AsyncLock,
    AsyncLockingQueue,
    AsyncParty,
    AsyncQueue,
    AsyncReadLock,
    AsyncSemaphore,
    AsyncWriteLock,
)
from kvstore.client.aio.tree import AsyncTreeCache
from kvstore.client.aio.watch import AsyncWatch

__all__ = (
    "AsyncBarrier",
    "AsyncBoundTxn",
    "AsyncClient",
    "AsyncCounter",
    "AsyncDoubleBarrier",
    "AsyncElection",
    "AsyncLeadership",
    "AsyncLease",
    "AsyncLock",
    "AsyncLockingQueue",
    "AsyncPartitioner",
    "AsyncParty",
    "AsyncQueue",
    "AsyncReadLock",
    "AsyncSemaphore",
    "AsyncTreeCache",
    "AsyncWatch",
    "AsyncWriteLock",
)
