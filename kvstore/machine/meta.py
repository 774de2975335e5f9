"""The `meta` table and loading: what a machine knows when it opens a store.

One record, `applied`, is written by every batch in the same transaction as the batch's data, so
data and applied index are never torn apart.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from kvstore.machine.alarms import load_alarms
from kvstore.machine.draft import State
from kvstore.machine.journal import load_extent
from kvstore.machine.membership import Member, pack_member, unpack_member
from kvstore.machine.tables import MEMBERS, META, REMOVED, member_id
from kvstore.storage.store import ReadTxn, WriteTxn

__all__ = (
    "NEVER_COMPACTED",
    "FormatError",
    "SweepState",
    "load_hashed",
    "load_state",
    "load_sweep",
    "put_member",
    "save_state",
    "save_sweep",
)

_FORMAT_KEY: Final = b"format"
_APPLIED_KEY: Final = b"applied"
_CLUSTER_VERSION_KEY: Final = b"cluster_version"
_SWEEP_KEY: Final = b"sweep"
_CLOCK_KEY: Final = b"clock"

_FORMAT: Final = b"kvstore machine 1"
_APPLIED = struct.Struct(">QQQq")
_SWEEP = struct.Struct(">qQQ")
_CLOCK = struct.Struct(">QQ")

_EMPTY_REVISION: Final = 1
NEVER_COMPACTED: Final = -1


class FormatError(Exception):
    """The store was written by a program whose table layout this one does not know."""


class SweepState(NamedTuple):
    """How far the removal of compacted versions has come."""

    target: int
    """The compaction that is being swept, or was last; -1 for none."""
    main: int
    sub: int
    """Revisions before (main, sub) have been dealt with."""

    @property
    def done(self) -> bool:
        """Nothing is left to sweep for this target."""
        return (self.main, self.sub) == (max(self.target, 0), 0)


def load_state(txn: ReadTxn) -> State:
    """Everything but keys and leases; of an empty store, the state before the first entry."""
    written = txn.get(META, _FORMAT_KEY)
    if written is not None and written != _FORMAT:
        raise FormatError(
            f"the store holds {written!r}, this program reads {_FORMAT!r}: run the version that"
            " wrote it, or replace the member"
        )
    applied = txn.get(META, _APPLIED_KEY)
    index, term, revision, compact = (
        _APPLIED.unpack(applied) if applied else (0, 0, _EMPTY_REVISION, NEVER_COMPACTED)
    )
    clock = txn.get(META, _CLOCK_KEY)
    members = {}
    for _, record in txn.scan(MEMBERS):
        member = unpack_member(record)
        members[member.id] = member
    return State(
        revision=revision,
        compact_revision=compact,
        applied_index=index,
        applied_term=term,
        cluster_version=(txn.get(META, _CLUSTER_VERSION_KEY) or b"").decode(),
        members=members,
        removed=frozenset(int.from_bytes(key) for key, _ in txn.scan(REMOVED)),
        alarms=load_alarms(txn),
        journal=load_extent(txn, *(_CLOCK.unpack(clock) if clock else (0, 0))),
    )


def load_hashed(txn: ReadTxn) -> bytes:
    """What of this table belongs to the hash of the state (the sweep's progress does not)."""
    keys = (_APPLIED_KEY, _CLUSTER_VERSION_KEY, _CLOCK_KEY)
    return b"".join(txn.get(META, key) or b"" for key in keys)


def save_state(txn: WriteTxn, before: State, after: State) -> None:
    """Writes what a batch changed of the state (members and alarms write themselves)."""
    if before.applied_index == 0:
        txn.put(META, _FORMAT_KEY, _FORMAT)
    if before.cluster_version != after.cluster_version:
        txn.put(META, _CLUSTER_VERSION_KEY, after.cluster_version.encode())
    if before.journal.clock_ms != after.journal.clock_ms:
        txn.put(META, _CLOCK_KEY, _CLOCK.pack(after.journal.clock_ms, after.journal.age_ms))
    applied = _APPLIED.pack(
        after.applied_index, after.applied_term, after.revision, after.compact_revision
    )
    txn.put(META, _APPLIED_KEY, applied)


def put_member(txn: WriteTxn, number: int, member: Member | None) -> None:
    """Writes a member's record, or (None) removes it and remembers its id as used up."""
    if member is not None:
        txn.put(MEMBERS, member_id(number), pack_member(member))
    else:
        txn.delete(MEMBERS, member_id(number))
        txn.put(REMOVED, member_id(number), b"")


def load_sweep(txn: ReadTxn) -> SweepState:
    """The sweep's progress."""
    record = txn.get(META, _SWEEP_KEY)
    return SweepState(*_SWEEP.unpack(record)) if record else SweepState(NEVER_COMPACTED, 0, 0)


def save_sweep(txn: WriteTxn, sweep: SweepState) -> None:
    """Writes the sweep's progress, in the transaction that made it."""
    txn.put(META, _SWEEP_KEY, _SWEEP.pack(*sweep))
