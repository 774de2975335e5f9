"""One function for each kind of command: from the request's bytes to the response's body.

A handler raises EtcdError before its first write or not at all. Short ones return the body, long
ones a job that returns it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kvstore import errors
from kvstore.machine import alarms, batch, leases, membership, txn
from kvstore.machine.command import (
    CommandError,
    CommandKind,
    read_batch,
    read_expiry,
    read_member_attributes,
)
from kvstore.machine.draft import Draft
from kvstore.machine.jobs import Job
from kvstore.machine.journal import Cause
from kvstore.machine.meta import put_member
from kvstore.machine.quota import txn_cost
from kvstore.machine.results import Result
from kvstore.pb.rpc_pb2 import (
    AlarmRequest,
    AlarmType,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseCheckpointRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    TxnRequest,
)
from raft.types import ConfChange

__all__ = ("HANDLERS", "apply_conf_change")

Handler: TypeAlias = Callable[[Draft, bytes], "bytes | Job[bytes]"]


def _put(draft: Draft, payload: bytes) -> bytes:
    request = PutRequest.FromString(payload)
    if request.lease and draft.lease(request.lease) is None:
        raise errors.LEASE_NOT_FOUND
    before = draft.newest(request.key)
    if before is None and (request.ignore_value or request.ignore_lease):
        raise errors.KEY_NOT_FOUND
    return txn.put(draft, request, before)


def _delete_range(draft: Draft, payload: bytes) -> Job[bytes]:
    return txn.delete_range(draft, DeleteRangeRequest.FromString(payload))


def _txn(draft: Draft, payload: bytes) -> Job[bytes]:
    request = TxnRequest.FromString(payload)
    if draft.state.alarms and txn_cost(request):
        types = {alarm for _, alarm in draft.state.alarms}
        if AlarmType.NOSPACE in types:
            raise errors.NO_SPACE
    return txn.write_txn(draft, request)


def _compact(draft: Draft, payload: bytes) -> bytes:
    revision = CompactionRequest.FromString(payload).revision
    if revision <= draft.compact_revision:
        raise errors.COMPACTED
    if revision > draft.revision:
        raise errors.FUTURE_REVISION
    draft.compact_revision = revision
    return b""


def _lease_grant(draft: Draft, payload: bytes) -> bytes:
    return leases.grant(draft, LeaseGrantRequest.FromString(payload))


def _lease_revoke(draft: Draft, payload: bytes) -> Job[bytes]:
    draft.journal.cause = Cause.LEASE_REVOKED
    yield from leases.revoke(draft, LeaseRevokeRequest.FromString(payload).ID)
    return b""


def _lease_expire(draft: Draft, payload: bytes) -> Job[bytes]:
    term, numbers, time_ms = read_expiry(payload)
    # A deadline is only as good as the leadership of the one who kept it.
    if term == draft.term:
        draft.journal.cause = Cause.LEASE_EXPIRED
        draft.journal.advance(time_ms)
        yield from leases.expire(draft, numbers)
    return b""


def _lease_checkpoint(draft: Draft, payload: bytes) -> bytes:
    leases.checkpoint(draft, LeaseCheckpointRequest.FromString(payload))
    return b""


def _batch(draft: Draft, payload: bytes) -> Job[bytes]:
    time_ms, if_term, items = read_batch(payload)
    if if_term not in (0, draft.term):
        return batch.void(draft, items)
    draft.journal.cause = Cause.REGISTRY
    draft.journal.advance(time_ms)
    return batch.apply(draft, items)


def _alarm(draft: Draft, payload: bytes) -> bytes:
    return alarms.change(draft, AlarmRequest.FromString(payload))


def _member_attributes(draft: Draft, payload: bytes) -> bytes:
    number, name, client_urls = read_member_attributes(payload)
    member = draft.state.members.get(number)
    # A member may publish itself just as it is removed.
    if member is not None:
        _set_member(draft, member._replace(name=name, client_urls=client_urls))
    return b""


def _cluster_version(draft: Draft, payload: bytes) -> bytes:
    draft.state = draft.state._replace(cluster_version=payload.decode())
    return b""


def _set_member(draft: Draft, member: membership.Member) -> None:
    put_member(draft.txn, member.id, member)
    members = {**draft.state.members, member.id: member}
    draft.state = draft.state._replace(members=members)


def _remove_member(draft: Draft, number: int) -> None:
    put_member(draft.txn, number, None)
    members = {key: member for key, member in draft.state.members.items() if key != number}
    draft.state = draft.state._replace(members=members, removed=draft.state.removed | {number})


def apply_conf_change(draft: Draft, data: bytes) -> Result:
    """Applies a CONF_CHANGE entry, or finds it impossible and changes nothing."""
    try:
        change = ConfChange.decode(data)
    except ValueError as error:
        raise CommandError(f"unreadable membership change: {error}") from error
    context = membership.ConfContext.decode(change.context)
    state = draft.state
    refused = membership.refusal(
        change,
        context,
        state.members,
        state.removed,
        max_learners=draft.config.max_learners,
    )
    if refused is None:
        member = membership.apply_change(change, context, state.members)
        if member is None:
            _remove_member(draft, change.node_id)
        else:
            _set_member(draft, member)
    return Result(
        context.request_id,
        draft.revision,
        error=refused,
        conf_change=change,
        conf_valid=refused is None,
    )


HANDLERS: dict[int, Handler] = {
    CommandKind.PUT: _put,
    CommandKind.DELETE_RANGE: _delete_range,
    CommandKind.TXN: _txn,
    CommandKind.COMPACT: _compact,
    CommandKind.LEASE_GRANT: _lease_grant,
    CommandKind.LEASE_REVOKE: _lease_revoke,
    CommandKind.LEASE_EXPIRE: _lease_expire,
    CommandKind.LEASE_CHECKPOINT: _lease_checkpoint,
    CommandKind.ALARM: _alarm,
    CommandKind.MEMBER_ATTRIBUTES: _member_attributes,
    CommandKind.CLUSTER_VERSION: _cluster_version,
    CommandKind.BATCH: _batch,
}
