"""The running member as the front door sees it: the part of `node.Node` that API methods use.

A protocol rather than the class itself, so that services can be tried on any implementation.
Callbacks named `done` are called exactly once, on the loop, perhaps before the call returns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from enum import IntEnum
from typing import Any, Protocol

from kvstore.errors import EtcdError
from kvstore.node.config import NodeConfig
from kvstore.pb import rpc_pb2

__all__ = (
    "Answer",
    "Done",
    "HashAnswer",
    "LeaseTimes",
    "Member",
    "Node",
    "Status",
    "WatchHub",
    "WatchStream",
    "Write",
)

Done = Callable[[Any, EtcdError | None], None]
"""(value, None) or (None, error). The value is an `Answer`, or what the method's text says."""


class Write(IntEnum):
    """The replicated commands that API methods issue; numbers as in `machine.command`.

    Listed again because front doors do not import the machine; a test holds the two together.
    """

    PUT = 1
    DELETE_RANGE = 2
    TXN = 3
    COMPACT = 4
    LEASE_GRANT = 5
    LEASE_REVOKE = 6
    ALARM = 8


class Answer(Protocol):
    """What a write or read gives: the response message without its header field."""

    @property
    def revision(self) -> int:
        """Store revision for the header."""

    @property
    def body(self) -> bytes:
        """Encoded response message, header field left out."""


class LeaseTimes(Protocol):
    """A lease's times, whole seconds; `ttl` is −1 when there is no such lease."""

    @property
    def ttl(self) -> int: ...
    @property
    def granted_ttl(self) -> int: ...
    @property
    def keys(self) -> Sequence[bytes]: ...


class HashAnswer(Protocol):
    """A hash of the store's history and what it covers."""

    @property
    def hash(self) -> int: ...
    @property
    def compact_revision(self) -> int: ...
    @property
    def hash_revision(self) -> int: ...


class Member(Protocol):
    """A member of the cluster."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def peer_urls(self) -> Sequence[str]: ...
    @property
    def client_urls(self) -> Sequence[str]: ...
    @property
    def is_learner(self) -> bool: ...


class Status(Protocol):
    """A member's view of itself."""

    @property
    def version(self) -> str: ...
    @property
    def db_size(self) -> int: ...
    @property
    def db_in_use(self) -> int: ...
    @property
    def leader(self) -> int: ...
    @property
    def raft_index(self) -> int: ...
    @property
    def raft_term(self) -> int: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def errors(self) -> Sequence[str]: ...
    @property
    def is_learner(self) -> bool: ...
    @property
    def storage_version(self) -> str: ...
    @property
    def quota(self) -> int: ...


class WatchStream(Protocol):
    """One stream of the watch hub."""

    @property
    def accepts_requests(self) -> bool:
        """False while the client's requests should stay unread, until output was taken."""

    def request(self, message: rpc_pb2.WatchRequest) -> None: ...
    def take(self, max_messages: int, max_bytes: int) -> list[bytes]: ...
    def close(self) -> None: ...


class WatchHub(Protocol):
    """Where watch streams are opened."""

    def open(self, wake: Callable[[], None]) -> WatchStream: ...


class Node(Protocol):
    """One running member. Errors are EtcdError, raised by coroutines or given to `done`."""

    @property
    def cluster_id(self) -> int: ...
    @property
    def member_id(self) -> int: ...
    @property
    def config(self) -> NodeConfig: ...
    @property
    def leader_id(self) -> int:
        """0 when none is known."""

    @property
    def is_learner(self) -> bool: ...
    @property
    def revision(self) -> int: ...
    @property
    def stopped(self) -> bool: ...
    @property
    def watches(self) -> WatchHub: ...

    def header(self, revision: int) -> bytes:
        """The encoded header field (tag, length, ResponseHeader) of a response."""

    def write(self, kind: Any, payload: bytes, done: Done) -> None:
        """Replicates and applies a command (see `Write`); `done` gets an Answer."""

    def range(self, request: rpc_pb2.RangeRequest, done: Done) -> None:
        """Linearizable unless `request.serializable`; `done` gets an Answer."""

    def range_response(self, request: rpc_pb2.RangeRequest, done: Done) -> None:
        """Like `range`, but `done` gets the encoded RangeResponse, its header included."""

    def read_txn(self, request: rpc_pb2.TxnRequest, serializable: bool, done: Done) -> None:
        """A transaction that only reads; `done` gets an Answer."""

    def range_chunks(
        self, request: rpc_pb2.RangeRequest, max_bytes: int
    ) -> AsyncIterator[tuple[int, bytes, bool]]:
        """A range in pieces: (revision, RangeResponse without header, is the last)."""

    async def linearize(self) -> None:
        """Returns once this member's state is as new as the cluster's at the call."""

    def lease_keep_alive(self, lease_id: int, done: Done) -> None:
        """`done` gets the lease's TTL in seconds, 0 when there is no such lease."""

    async def lease_time_to_live(self, lease_id: int, keys: bool) -> LeaseTimes: ...
    def lease_list(self) -> Sequence[int]: ...
    def new_lease_id(self) -> int:
        """A positive 63-bit id that no other member gives out."""

    async def member_add(
        self, peer_urls: list[str], is_learner: bool
    ) -> tuple[Member, Sequence[Member]]: ...
    async def member_remove(self, member_id: int) -> Sequence[Member]: ...
    async def member_update(self, member_id: int, peer_urls: list[str]) -> Sequence[Member]: ...
    async def member_promote(self, member_id: int) -> Sequence[Member]: ...
    async def members(self, linearizable: bool) -> Sequence[Member]: ...

    def alarms(self) -> Sequence[tuple[int, int]]:
        """(member id, alarm type) of every active alarm."""

    async def hash_kv(self, revision: int) -> HashAnswer: ...
    async def hash(self) -> int: ...
    async def defragment(self) -> None: ...
    def when_swept(self, done: Callable[[], None]) -> None:
        """Calls `done` once this member's store holds nothing of what was compacted."""

    def snapshot_chunks(self, chunk: int) -> AsyncIterator[tuple[bytes, int]]:
        """The state as a file, in pieces: (bytes, how many bytes remain)."""

    async def move_leader(self, target: int, timeout_s: float) -> None: ...
    def status(self) -> Status: ...
    def over_quota(self, cost_bytes: int) -> bool:
        """True when a write of this cost does not fit; the alarm is raised then."""
