"""Leases: granting, revoking, expiry and checkpoints; which keys are attached stands in the store.

A lease has no deadline here. Deadlines belong to the leader, who turns a passed one into an
entry; replicated state must not depend on anybody's clock.
"""

from __future__ import annotations

import struct

from kvstore import errors
from kvstore.machine.draft import Draft, Lease
from kvstore.machine.jobs import Job
from kvstore.machine.limits import LEASE_TTL_MAX_S, SLICE_DELETES, SLICE_RECORDS
from kvstore.machine.tables import LEASE_KEYS, LEASES, lease_id, ordered_key, prefix_end
from kvstore.machine.wire import int_field
from kvstore.pb.rpc_pb2 import LeaseCheckpointRequest, LeaseGrantRequest
from kvstore.storage.errors import StoreCorrupt
from kvstore.storage.store import ReadTxn

__all__ = (
    "attached_keys",
    "begin",
    "checkpoint",
    "end",
    "expire",
    "grant",
    "has_keys",
    "load_leases",
    "revoke",
)

_RECORD = struct.Struct(">qq")
_ID = struct.Struct(">q")
_GRANT_ID_FIELD = 2
_GRANT_TTL_FIELD = 3


def load_leases(txn: ReadTxn) -> list[Lease]:
    """All leases of the store. Raises StoreCorrupt if some are missing.

    They are read but once, and nothing else would notice: a checksum says nothing of a record
    that a damaged page hides.
    """
    found = [Lease(_ID.unpack(key)[0], *_RECORD.unpack(record)) for key, record in txn.scan(LEASES)]
    counted = txn.count(LEASES)
    if len(found) != counted:
        why = f"it counts {counted} records and shows {len(found)}"
        raise StoreCorrupt("of this member", f"table {LEASES}", why)
    return found


def _store(draft: Draft, lease: Lease) -> None:
    draft.txn.put(LEASES, lease_id(lease.id), _RECORD.pack(lease.ttl_s, lease.remaining_s))
    draft.lease_overlay[lease.id] = lease


def grant(draft: Draft, request: LeaseGrantRequest) -> bytes:
    """Creates a lease; returns its LeaseGrantResponse without header."""
    if request.ID == 0:
        raise errors.LEASE_NOT_FOUND
    if request.TTL > LEASE_TTL_MAX_S:
        raise errors.LEASE_TTL_TOO_LARGE
    if draft.lease(request.ID) is not None:
        raise errors.LEASE_EXISTS
    lease = begin(draft, request.ID, request.TTL)
    return int_field(_GRANT_ID_FIELD, lease.id) + int_field(_GRANT_TTL_FIELD, lease.ttl_s)


def begin(draft: Draft, number: int, ttl_s: int) -> Lease:
    """Creates a lease of an id that is free; a TTL that is too short is raised."""
    lease = Lease(number, max(ttl_s, draft.config.min_lease_ttl_s))
    _store(draft, lease)
    draft.granted[number] = lease
    return lease


def end(draft: Draft, number: int) -> None:
    """Ends a lease that has no keys (any more)."""
    draft.txn.delete(LEASES, lease_id(number))
    draft.lease_overlay[number] = None
    draft.granted.pop(number, None)
    draft.revoked.append(number)


def revoke(draft: Draft, number: int) -> Job[None]:
    """Ends a lease and deletes its keys, in key order, as one revision."""
    if draft.lease(number) is None:
        raise errors.LEASE_NOT_FOUND
    prefix = lease_id(number)
    stop = prefix_end(prefix)
    while True:
        # Deleting a key takes it off the lease, so the next look starts at the front again.
        keys = []
        for attached, _ in draft.txn.scan(LEASE_KEYS, prefix, stop):
            keys.append(attached[len(prefix) :])
            if len(keys) == SLICE_DELETES:
                break
        draft.delete_many([(key, ordered_key(key)) for key in keys], [prefix + key for key in keys])
        if len(keys) < SLICE_DELETES:
            break
        yield
    end(draft, number)


def expire(draft: Draft, numbers: list[int]) -> Job[None]:
    """Revokes leases whose time is up, one revision each; those already gone are passed over."""
    # How many revisions this will take is settled at once: a key is on one lease at most.
    to_come = 0
    for number in dict.fromkeys(numbers):
        to_come += draft.lease(number) is not None and has_keys(draft.txn, number)
    for at, number in enumerate(numbers, 1):
        if draft.lease(number) is not None:
            to_come -= has_keys(draft.txn, number)
            draft.revisions_to_come = to_come
            yield from revoke(draft, number)
            draft.finish_request()
        if at % SLICE_DELETES == 0:
            yield


def has_keys(txn: ReadTxn, number: int) -> bool:
    """Whether any key is attached to a lease."""
    prefix = lease_id(number)
    found = txn.seek(LEASE_KEYS, prefix)
    return found is not None and found[0].startswith(prefix)


def checkpoint(draft: Draft, request: LeaseCheckpointRequest) -> None:
    """Notes what is left of long leases, for the next leader; unknown ones are passed over."""
    for item in request.checkpoints:
        lease = draft.lease(item.ID)
        if lease is not None:
            _store(draft, lease._replace(remaining_s=item.remaining_TTL))


def attached_keys(txn: ReadTxn, number: int) -> Job[list[bytes]]:
    """The keys attached to a lease, in key order."""
    prefix = lease_id(number)
    keys: list[bytes] = []
    for attached, _ in txn.scan(LEASE_KEYS, prefix, prefix_end(prefix)):
        keys.append(attached[len(prefix) :])
        if len(keys) % SLICE_RECORDS == 0:
            yield
    return keys
