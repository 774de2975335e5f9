"""A fair line of owners in the store: who came first owns, each waits for the one before.

Every place is a key on its holder's lease; its create revision is the order of arrival and the
fencing token. Keys and order of steps are those of etcd's concurrency recipes, so `etcdctl lock`
and `etcdctl elect` stand in the same lines.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvstore import errors as catalogue
from kvstore.client import operations
from kvstore.client.call import Effect, Unary
from kvstore.client.errors import (
    ElectionError,
    KvError,
    LeaseLostError,
    LockTimeoutError,
    Outcome,
    PreconditionError,
)
from kvstore.client.keys import Key, to_bytes
from kvstore.client.recipes.steps import Program, WaitDeleted
from kvstore.client.txn import CreateRevision, Delete, Get, Put, Txn
from kvstore.client.values import (
    KeyValue,
    PutResult,
    RangeResult,
    SortOrder,
    SortTarget,
    TxnResult,
)

__all__ = (
    "Claim",
    "Contender",
    "claim",
    "contenders",
    "enqueue",
    "leader",
    "line_prefix",
    "proclaim",
    "queue_key",
    "resign",
    "strange_answer",
    "take_place",
    "wait_turn",
)


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


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody in a line; the first ones own what the line is for."""

    identifier: bytes
    """What they called themselves (empty for `etcdctl lock`)."""
    key: bytes
    token: int
    """Create revision of `key`: the fencing token once they own it."""
    lease_id: int

    @classmethod
    def of(cls, kv: KeyValue) -> Contender:
        return cls(kv.value, kv.key, kv.create_revision, kv.lease)


def queue_key(name: Key, lease_id: int) -> bytes:
    """The key of the holder of `lease_id` in the queue `name`."""
    return line_prefix(name) + b"%x" % lease_id


def line_prefix(name: Key) -> bytes:
    """What the keys of the line `name` start with."""
    return to_bytes(name) + b"/"


def enqueue(name: Key, lease_id: int, value: Key = b"") -> Program[Claim]:
    """Take a place in the queue, or find the one that this lease has; a campaigner's `value`."""
    return take_place(queue_key(name, lease_id), line_prefix(name), lease_id, value)


def take_place(key: bytes, behind: bytes, lease_id: int, value: Key = b"") -> Program[Claim]:
    """As `enqueue`, for a place at `key` that comes behind older keys under `behind`."""
    oldest = Get(
        behind,
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
            raise strange_answer()
    owned = first.first is None or first.first.create_revision >= token
    return Claim(key, token, lease_id, owned, answer.header.revision)


def strange_answer() -> KvError:
    """An answer is another one than the request can have: the server is broken."""
    return KvError(
        "the server's answer has other results than were asked for",
        code=catalogue.Code.INTERNAL,
        outcome=Outcome.UNKNOWN,
    )


def wait_turn(behind: bytes, place: Claim) -> Program[Claim]:
    """Wait until everyone under `behind` who came before has left.

    Raises PreconditionError if that is the same lease, which would wait for itself for ever.
    """
    while True:
        ahead: RangeResult = yield operations.range(
            behind,
            prefix=True,
            limit=1,
            sort_target=SortTarget.CREATE,
            sort_order=SortOrder.DESCEND,
            max_create_revision=place.token - 1,
        )
        before = ahead.first
        if before is None:
            break
        if before.lease == place.lease_id:
            raise PreconditionError(
                f"lease {place.lease_id:x} already stands here as {_text(before.key)} and would "
                "wait for itself; release that first, or use another lease"
            )
        try:
            yield WaitDeleted(before.key, ahead.header.revision + 1)
        except LockTimeoutError as error:
            who = f"{_text(before.value)}, " if before.value else ""
            raise LockTimeoutError(
                f"before us: {who}key {_text(before.key)}, lease {before.lease:x}",
                outcome=error.outcome,
            ) from error
    own: RangeResult = yield operations.range(place.key)
    if own.first is None or own.first.create_revision != place.token:
        raise LeaseLostError(
            f"our key {_text(place.key)} is gone from the line: lease {place.lease_id:x} ended, "
            "or somebody deleted the key"
        )
    return Claim(place.key, place.token, place.lease_id, True, own.header.revision)


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def claim(name: Key, lease_id: int, value: Key = b"") -> Program[Claim]:
    """Take a place and wait for its turn."""
    place = yield from enqueue(name, lease_id, value)
    if place.owned:
        return place
    return (yield from wait_turn(line_prefix(name), place))


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
        line_prefix(name),
        prefix=True,
        limit=1,
        sort_target=SortTarget.CREATE,
        sort_order=SortOrder.ASCEND,
    )


def contenders(prefix: bytes) -> Program[tuple[Contender, ...]]:
    """Everyone whose key starts with `prefix`, in order of arrival."""
    found: RangeResult = yield operations.range(
        prefix, prefix=True, sort_target=SortTarget.CREATE, sort_order=SortOrder.ASCEND
    )
    return tuple(map(Contender.of, found.kvs))
