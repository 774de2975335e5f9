"""The client whose calls block, for programs with threads."""

from kvstore.client.blocking.client import BoundTxn, Client
from kvstore.client.blocking.lease import Lease
from kvstore.client.blocking.partitioner import Partitioner
from kvstore.client.blocking.sync import (
    Barrier,
    Counter,
    DoubleBarrier,
    Election,
    Leadership,
    Lock,
    LockingQueue,
    Party,
    Queue,
    ReadLock,
    Semaphore,
    WriteLock,
)
from kvstore.client.blocking.tree import TreeCache
from kvstore.client.blocking.watch import Watch

__all__ = (
    "Barrier",
    "BoundTxn",
    "Client",
    "Counter",
    "DoubleBarrier",
    "Election",
    "Leadership",
    "Lease",
    "Lock",
    "LockingQueue",
    "Partitioner",
    "Party",
    "Queue",
    "ReadLock",
    "Semaphore",
    "TreeCache",
    "Watch",
    "WriteLock",
)
