"""What an entry will do, told before it is applied.

A long entry (a delete of a million keys) keeps those behind it from being applied, but of most
of them the outcome is settled already: they are committed, so nothing can take their place, and
a plain put succeeds whatever the state is. Its answer is one number, the next revision.

*Certain* is only what follows from the entry and the revision before it:

* a put that names no lease and ignores nothing succeeds and takes one revision. Its answer is
  empty unless it asks for the previous pair, which nobody knows yet;
* commands about leases that delete nothing, compactions, member attributes and the cluster
  version take no revision and cannot make such a put fail; of their answers nothing is said.

Everything else (transactions, deletions, puts on a lease, alarms, membership) depends on the
state, and so does all that follows it. The caller makes sure that no alarm is up.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import DecodeError

from kvstore.machine.command import CommandKind, decode
from kvstore.pb.rpc_pb2 import PutRequest
from raft.types import Entry, EntryKind

__all__ = ("Foreseen", "foresee")

_WITHOUT_REVISION = frozenset(
    (
        CommandKind.LEASE_GRANT,
        CommandKind.LEASE_CHECKPOINT,
        CommandKind.COMPACT,
        CommandKind.MEMBER_ATTRIBUTES,
        CommandKind.CLUSTER_VERSION,
    )
)


class Foreseen(NamedTuple):
    """The certain part of an entry's outcome."""

    request_id: int
    revision: int
    """The store's revision after the entry."""
    answerable: bool
    """The whole answer is known: success at `revision`, with an empty body."""


def foresee(entry: Entry, revision: int) -> Foreseen | None:
    """The outcome of `entry` on any state at `revision` without alarms; None: it depends."""
    if entry.kind != EntryKind.NORMAL:
        return None
    command = decode(entry.data)
    if command is None:
        return Foreseen(0, revision, False)
    kind, request_id, payload = command
    if kind in _WITHOUT_REVISION:
        return Foreseen(request_id, revision, False)
    if kind != CommandKind.PUT:
        return None
    try:
        put = PutRequest.FromString(payload)
    except DecodeError:
        return None
    if put.lease or put.ignore_value or put.ignore_lease:
        return None
    return Foreseen(request_id, revision + 1, not put.prev_kv)
