"""The fields form: one `"Name" : value` per line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from kvstore.cli.gotext import duration, quoted
from kvstore.pb.names import alarm_name

__all__ = ("WRITERS",)


def _field(name: str, value: Any) -> str:
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, (bytes, str)):
        value = quoted(value)
    return f'"{name}" : {value}'


def _header(header: Any) -> Iterator[str]:
    yield _field("ClusterID", header.cluster_id)
    yield _field("MemberID", header.member_id)
    yield _field("Revision", header.revision)
    yield _field("RaftTerm", header.raft_term)


def _pair(prefix: str, kv: Any) -> Iterator[str]:
    yield _field(prefix + "Key", kv.key)
    yield _field(prefix + "CreateRevision", kv.create_revision)
    yield _field(prefix + "ModRevision", kv.mod_revision)
    yield _field(prefix + "Version", kv.version)
    yield _field(prefix + "Value", kv.value)
    yield _field(prefix + "Lease", kv.lease)


def _get(answer: Any, _printer: Any, **_details: Any) -> Iterator[str]:
    yield from _header(answer.header)
    for kv in answer.kvs:
        yield from _pair("", kv)
    yield _field("More", answer.more)
    yield _field("Count", answer.count)


def _put(answer: Any, _printer: Any) -> Iterator[str]:
    yield from _header(answer.header)
    if answer.HasField("prev_kv"):
        yield from _pair("Prev", answer.prev_kv)


def _delete(answer: Any, _printer: Any) -> Iterator[str]:
    yield from _header(answer.header)
    yield _field("Deleted", answer.deleted)
    for kv in answer.prev_kvs:
        yield from _pair("Prev", kv)


def _txn(answer: Any, printer: Any) -> Iterator[str]:
    yield from _header(answer.header)
    yield _field("Succeeded", answer.succeeded)
    for response in answer.responses:
        kind = response.WhichOneof("response")
        if kind is not None:  # an operation that this program does not know
            yield from _IN_TXN[kind](getattr(response, kind), printer)


_IN_TXN: dict[str, Callable[..., Iterator[str]]] = {
    "response_range": _get,
    "response_put": _put,
    "response_delete_range": _delete,
    "response_txn": _txn,
}


def _watch(answer: Any, _printer: Any) -> Iterator[str]:
    yield from _header(answer.header)
    for event in answer.events:
        yield f'"Type" : {"DELETE" if event.type else "PUT"}'
        if event.HasField("prev_kv"):
            yield from _pair("Prev", event.prev_kv)
        yield from _pair("", event.kv)


def _lease(answer: Any, _printer: Any) -> Iterator[str]:
    yield from _header(answer.header)
    yield _field("ID", answer.ID)
    yield _field("TTL", answer.TTL)


def _header_only(answer: Any, _printer: Any, **_details: Any) -> Iterator[str]:
    yield from _header(answer.header)


def _time_to_live(answer: Any, _printer: Any, **_details: Any) -> Iterator[str]:
    yield from _header(answer.header)
    yield _field("ID", answer.ID)
    yield _field("TTL", answer.TTL)
    yield _field("GrantedTTL", answer.grantedTTL)
    for key in answer.keys:
        yield _field("Key", key)


def _leases(answer: Any, _printer: Any) -> Iterator[str]:
    yield from _header(answer.header)
    for lease in answer.leases:
        yield _field("ID", lease.ID)


def _members(answer: Any, _printer: Any, **_details: Any) -> Iterator[str]:
    yield from _header(answer.header)
    for member in answer.members:
        yield _field("ID", member.ID)
        yield _field("Name", member.name)
        for url in member.peerURLs:
            yield _field("PeerURL", url)
        for url in member.clientURLs:
            yield _field("ClientURL", url)
        yield _field("IsLearner", member.isLearner)
        yield ""


def _member_add(answer: Any, _printer: Any) -> Iterator[str]:
    yield from _header(answer.header)
    yield _field("MemberID", answer.member.ID)
    for url in answer.member.peerURLs:
        yield _field("PeerURL", url)


def _health(answer: Any, _printer: Any) -> Iterator[str]:
    for each in answer:
        yield _field("Endpoint", each.endpoint)
        yield _field("Health", each.healthy)
        yield f'"Took" : {duration(each.took_s)}'
        yield f'"Error" : {each.error}'
        yield ""


def _status(answer: Any, _printer: Any) -> Iterator[str]:
    for endpoint, found in answer:
        yield from _header(found.header)
        yield _field("Version", found.version)
        yield _field("DBSize", found.dbSize)
        yield _field("Leader", found.leader)
        yield _field("IsLearner", found.isLearner)
        yield _field("RaftIndex", found.raftIndex)
        yield _field("RaftTerm", found.raftTerm)
        yield _field("RaftAppliedIndex", found.raftAppliedIndex)
        yield f'"Errors" : [{" ".join(found.errors)}]'
        yield _field("Endpoint", endpoint)
        yield ""


def _hash(answer: Any, _printer: Any) -> Iterator[str]:
    for endpoint, found in answer:
        yield from _header(found.header)
        yield _field("Endpoint", endpoint)
        yield _field("Hash", found.hash)
        yield ""


def _alarms(answer: Any, _printer: Any) -> Iterator[str]:
    yield from _header(answer.header)
    for alarm in answer.alarms:
        yield _field("MemberID", alarm.memberID)
        yield f'"AlarmType" : {alarm_name(alarm.alarm)}'
        yield ""


def _snapshot_status(answer: Any, _printer: Any) -> Iterator[str]:
    yield _field("Hash", answer.hash)
    yield _field("Revision", answer.revision)
    yield _field("Keys", answer.keys)
    yield _field("Size", answer.size_bytes)


WRITERS: Mapping[str, Callable[..., Iterator[str]]] = MappingProxyType(
    {
        "get": _get,
        "put": _put,
        "del": _delete,
        "txn": _txn,
        "watch": _watch,
        "grant": _lease,
        "revoke": _header_only,
        "keep_alive": _lease,
        "time_to_live": _time_to_live,
        "leases": _leases,
        "alarms": _alarms,
        "members": _members,
        "member_add": _member_add,
        "member_remove": _header_only,
        "member_update": _header_only,
        "member_promote": _header_only,
        "health": _health,
        "status": _status,
        "hash": _hash,
        "snapshot_status": _snapshot_status,
    }
)
"""Kind of answer to the function that writes it."""
