"""Every unary operation of the API, once: its arguments, its request, its result.

Each function builds a `Unary`; the clients turn the functions into methods of the same name and
signature. `timeout` is in seconds (None: the client's default, math.inf: none); `endpoint` asks
that one member, without failover.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvstore.client.call import Effect, Method, Unary
from kvstore.client.keys import Key
from kvstore.client.limits import LONG_TIMEOUT_S
from kvstore.client.requests import delete_request, put_request, range_request
from kvstore.client.values import (
    Alarm,
    AlarmsResult,
    AlarmType,
    DeleteResult,
    HashResult,
    Header,
    KeyValue,
    LeaseInfo,
    LeaseList,
    LeaseTimes,
    MembersResult,
    PutResult,
    RangeResult,
    SortOrder,
    SortTarget,
    Status,
    delete_result,
    header,
    key_value,
    member,
    put_result,
    range_result,
)
from kvstore.pb import rpc_pb2 as pb

_RANGE = Method("/etcdserverpb.KV/Range", pb.RangeResponse)
_PUT = Method("/etcdserverpb.KV/Put", pb.PutResponse)
_DELETE = Method("/etcdserverpb.KV/DeleteRange", pb.DeleteRangeResponse)
_COMPACT = Method("/etcdserverpb.KV/Compact", pb.CompactionResponse)
_GRANT = Method("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse)
_REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse)
_TIMES = Method("/etcdserverpb.Lease/LeaseTimeToLive", pb.LeaseTimeToLiveResponse)
_LEASES = Method("/etcdserverpb.Lease/LeaseLeases", pb.LeaseLeasesResponse)
_KEEP_ALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse)
_MEMBER_LIST = Method("/etcdserverpb.Cluster/MemberList", pb.MemberListResponse)
_MEMBER_ADD = Method("/etcdserverpb.Cluster/MemberAdd", pb.MemberAddResponse)
_MEMBER_REMOVE = Method("/etcdserverpb.Cluster/MemberRemove", pb.MemberRemoveResponse)
_MEMBER_UPDATE = Method("/etcdserverpb.Cluster/MemberUpdate", pb.MemberUpdateResponse)
_MEMBER_PROMOTE = Method("/etcdserverpb.Cluster/MemberPromote", pb.MemberPromoteResponse)
_STATUS = Method("/etcdserverpb.Maintenance/Status", pb.StatusResponse)
_ALARM = Method("/etcdserverpb.Maintenance/Alarm", pb.AlarmResponse)
_DEFRAGMENT = Method("/etcdserverpb.Maintenance/Defragment", pb.DefragmentResponse)
_HASH_KV = Method("/etcdserverpb.Maintenance/HashKV", pb.HashKVResponse)
_MOVE_LEADER = Method("/etcdserverpb.Maintenance/MoveLeader", pb.MoveLeaderResponse)
_AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", pb.AuthenticateResponse)

__all__ = (
    "alarm",
    "alarms",
    "authenticate",
    "compact",
    "defragment",
    "delete",
    "delete_prefix",
    "get",
    "get_prefix",
    "hash_kv",
    "keep_alive_once",
    "lease_grant",
    "lease_revoke",
    "lease_time_to_live",
    "leases",
    "member_add",
    "member_list",
    "member_promote",
    "member_remove",
    "member_update",
    "move_leader_at",
    "put",
    "range",
    "status",
)


def get(
    key: Key,
    *,
    revision: int = 0,
    serializable: bool = False,
    timeout: float | None = None,
) -> Unary[KeyValue | None]:
    """The key's newest version (or the one at `revision`), None when there is no such key.

    A `serializable` read is answered by one member from what it has, without asking the others:
    faster, available without a quorum, and possibly stale.
    """
    request = range_request(key, revision=revision, serializable=serializable)
    return Unary(_RANGE, request, Effect.READ, _first, timeout)


def range(
    key: Key,
    *,
    prefix: bool = False,
    from_key: bool = False,
    range_end: Key = b"",
    limit: int = 0,
    revision: int = 0,
    sort_order: SortOrder = SortOrder.NONE,
    sort_target: SortTarget = SortTarget.KEY,
    serializable: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
    min_mod_revision: int = 0,
    max_mod_revision: int = 0,
    min_create_revision: int = 0,
    max_create_revision: int = 0,
    timeout: float | None = None,
    endpoint: str = "",
) -> Unary[RangeResult]:
    """Keys of [key, range_end), of a `prefix`, or of everything `from_key` on.

    The revision bounds are inclusive, 0 turns one off; they come before sort and limit. `count`
    of the result knows neither bounds nor limit.
    """
    request = range_request(
        key,
        prefix=prefix,
        from_key=from_key,
        range_end=range_end,
        limit=limit,
        revision=revision,
        sort_order=sort_order,
        sort_target=sort_target,
        serializable=serializable,
        keys_only=keys_only,
        count_only=count_only,
        min_mod_revision=min_mod_revision,
        max_mod_revision=max_mod_revision,
        min_create_revision=min_create_revision,
        max_create_revision=max_create_revision,
    )
    return Unary(_RANGE, request, Effect.READ, range_result, timeout, endpoint)


def get_prefix(
    prefix: Key,
    *,
    limit: int = 0,
    revision: int = 0,
    sort_order: SortOrder = SortOrder.NONE,
    sort_target: SortTarget = SortTarget.KEY,
    serializable: bool = False,
    keys_only: bool = False,
    timeout: float | None = None,
) -> Unary[RangeResult]:
    """Every key that starts with `prefix`; empty means all keys."""
    return range(
        prefix,
        prefix=True,
        limit=limit,
        revision=revision,
        sort_order=sort_order,
        sort_target=sort_target,
        serializable=serializable,
        keys_only=keys_only,
        timeout=timeout,
    )


def put(
    key: Key,
    value: Key = b"",
    *,
    lease: int = 0,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
    timeout: float | None = None,
) -> Unary[PutResult]:
    """Write a key; without `lease` it is detached from the one it had.

    `prev_kv` returns what was overwritten. `ignore_value` and `ignore_lease` keep what is stored;
    the key must then exist.
    """
    request = put_request(
        key,
        value,
        lease=lease,
        prev_kv=prev_kv,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )
    return Unary(_PUT, request, Effect.WRITE, put_result, timeout)


def delete(
    key: Key,
    *,
    prefix: bool = False,
    from_key: bool = False,
    range_end: Key = b"",
    prev_kv: bool = False,
    timeout: float | None = None,
) -> Unary[DeleteResult]:
    """Delete a key or a range in one revision; deleting nothing makes no revision."""
    request = delete_request(
        key, prefix=prefix, from_key=from_key, range_end=range_end, prev_kv=prev_kv
    )
    return Unary(_DELETE, request, Effect.WRITE, delete_result, timeout)


def delete_prefix(
    prefix: Key, *, prev_kv: bool = False, timeout: float | None = None
) -> Unary[DeleteResult]:
    """Delete every key that starts with `prefix`; empty means all keys."""
    return delete(prefix, prefix=True, prev_kv=prev_kv, timeout=timeout)


def compact(
    revision: int, *, physical: bool = False, timeout: float | None = None
) -> Unary[Header]:
    """Forget history below `revision`; `physical` waits until the space is free inside the file.

    Raises CompactedError (done already) or FutureRevisionError.
    """
    request = pb.CompactionRequest(revision=revision, physical=physical)
    return Unary(
        _COMPACT, request, Effect.WRITE, _header, timeout, default_timeout_s=LONG_TIMEOUT_S
    )


def lease_grant(ttl: int, *, lease_id: int = 0, timeout: float | None = None) -> Unary[LeaseInfo]:
    """A lease of `ttl` seconds, with an id of the server's choice unless one is given."""
    # With an id, a repeated grant would be refused and hide that the first one worked.
    effect = Effect.WRITE if lease_id else Effect.REPEATABLE
    return Unary(
        _GRANT,
        pb.LeaseGrantRequest(TTL=ttl, ID=lease_id),
        effect,
        lambda m: LeaseInfo(header(m.header), m.ID, m.TTL),
        timeout,
    )


def lease_revoke(lease_id: int, *, timeout: float | None = None) -> Unary[Header]:
    """End a lease and delete its keys. Raises LeaseNotFoundError."""
    return Unary(_REVOKE, pb.LeaseRevokeRequest(ID=lease_id), Effect.WRITE, _header, timeout)


def lease_time_to_live(
    lease_id: int, *, keys: bool = False, timeout: float | None = None
) -> Unary[LeaseTimes]:
    """What is left of a lease (-1: no such lease), with its keys if wanted."""
    return Unary(
        _TIMES,
        pb.LeaseTimeToLiveRequest(ID=lease_id, keys=keys),
        Effect.READ,
        lambda m: LeaseTimes(header(m.header), m.ID, m.TTL, m.grantedTTL, tuple(m.keys)),
        timeout,
    )


def leases(*, timeout: float | None = None) -> Unary[LeaseList]:
    """Ids of all leases."""
    return Unary(
        _LEASES,
        pb.LeaseLeasesRequest(),
        Effect.READ,
        lambda m: LeaseList(header(m.header), tuple(each.ID for each in m.leases)),
        timeout,
    )


def keep_alive_once(lease_id: int, *, timeout: float | None = None) -> Unary[LeaseInfo]:
    """Renew a lease to its full TTL. A result with `ttl_s` 0 says there is no such lease.

    The method is a stream; one message, then end of input, is a unary call on the wire.
    """
    return Unary(
        _KEEP_ALIVE,
        pb.LeaseKeepAliveRequest(ID=lease_id),
        Effect.READ,
        lambda m: LeaseInfo(header(m.header), m.ID, m.TTL),
        timeout,
    )


def member_list(
    *, linearizable: bool = True, timeout: float | None = None, endpoint: str = ""
) -> Unary[MembersResult]:
    """The members; not `linearizable` is one member's view, which works without a quorum."""
    request = pb.MemberListRequest(linearizable=linearizable)
    return Unary(_MEMBER_LIST, request, Effect.READ, _members, timeout, endpoint)


def member_add(
    peer_urls: Sequence[str], *, is_learner: bool = False, timeout: float | None = None
) -> Unary[MembersResult]:
    """Add a member that will listen on `peer_urls`; the result's `member` is the new one."""
    request = pb.MemberAddRequest(peerURLs=peer_urls, isLearner=is_learner)
    return Unary(
        _MEMBER_ADD,
        request,
        Effect.WRITE,
        lambda m: MembersResult(header(m.header), tuple(map(member, m.members)), member(m.member)),
        timeout,
    )


def member_remove(member_id: int, *, timeout: float | None = None) -> Unary[MembersResult]:
    """Remove a member for good; its id is never used again."""
    request = pb.MemberRemoveRequest(ID=member_id)
    return Unary(_MEMBER_REMOVE, request, Effect.WRITE, _members, timeout)


def member_update(
    member_id: int, peer_urls: Sequence[str], *, timeout: float | None = None
) -> Unary[MembersResult]:
    """Change a member's peer URLs."""
    request = pb.MemberUpdateRequest(ID=member_id, peerURLs=peer_urls)
    return Unary(_MEMBER_UPDATE, request, Effect.WRITE, _members, timeout)


def member_promote(member_id: int, *, timeout: float | None = None) -> Unary[MembersResult]:
    """Make a learner that has caught up a voter."""
    request = pb.MemberPromoteRequest(ID=member_id)
    return Unary(_MEMBER_PROMOTE, request, Effect.WRITE, _members, timeout)


def status(*, endpoint: str = "", timeout: float | None = None) -> Unary[Status]:
    """One member's version, sizes and place in the log."""
    return Unary(
        _STATUS,
        pb.StatusRequest(),
        Effect.READ,
        lambda m: _status(endpoint, m),
        timeout,
        endpoint,
    )


def alarms(
    *, type: AlarmType = AlarmType.NONE, timeout: float | None = None, endpoint: str = ""
) -> Unary[AlarmsResult]:
    """Alarms that are raised (of one type, or all)."""
    return _alarm(pb.AlarmRequest.GET, 0, type, timeout, endpoint)


def alarm(
    member_id: int,
    type: AlarmType,
    *,
    active: bool,
    timeout: float | None = None,
) -> Unary[AlarmsResult]:
    """Raise or clear one alarm of one member."""
    action = pb.AlarmRequest.ACTIVATE if active else pb.AlarmRequest.DEACTIVATE
    return _alarm(action, member_id, type, timeout, "")


def defragment(*, endpoint: str = "", timeout: float | None = None) -> Unary[None]:
    """Rewrite one member's database without its holes; the member is blocked meanwhile."""
    return Unary(
        _DEFRAGMENT,
        pb.DefragmentRequest(),
        Effect.WRITE,
        _nothing,
        timeout,
        endpoint,
        LONG_TIMEOUT_S,
    )


def hash_kv(
    *, revision: int = 0, endpoint: str = "", timeout: float | None = None
) -> Unary[HashResult]:
    """Hash of one member's history up to `revision` (0: newest)."""
    return Unary(
        _HASH_KV,
        pb.HashKVRequest(revision=revision),
        Effect.READ,
        lambda m: HashResult(header(m.header), m.hash, m.compact_revision, m.hash_revision),
        timeout,
        endpoint,
        LONG_TIMEOUT_S,
    )


def move_leader_at(endpoint: str, target_id: int, *, timeout: float | None = None) -> Unary[None]:
    """Ask the member at `endpoint`, which must lead, to hand over to `target_id`."""
    return Unary(
        _MOVE_LEADER,
        pb.MoveLeaderRequest(targetID=target_id),
        Effect.WRITE,
        _nothing,
        timeout,
        endpoint,
    )


def authenticate(name: str, password: str, *, timeout: float | None = None) -> Unary[str]:
    """A token for this user."""
    return Unary(
        _AUTHENTICATE,
        pb.AuthenticateRequest(name=name, password=password),
        Effect.READ,
        lambda m: str(m.token),
        timeout,
    )


def _first(message: Any) -> KeyValue | None:
    return key_value(message.kvs[0]) if message.kvs else None


def _header(message: Any) -> Header:
    return header(message.header)


def _nothing(_message: Any) -> None:
    return None


def _members(message: Any) -> MembersResult:
    return MembersResult(header(message.header), tuple(map(member, message.members)))


def _alarm(
    action: pb.AlarmRequest.AlarmAction,
    member_id: int,
    type: AlarmType,
    timeout: float | None,
    endpoint: str,
) -> Unary[AlarmsResult]:
    request = pb.AlarmRequest(
        action=action,
        memberID=member_id,
        alarm=int(type),  # type: ignore[arg-type]  # the stubs know only their own enum
    )
    return Unary(
        _ALARM,
        request,
        Effect.READ if action == pb.AlarmRequest.GET else Effect.WRITE,
        lambda m: AlarmsResult(
            header(m.header),
            tuple(Alarm(each.memberID, AlarmType(each.alarm)) for each in m.alarms),
        ),
        timeout,
        endpoint,
    )


def _status(endpoint: str, message: Any) -> Status:
    return Status(
        endpoint=endpoint,
        header=header(message.header),
        version=message.version,
        storage_version=message.storageVersion,
        db_size_bytes=message.dbSize,
        db_in_use_bytes=message.dbSizeInUse,
        db_quota_bytes=message.dbSizeQuota,
        leader=message.leader,
        raft_index=message.raftIndex,
        raft_applied_index=message.raftAppliedIndex,
        raft_term=message.raftTerm,
        is_learner=message.isLearner,
        errors=tuple(message.errors),
    )
