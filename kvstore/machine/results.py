"""What applying entries yields: an answer for each entry, and the changes that watchers see."""

from __future__ import annotations

from typing import Final, NamedTuple

from kvstore.errors import EtcdError
from raft.types import ConfChange

__all__ = ("DELETE", "PUT", "Change", "Result")

PUT: Final = 0
DELETE: Final = 1


class Result(NamedTuple):
    """One entry's outcome. A refusal (`error`) counts as applied: every member gives the same."""

    request_id: int
    revision: int
    """The store's revision after the entry: what its response header tells."""
    body: bytes = b""
    """The response message without its header field; empty if nobody here waits for it."""
    error: EtcdError | None = None
    conf_change: ConfChange | None = None
    conf_valid: bool = False
    """Whether `conf_change` took effect; if not, Raft must be told that it was refused."""


class Change(NamedTuple):
    """One event: (revision, sub) says its place in the history."""

    revision: int
    sub: int
    kind: int
    """PUT or DELETE (the numbers of mvccpb.Event)."""
    key: bytes
    kv: bytes
    """Encoded mvccpb.KeyValue; of a deletion only key and mod_revision."""
    created: bool
    """The put began a new life of the key (version 1)."""
    lease: int
    """The lease that the put attached the key to, 0 for none (and for a deletion)."""
