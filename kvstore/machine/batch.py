"""Batches: many changes of single keys, each with its own condition, in one revision.

The items are independent: one whose condition fails is passed over and reported, the others
apply. They are judged one after the other, so an item sees what those before it did (a key that
an earlier item changed has the batch's own revision). All changes share one revision.
"""

from __future__ import annotations

from kvstore.machine.command import (
    ANY_REVISION,
    BatchAction,
    BatchFailure,
    BatchItem,
    CommandError,
    outcomes_body,
)
from kvstore.machine.draft import Draft
from kvstore.machine.jobs import Job
from kvstore.machine.leases import begin, end, has_keys
from kvstore.machine.limits import LEASE_TTL_MAX_S, SLICE_BATCH
from kvstore.machine.tables import Version
from kvstore.pb.rpc_pb2 import AlarmType

__all__ = ("apply", "void")


def apply(draft: Draft, items: list[BatchItem]) -> Job[bytes]:
    """Applies a batch; returns the outcome of each item (`outcomes_body`)."""
    full = any(alarm == AlarmType.NOSPACE for _, alarm in draft.state.alarms)
    outcomes: list[tuple[int, int]] = []
    left = SLICE_BATCH
    for item in items:
        if not left:
            left = SLICE_BATCH
            yield
        left -= 1
        before = draft.newest(item.key)
        failure = _refusal(draft, item, before, full)
        if failure is not BatchFailure.NONE:
            outcomes.append((failure, before.main if before is not None else 0))
            continue
        draft.journal.reason = item.reason
        _change(draft, item, before)
        outcomes.append((BatchFailure.NONE, draft.revision + 1))
    draft.journal.reason = ""
    return outcomes_body(outcomes) if draft.wanted else b""


def void(draft: Draft, items: list[BatchItem]) -> Job[bytes]:
    """What a batch does that was decided in another term: nothing."""
    outcomes = []
    for at, item in enumerate(items, 1):
        before = draft.newest(item.key)
        outcomes.append((BatchFailure.VOID, before.main if before is not None else 0))
        if at % SLICE_BATCH == 0:
            yield
    return outcomes_body(outcomes) if draft.wanted else b""


def _refusal(draft: Draft, item: BatchItem, before: Version | None, full: bool) -> BatchFailure:
    """Why an item cannot be applied."""
    actual = before.main if before is not None else 0
    if item.expected_mod not in (ANY_REVISION, actual):
        return BatchFailure.CONFLICT
    match item.action:
        case BatchAction.DELETE:
            return BatchFailure.CONFLICT if before is None else BatchFailure.NONE
        case BatchAction.PUT_LEASE:
            if draft.lease(item.lease) is None:
                return BatchFailure.LEASE_NOT_FOUND
        case BatchAction.PUT_NEW_LEASE:
            if not item.lease or not 0 < item.ttl_s <= LEASE_TTL_MAX_S:
                return BatchFailure.BAD_LEASE
            if draft.lease(item.lease) is not None:
                return BatchFailure.LEASE_EXISTS
        case BatchAction.PUT_KEEP:
            pass
        case _:
            raise CommandError(f"a batch holds an action {item.action}, unknown to this version")
    return BatchFailure.NO_SPACE if full else BatchFailure.NONE


def _change(draft: Draft, item: BatchItem, before: Version | None) -> None:
    """Applies an item that was not refused."""
    old_lease = before.lease if before is not None else 0
    match item.action:
        case BatchAction.DELETE:
            draft.delete(item.key, old_lease)
        case BatchAction.PUT_KEEP:
            draft.put(item.key, item.value, old_lease, before)
            return
        case BatchAction.PUT_LEASE:
            draft.put(item.key, item.value, item.lease, before)
            return
        case BatchAction.PUT_NEW_LEASE:
            begin(draft, item.lease, item.ttl_s)
            draft.put(item.key, item.value, item.lease, before)
    if old_lease and not has_keys(draft.txn, old_lease):
        end(draft, old_lease)
