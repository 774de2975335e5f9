"""Procedures of several calls, written once for both clients: locks, elections, maintenance.

A `Program` is a generator that yields steps (a `Unary` to call, or a `WaitDeleted`), is sent each
answer, gets a failed step's KvError thrown in, and returns the result. Keys and order of steps
are those of etcd's concurrency recipes, so `etcdctl lock` and `etcdctl elect` work against ours.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

from kvstore import errors as catalogue
from kvstore.client import operations
from kvstore.client.call import Effect, Unary
from kvstore.client.errors import (
    ElectionError,
    KvError,
    LeaseLostError,
    Outcome,
    PermissionDeniedError,
)
from kvstore.client.keys import Key, to_bytes
from kvstore.client.txn import CreateRevision, Delete, Get, Put, Txn
from kvstore.client.values import (
    AlarmsResult,
    AlarmType,
    EndpointHealth,
    PutResult,
    RangeResult,
    SortOrder,
    SortTarget,
    TxnResult,
)

__all__ = (
    "Claim",
    "Program",
    "WaitDeleted",
    "claim",
    "disarm",
    "enqueue",
    "health",
    "leader",
    "move_leader",
    "proclaim",
    "queue_key",
    "resign",
    "wait_turn",
)

T = TypeVar("T")


class WaitDeleted(NamedTuple):
    """Wait until `key` is deleted at `revision` or later (or its history is gone: look again)."""

    key: bytes
    revision: int


Program: TypeAlias = Generator[Unary[Any] | WaitDeleted, Any, T]


@dataclass(frozen=True, slots=True)
class Claim:
    """A place in a queue of owners. `token` grows from owner to owner: the fencing token."""

    key: bytes
    token: int
    """Create revision of `key`."""
    lease_id: int
    owned: bool
    """The place is the first one."""
    revision: int
    """Revision of the store when this was found out."""


def queue_key(name: Key, lease_id: int) -> bytes:
    """The key of the holder of `lease_id` in the queue `name`."""
    return _prefix(name) + b"%x" % lease_id


def _prefix(name: Key) -> bytes:
    return to_bytes(name) + b"/"


def enqueue(name: Key, lease_id: int, value: Key = b"") -> Program[Claim]:
    """Take a place in the queue, or find the one that this lease has; a campaigner's `value`."""
    key = queue_key(name, lease_id)
    oldest = Get(
        _prefix(name),
        prefix=True,
        sort_target=SortTarget.CREATE,
        sort_order=SortOrder.ASCEND,
        limit=1,
    )
    txn = (
        Txn()
        .when(CreateRevision(key) == 0)
        .then(Put(key, value, lease=lease_id), oldest)
        .otherwise(Get(key), oldest)
    )
    # The guard makes repetition harmless: a second run finds what the first one wrote.
    answer: TxnResult = yield txn.build()._replace(effect=Effect.REPEATABLE)
    token = answer.header.revision
    match answer.responses:
        case (PutResult(), RangeResult() as first) if answer.succeeded:
            pass
        case (RangeResult(kvs=(own,)), RangeResult() as first) if not answer.succeeded:
            token = own.create_revision
            if own.value != to_bytes(value):
                yield from proclaim(Claim(key, token, lease_id, False, 0), value)
        case _:
            raise KvError(
                "the server's answer to the transaction has other results than it asked for",
                code=catalogue.Code.INTERNAL,
                outcome=Outcome.UNKNOWN,
            )
    owned = first.first is None or first.first.create_revision == token
    return Claim(key, token, lease_id, owned, answer.header.revision)


def wait_turn(name: Key, place: Claim) -> Program[Claim]:
    """Wait until everyone who came before has left."""
    while True:
        ahead: RangeResult = yield operations.range(
            _prefix(name),
            prefix=True,
            limit=1,
            sort_target=SortTarget.CREATE,
            sort_order=SortOrder.DESCEND,
            max_create_revision=place.token - 1,
        )
        if ahead.first is None:
            break
        yield WaitDeleted(ahead.first.key, ahead.header.revision + 1)
    own: RangeResult = yield operations.range(place.key)
    if own.first is None or own.first.create_revision != place.token:
        raise LeaseLostError(catalogue.MUTEX_SESSION_EXPIRED.message)
    return Claim(place.key, place.token, place.lease_id, True, own.header.revision)


def claim(name: Key, lease_id: int, value: Key = b"") -> Program[Claim]:
    """Take a place and wait for its turn."""
    place = yield from enqueue(name, lease_id, value)
    if place.owned:
        return place
    return (yield from wait_turn(name, place))


def proclaim(place: Claim, value: Key) -> Program[int]:
    """Change the value of a candidate who is still there; the new revision, or ElectionError."""
    txn = (
        Txn()
        .when(CreateRevision(place.key) == place.token)
        .then(Put(place.key, value, lease=place.lease_id))
    )
    answer: TxnResult = yield txn.build()
    if not answer.succeeded:
        raise ElectionError(catalogue.ELECTION_NOT_LEADER.message)
    return answer.header.revision


def resign(place: Claim) -> Program[None]:
    """Leave the queue; nothing happens if somebody else has the key by now."""
    txn = Txn().when(CreateRevision(place.key) == place.token).then(Delete(place.key))
    yield txn.build()._replace(effect=Effect.REPEATABLE)


def leader(name: Key) -> Unary[RangeResult]:
    """The first in the queue."""
    return operations.range(
        _prefix(name),
        prefix=True,
        limit=1,
        sort_target=SortTarget.CREATE,
        sort_order=SortOrder.ASCEND,
    )


def move_leader(endpoints: Sequence[str], target_id: int, timeout: float | None) -> Program[int]:
    """Find the leader among `endpoints`, have it hand over; returns the id it had."""
    asked: KvError | None = None
    for endpoint in endpoints:
        try:
            status = yield operations.status(endpoint=endpoint, timeout=timeout)
        except KvError as error:
            asked = error
            continue
        if status.leader == status.header.member_id:
            yield operations.move_leader_at(endpoint, target_id, timeout=timeout)
            leader_id: int = status.leader
            return leader_id
    raise KvError(
        "no leader among the endpoints " + ", ".join(endpoints),
        code=catalogue.Code.FAILED_PRECONDITION,
    ) from asked


def disarm(type: AlarmType, member_id: int, timeout: float | None) -> Program[AlarmsResult]:
    """Clear every raised alarm that matches (NONE and 0 match all); returns the cleared ones."""
    raised: AlarmsResult = yield operations.alarms(type=type, timeout=timeout)
    header = raised.header
    cleared = []
    for each in raised.alarms:
        if member_id in (0, each.member_id):
            answer: AlarmsResult = yield operations.alarm(
                each.member_id, each.type, active=False, timeout=timeout
            )
            header = answer.header
            cleared.append(each)
    return AlarmsResult(header, tuple(cleared))


def health(
    endpoint: str, timeout: float | None, clock: Callable[[], float]
) -> Program[EndpointHealth]:
    """Whether a linearizable read works and no alarm is raised, as `etcdctl endpoint health`."""
    start = clock()
    problem = ""
    try:
        # A refusal of the read is an answer all the same: the member and its leader work.
        try:
            yield operations.range(b"health", endpoint=endpoint, timeout=timeout)
        except PermissionDeniedError:
            pass
        took_s = clock() - start
        raised: AlarmsResult = yield operations.alarms(endpoint=endpoint, timeout=timeout)
        if raised.alarms:
            problem = "active alarms: " + ", ".join(each.type.name for each in raised.alarms)
    except PermissionDeniedError:
        pass
    except KvError as error:
        took_s = clock() - start
        problem = error.message
    return EndpointHealth(endpoint, not problem, took_s, problem)
