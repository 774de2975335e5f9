"""The client whose calls block, for programs with threads."""

from kvstore.client.blocking.client import BoundTxn, Client
from kvstore.client.blocking.lease import Lease
from kvstore.client.blocking.sync import Election, Leadership, Lock
from kvstore.client.blocking.watch import Watch

__all__ = ("BoundTxn", "Client", "Election", "Leadership", "Lease", "Lock", "Watch")
