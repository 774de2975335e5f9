"""What stands in a log entry: one byte of kind, eight of request id, then the request's own bytes.

The payload is the client's protobuf request as it came, so nothing is decoded and encoded again
between the client and `apply`. Whatever must be decided once (lease ids, times) is decided by
the proposer and stands in the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import msgpack

__all__ = (
    "ABSENT",
    "ANY_REVISION",
    "BatchAction",
    "BatchFailure",
    "BatchItem",
    "BatchOutcome",
    "Command",
    "CommandError",
    "CommandKind",
    "batch_payload",
    "decode",
    "encode",
    "expiry_payload",
    "member_attributes_payload",
    "outcomes_body",
    "read_batch",
    "read_expiry",
    "read_member_attributes",
    "read_outcomes",
)


class CommandKind(IntEnum):
    """The kinds of command; the numbers are written to disk and never reused.

    20 to 39 are reserved for authentication, 40 to 59 for the registry.
    """

    PUT = 1
    DELETE_RANGE = 2
    TXN = 3
    COMPACT = 4
    LEASE_GRANT = 5
    """LeaseGrantRequest, its id already chosen."""
    LEASE_REVOKE = 6
    LEASE_EXPIRE = 7
    """See `expiry_payload`."""
    ALARM = 8
    MEMBER_ATTRIBUTES = 9
    """See `member_attributes_payload`."""
    CLUSTER_VERSION = 10
    """The version as text, "3.6.0"."""
    LEASE_CHECKPOINT = 11
    """LeaseCheckpointRequest."""
    BATCH = 40
    """See `batch_payload`."""


class BatchAction(IntEnum):
    """What an item of a BATCH does to its key; the numbers are written to disk."""

    PUT_KEEP = 0
    """Puts the value and keeps the lease that the key has, if any."""
    PUT_NEW_LEASE = 1
    """Grants a lease and puts the value on it; a lease that the key had before ends with the
    last of its keys."""
    PUT_LEASE = 2
    """Puts the value on a lease that exists."""
    DELETE = 3
    """Deletes the key; its lease ends with the last of its keys."""


class BatchFailure(IntEnum):
    """Why an item of a BATCH changed nothing."""

    NONE = 0
    CONFLICT = 1
    """The key is not as expected: the outcome tells its revision, 0 when it is absent."""
    LEASE_NOT_FOUND = 2
    LEASE_EXISTS = 3
    BAD_LEASE = 4
    """A lease cannot have this id (0) or this TTL."""
    NO_SPACE = 5
    """The database is full; what only deletes still applies."""
    VOID = 6
    """The whole batch was decided in another term."""


ANY_REVISION = -1
"""As `expected_mod`: whatever the key is, there or not."""
ABSENT = 0
"""As `expected_mod`: the key must not be there."""


class BatchItem(NamedTuple):
    """One change of a BATCH, judged by itself."""

    key: bytes
    expected_mod: int
    """The mod revision that the key must have, or ABSENT, or ANY_REVISION."""
    action: BatchAction
    value: bytes = b""
    lease: int = 0
    """For PUT_NEW_LEASE and PUT_LEASE."""
    ttl_s: int = 0
    """For PUT_NEW_LEASE."""
    reason: str = ""
    """Goes to the journal as it is."""


class BatchOutcome(NamedTuple):
    """What became of an item."""

    failure: BatchFailure
    revision: int
    """Applied: the batch's revision. Refused: the key's mod revision, 0 if it is absent."""


class CommandError(Exception):
    """A committed entry that this program cannot read: damaged, or from a newer version.

    Never answered to a client: a node that cannot apply what the others apply must stop.
    """


class Command(NamedTuple):
    """A decoded entry. `kind` stays a number: an unknown one is for `apply` to judge."""

    kind: int
    request_id: int
    payload: bytes


_HEAD = struct.Struct(">BQ")


def encode(kind: CommandKind, request_id: int, payload: bytes) -> bytes:
    """The data of a NORMAL entry. `request_id` is 0 to 2**64-1, chosen by the proposer."""
    return _HEAD.pack(kind, request_id) + payload


def decode(data: bytes) -> Command | None:
    """Reads an entry's data; None for the empty entry with which a leader begins its term."""
    if not data:
        return None
    if len(data) < _HEAD.size:
        raise CommandError(f"a log entry of {len(data)} bytes is shorter than a command's head")
    kind, request_id = _HEAD.unpack_from(data)
    return Command(kind, request_id, data[_HEAD.size :])


def expiry_payload(term: int, lease_ids: list[int], time_ms: int) -> bytes:
    """LEASE_EXPIRE: leases whose time is up, as seen by the leader of `term`.

    `time_ms` is the leader's wall clock (Unix time), for the journal.
    """
    packed: bytes = msgpack.packb([term, lease_ids, time_ms])
    return packed


def read_expiry(payload: bytes) -> tuple[int, list[int], int]:
    """Reads what `expiry_payload` wrote: (term, lease ids, time).

    The first logs carried no time: it is 0 then.
    """
    term, lease_ids, *rest = _unpack(payload, 2, 3)
    time_ms = rest[0] if rest else 0
    if type(term) is not int or type(time_ms) is not int or not _is_list_of(lease_ids, int):
        raise CommandError(f"an expiry should be a term and lease ids: {payload[:100]!r}")
    return term, lease_ids, time_ms


def batch_payload(time_ms: int, if_term: int, items: Sequence[BatchItem]) -> bytes:
    """BATCH: independent changes that share one revision.

    `time_ms` is the proposer's wall clock (Unix time). With `if_term` other than 0 the batch is
    void unless it is applied as an entry of that term.
    """
    packed: bytes = msgpack.packb([time_ms, if_term, items])
    return packed


def read_batch(payload: bytes) -> tuple[int, int, list[BatchItem]]:
    """Reads what `batch_payload` wrote: (time, term, items)."""
    time_ms, if_term, fields = _unpack(payload, 3)
    if type(time_ms) is not int or type(if_term) is not int or not isinstance(fields, list):
        raise CommandError(f"a batch should be a time, a term and items: {payload[:100]!r}")
    return time_ms, if_term, [_batch_item(item) for item in fields]


_ITEM_TYPES = [bytes, int, int, bytes, int, int, str]


def _batch_item(fields: object) -> BatchItem:
    if not isinstance(fields, list) or list(map(type, fields)) != _ITEM_TYPES:
        raise CommandError(f"an item of a batch is not what it should be: {fields!r:.100}")
    return BatchItem._make(fields)


def outcomes_body(outcomes: Sequence[tuple[int, int]]) -> bytes:
    """The result of a BATCH: (failure, revision) of each item, in their order."""
    packed: bytes = msgpack.packb(outcomes)
    return packed


def read_outcomes(body: bytes) -> list[BatchOutcome]:
    """Reads what `outcomes_body` wrote."""
    fields = msgpack.unpackb(body)
    return [BatchOutcome(BatchFailure(failure), revision) for failure, revision in fields]


def member_attributes_payload(member_id: int, name: str, client_urls: tuple[str, ...]) -> bytes:
    """MEMBER_ATTRIBUTES: what a member publishes about itself once it runs."""
    packed: bytes = msgpack.packb([member_id, name, client_urls])
    return packed


def read_member_attributes(payload: bytes) -> tuple[int, str, tuple[str, ...]]:
    """Reads what `member_attributes_payload` wrote: (member id, name, client URLs)."""
    member_id, name, client_urls = _unpack(payload, 3)
    if type(member_id) is not int or type(name) is not str or not _is_list_of(client_urls, str):
        raise CommandError(f"attributes should be an id, a name and URLs: {payload[:100]!r}")
    return member_id, name, tuple(client_urls)


def _unpack(payload: bytes, *lengths: int) -> list:  # type: ignore[type-arg]
    try:
        fields = msgpack.unpackb(payload)
    except (ValueError, TypeError) as error:
        raise CommandError(f"a command's payload is not msgpack: {error}") from error
    if not isinstance(fields, list) or len(fields) not in lengths:
        wanted = " or ".join(map(str, lengths))
        raise CommandError(f"a command's payload should be a list of {wanted}: {payload[:100]!r}")
    return fields


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(each) is kind for each in value)
