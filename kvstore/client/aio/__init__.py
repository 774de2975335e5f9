"""The client whose calls are awaited, on grpc.aio."""

from kvstore.client.aio.client import AsyncBoundTxn, AsyncClient
from kvstore.client.aio.lease import AsyncLease
from kvstore.client.aio.sync import AsyncElection, AsyncLeadership, AsyncLock
from kvstore.client.aio.watch import AsyncWatch

__all__ = (
    "AsyncBoundTxn",
    "AsyncClient",
    "AsyncElection",
    "AsyncLeadership",
    "AsyncLease",
    "AsyncLock",
    "AsyncWatch",
)
