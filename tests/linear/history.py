"""What is recorded while a store is used: requests, answers, watch streams, and their times.

The simulator and the tests of real processes record into these types; every checker of this
package reads them. Keys and values are bytes. Times are integers of one monotonic clock
(nanoseconds, virtual or real); only their order counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

TO_THE_END = b"\0"  # as the end of a range: every key from the first one on

Target = Literal["value", "version", "create", "mod", "lease"]
Relation = Literal["=", "!=", "<", ">"]
Kind = Literal["put", "delete"]


class Outcome(Enum):
    """What the client knows of its request once it stopped waiting."""

    OK = "ok"
    REFUSED = "refused"  # answered with an error that promises: it has had no effect and never will
    UNKNOWN = "unknown"  # timed out or cut off: it may happen at any later time, once, or never


# ------------------------------------------------------------------------------------ requests


@dataclass(frozen=True, slots=True)
class Put:
    key: bytes
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Range:
    """`end` None reads one key. `revision` 0 reads the present, a positive one the past."""

    key: bytes
    end: bytes | None = None
    serializable: bool = False
    revision: int = 0
    limit: int = 0
    count_only: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    key: bytes
    end: bytes | None = None


@dataclass(frozen=True, slots=True)
class Compare:
    """`operand` is bytes for the target "value" and an integer for every other."""

    key: bytes
    target: Target
    relation: Relation
    operand: bytes | int


@dataclass(frozen=True, slots=True)
class Txn:
    compares: tuple[Compare, ...] = ()
    success: tuple[Put | Range | Delete | Txn, ...] = ()
    failure: tuple[Put | Range | Delete | Txn, ...] = ()


@dataclass(frozen=True, slots=True)
class Compact:
    revision: int


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """The id is chosen by the client, or filled in by the recorder from the answer."""

    lease_id: int
    ttl_s: int


@dataclass(frozen=True, slots=True)
class LeaseRevoke:
    lease_id: int
    ttl_s: int = 0  # without meaning here; one shape for both lease requests


Request = Put | Range | Delete | Txn | Compact | LeaseGrant | LeaseRevoke

# ------------------------------------------------------------------------------------- answers


@dataclass(frozen=True, slots=True)
class KV:
    """One key as a read shows it; `create`, `mod` are revisions, `lease` 0 means none."""

    key: bytes
    value: bytes
    create: int
    mod: int
    version: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """`revision` is the header's. `parts` are the answers to the operations of a transaction's
    branch, in order; their revision may be 0, which says nothing."""

    revision: int
    kvs: tuple[KV, ...] = ()
    count: int = 0
    deleted: int = 0
    succeeded: bool | None = None
    parts: tuple[Response, ...] = ()


@dataclass(slots=True)
class Operation:
    """One request of one client, from the moment before it was sent to the one after its answer.

    `ret` is None when no answer came (the outcome is then UNKNOWN) and counts as infinitely late.
    `error` is the server's message, word for word. Models other than the store's bring request
    and response types of their own.
    """

    client: int
    call: int
    request: Any
    ret: int | None = None
    outcome: Outcome = Outcome.UNKNOWN
    response: Any = None
    error: str = ""


# ------------------------------------------------------------------------------------- watches


@dataclass(frozen=True, slots=True)
class Event:
    """A change of one key. A delete's `kv` holds only its key and, in `mod`, its revision."""

    kind: Kind
    kv: KV
    prev: KV | None = None


# The event log: every revision that changed something, in order, with all its events.
Witness = Sequence[tuple[int, tuple[Event, ...]]]


@dataclass(frozen=True, slots=True)
class WatchResponse:
    """`at` is when the client received it; `fragment` says that more of the same one follows."""

    at: int
    revision: int
    events: tuple[Event, ...] = ()
    progress: bool = False
    fragment: bool = False
    canceled: bool = False
    compact_revision: int = 0
    created: bool = False


@dataclass(slots=True)
class WatchRecord:
    """One watch as its client saw it, from its creation to the end of its stream.

    A client that reconnects begins another record, with the start revision it resumes from.
    `filters` holds the kinds of event ("put", "delete") that were not wanted.
    """

    client: int
    key: bytes
    end: bytes | None
    start_revision: int
    prev_kv: bool = False
    filters: frozenset[str] = frozenset()
    responses: list[WatchResponse] = field(default_factory=list)


def covers(key: bytes, end: bytes | None, candidate: bytes) -> bool:
    """Whether a range as requests name it holds the candidate key."""
    if end is None:
        return candidate == key
    return candidate >= key and (end == TO_THE_END or candidate < end)


def deleted(key: bytes, revision: int) -> KV:
    """The pair that a delete event carries."""
    return KV(key, b"", 0, revision, 0)
