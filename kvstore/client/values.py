"""What calls return: frozen values, built once from the protobuf answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

__all__ = (
    "Alarm",
    "AlarmType",
    "AlarmsResult",
    "DeleteResult",
    "EndpointHealth",
    "Event",
    "EventType",
    "HashResult",
    "Header",
    "KeyValue",
    "LeaseInfo",
    "LeaseList",
    "LeaseTimes",
    "Member",
    "MembersResult",
    "OpResult",
    "PutResult",
    "RangeResult",
    "SnapshotInfo",
    "SortOrder",
    "SortTarget",
    "Status",
    "TxnResult",
    "WatchFilter",
    "WatchResponse",
    "delete_result",
    "event",
    "header",
    "key_value",
    "member",
    "put_result",
    "range_result",
    "txn_result",
)


class SortOrder(IntEnum):
    """Direction of a sorted range."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(IntEnum):
    """Field a range is sorted by."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class EventType(IntEnum):
    """Kind of a change."""

    PUT = 0
    DELETE = 1


class WatchFilter(IntEnum):
    """Changes that a watch leaves out."""

    NO_PUT = 0
    NO_DELETE = 1


class AlarmType(IntEnum):
    """Reasons for a cluster to refuse writes; NONE stands for all of them in requests."""

    NONE = 0
    NOSPACE = 1
    CORRUPT = 2
    UNKNOWN = -1
    """One that this client does not know, in answers of a newer server."""

    @classmethod
    def _missing_(cls, value: object) -> AlarmType:
        return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class Header:
    """Who answered, and at which revision of the store (0 where the server gives none)."""

    cluster_id: int = 0
    member_id: int = 0
    revision: int = 0
    raft_term: int = 0


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One version of one key. `version` counts puts since creation; `lease` 0 is none."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


@dataclass(frozen=True, slots=True)
class RangeResult:
    """Keys of a range. `count` ignores limit and filters; `more` says the limit cut some off."""

    header: Header
    kvs: tuple[KeyValue, ...]
    more: bool
    count: int

    def __iter__(self) -> Iterator[KeyValue]:
        return iter(self.kvs)

    def __len__(self) -> int:
        return len(self.kvs)

    @property
    def first(self) -> KeyValue | None:
        """The first key, None when there is none."""
        return self.kvs[0] if self.kvs else None


@dataclass(frozen=True, slots=True)
class PutResult:
    """A key was written at `header.revision`."""

    header: Header
    prev_kv: KeyValue | None


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """`deleted` keys are gone since `header.revision`."""

    header: Header
    deleted: int
    prev_kvs: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class TxnResult:
    """Which branch ran, and the results of its operations in order."""

    header: Header
    succeeded: bool
    responses: tuple[OpResult, ...]


OpResult: TypeAlias = PutResult | RangeResult | DeleteResult | TxnResult


@dataclass(frozen=True, slots=True)
class Event:
    """One change. A DELETE's `kv` carries only key and mod_revision."""

    type: EventType
    kv: KeyValue
    prev_kv: KeyValue | None

    @property
    def is_create(self) -> bool:
        """A put that made a key which did not exist."""
        return self.type is EventType.PUT and self.kv.create_revision == self.kv.mod_revision

    @property
    def is_delete(self) -> bool:
        return self.type is EventType.DELETE


@dataclass(frozen=True, slots=True)
class WatchResponse:
    """Whole revisions of changes in order, or (`events` empty) a progress notification.

    After it, everything up to `revision` has been delivered.
    """

    header: Header
    events: tuple[Event, ...]
    revision: int

    @property
    def is_progress(self) -> bool:
        return not self.events


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """A granted lease; `ttl_s` may be above what was asked for (the server has a minimum)."""

    header: Header
    id: int
    ttl_s: int


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """What is left of a lease; `ttl_s` is -1 when there is no such lease."""

    header: Header
    id: int
    ttl_s: int
    granted_ttl_s: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LeaseList:
    """Ids of the living leases, as the answering member knows them."""

    header: Header
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the cluster; one that never started has no name and no client URLs."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


@dataclass(frozen=True, slots=True)
class MembersResult:
    """The membership after a call; `member` is the one a `member_add` added."""

    header: Header
    members: tuple[Member, ...]
    member: Member | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm raised by a member."""

    member_id: int
    type: AlarmType


@dataclass(frozen=True, slots=True)
class AlarmsResult:
    """Alarms that a call found, or changed."""

    header: Header
    alarms: tuple[Alarm, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """One member's own view of itself; `leader` 0 means it knows none."""

    endpoint: str
    header: Header
    version: str
    storage_version: str
    db_size_bytes: int
    db_in_use_bytes: int
    db_quota_bytes: int
    leader: int
    raft_index: int
    raft_applied_index: int
    raft_term: int
    is_learner: bool
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HashResult:
    """CRC-32C of a member's history up to `hash_revision`; equal members have equal hashes."""

    header: Header
    hash: int
    compact_revision: int
    hash_revision: int


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """Whether an endpoint serves linearizable reads; `error` says why not."""

    endpoint: str
    healthy: bool
    took_s: float
    error: str


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A complete, verified snapshot of `size_bytes` (its checksum included)."""

    size_bytes: int
    version: str
    sha256: str


def header(message: Any) -> Header:
    """From a ResponseHeader."""
    return Header(message.cluster_id, message.member_id, message.revision, message.raft_term)


def key_value(message: Any) -> KeyValue:
    """From an mvccpb.KeyValue."""
    return KeyValue(
        message.key,
        message.value,
        message.create_revision,
        message.mod_revision,
        message.version,
        message.lease,
    )


def _optional(message: Any, field: str) -> KeyValue | None:
    return key_value(getattr(message, field)) if message.HasField(field) else None


def range_result(message: Any) -> RangeResult:
    """From a RangeResponse."""
    return RangeResult(
        header(message.header), tuple(map(key_value, message.kvs)), message.more, message.count
    )


def put_result(message: Any) -> PutResult:
    """From a PutResponse."""
    return PutResult(header(message.header), _optional(message, "prev_kv"))


def delete_result(message: Any) -> DeleteResult:
    """From a DeleteRangeResponse."""
    return DeleteResult(
        header(message.header), message.deleted, tuple(map(key_value, message.prev_kvs))
    )


def txn_result(message: Any) -> TxnResult:
    """From a TxnResponse, nested ones included."""
    responses = tuple(
        _OP_RESULTS[kind](getattr(op, kind))
        for op in message.responses
        if (kind := op.WhichOneof("response")) is not None
    )
    return TxnResult(header(message.header), message.succeeded, responses)


_OP_RESULTS: dict[str, Any] = {
    "response_range": range_result,
    "response_put": put_result,
    "response_delete_range": delete_result,
    "response_txn": txn_result,
}


def event(message: Any) -> Event:
    """From an mvccpb.Event."""
    return Event(
        EventType.DELETE if message.type else EventType.PUT,
        key_value(message.kv),
        _optional(message, "prev_kv"),
    )


def member(message: Any) -> Member:
    """From a Member."""
    return Member(
        message.ID,
        message.name,
        tuple(message.peerURLs),
        tuple(message.clientURLs),
        message.isLearner,
    )
