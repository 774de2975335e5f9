"""What a member answers to the front doors: small values, no behaviour."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from kvstore.machine import BatchOutcome
from kvstore.machine.wire import bytes_field, int_field

__all__ = ("Answer", "BatchAnswer", "HashAnswer", "LeaseTimes", "NodeStatus", "encode_header")


class Answer(NamedTuple):
    """A read's outcome: the revision for the header, and the response without its header."""

    revision: int
    body: bytes


class BatchAnswer(NamedTuple):
    """What became of a batch: the store's revision after it, and the outcome of each item."""

    revision: int
    outcomes: list[BatchOutcome]


class LeaseTimes(NamedTuple):
    """Remaining and granted seconds of a lease; ttl -1 and granted 0 when there is none."""

    ttl: int
    granted_ttl: int
    keys: list[bytes]


class HashAnswer(NamedTuple):
    """A hash of the state as of `hash_revision`, comparable between members."""

    revision: int
    hash: int
    compact_revision: int
    hash_revision: int


class NodeStatus(NamedTuple):
    """What `etcdctl endpoint status` shows of a member."""

    version: str
    db_size: int
    db_in_use: int
    leader: int
    raft_index: int
    raft_term: int
    applied_index: int
    errors: list[str]
    is_learner: bool
    storage_version: str
    quota: int


def encode_header(cluster_id: int, member_id: int, revision: int, term: int) -> bytes:
    """The `header` field (number 1) of a response: tag, length, ResponseHeader.

    Zero fields are left out, as protobuf does.
    """
    return bytes_field(1, _whose(cluster_id, member_id) + int_field(3, revision) + _when(term))


@lru_cache(maxsize=16)
def _whose(cluster_id: int, member_id: int) -> bytes:
    """The part of a header that never changes; ids are long numbers."""
    return int_field(1, cluster_id) + int_field(2, member_id)


@lru_cache(maxsize=16)
def _when(term: int) -> bytes:
    """The part that changes with the leader."""
    return int_field(4, term)
