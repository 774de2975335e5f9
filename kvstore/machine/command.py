"""What stands in a log entry: one byte of kind, eight of request id, then the request's own bytes.

The payload is the client's protobuf request as it came, so nothing is decoded and encoded again
between the client and `apply`. Whatever must be decided once (lease ids, times) is decided by
the proposer and stands in the payload.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

import msgpack

__all__ = (
    "Command",
    "CommandError",
    "CommandKind",
    "decode",
    "encode",
    "expiry_payload",
    "member_attributes_payload",
    "read_expiry",
    "read_member_attributes",
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


def expiry_payload(term: int, lease_ids: list[int]) -> bytes:
    """LEASE_EXPIRE: leases whose time is up, as seen by the leader of `term`."""
    packed: bytes = msgpack.packb([term, lease_ids])
    return packed


def read_expiry(payload: bytes) -> tuple[int, list[int]]:
    """Reads what `expiry_payload` wrote: (term, lease ids)."""
    term, lease_ids = _unpack(payload, 2)
    if type(term) is not int or not _is_list_of(lease_ids, int):
        raise CommandError(f"an expiry should be a term and lease ids: {payload[:100]!r}")
    return term, lease_ids


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


def _unpack(payload: bytes, length: int) -> list:  # type: ignore[type-arg]
    try:
        fields = msgpack.unpackb(payload)
    except (ValueError, TypeError) as error:
        raise CommandError(f"a command's payload is not msgpack: {error}") from error
    if not isinstance(fields, list) or len(fields) != length:
        raise CommandError(f"a command's payload should be a list of {length}: {payload[:100]!r}")
    return fields


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(each) is kind for each in value)
