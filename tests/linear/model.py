"""A small model of an etcd store: what each request must answer, by the API's documents.

`apply(store, request)` is a pure function. A `Store` is an immutable value that can be kept,
compared and hashed in constant time, which is what a search through orders of requests needs: its
content is a chain of commits, and the same chain is the same object.

Written from the API reference alone, so that it cannot share a mistake with the server:
revisions begin at 1; a request that changes anything makes exactly one; a put after a delete
begins a new generation; a transaction's guards, its children's too, see the state before it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.linear.history import (
    KV,
    Compact,
    Compare,
    Delete,
    Event,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    Request,
    Response,
    Txn,
    covers,
    deleted,
)

COMPACTED = "etcdserver: mvcc: required revision has been compacted"
FUTURE = "etcdserver: mvcc: required revision is a future revision"
LEASE_NOT_FOUND = "etcdserver: requested lease not found"
LEASE_EXISTS = "etcdserver: lease already exists"

FIRST_REVISION = 1  # of an empty store
NEVER_COMPACTED = -1


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that is turned down; it has changed nothing."""

    error: str


class Commit:
    """The keys as one revision left them, and the chain of revisions before it.

    `changes` are the pairs that it wrote, in order; one with version 0 is a deletion. Commits are
    made by `then`, which gives the same object for the same changes, so that two commits are equal
    exactly if they are identical. `jump` points some way back along the chain, such that any
    earlier revision is reached in a logarithmic number of steps.
    """

    __slots__ = ("changes", "child", "jump", "keys", "others", "parent", "revision")

    def __init__(
        self, keys: Mapping[bytes, KV], changes: tuple[KV, ...] = (), parent: Commit | None = None
    ) -> None:
        self.keys = keys
        self.changes = changes
        self.parent = parent
        self.child: Commit | None = None
        self.others: dict[tuple[KV, ...], Commit] | None = None  # few commits have a second child
        if parent is None:
            self.revision = FIRST_REVISION
            self.jump = self
            return
        self.revision = parent.revision + 1
        near, far = parent.jump, parent.jump.jump
        even = parent.revision - near.revision == near.revision - far.revision
        self.jump = far if even else parent

    def then(self, changes: tuple[KV, ...], keys: Mapping[bytes, KV]) -> Commit:
        """The next revision; `keys` is the whole content after it."""
        if self.child is None:
            self.child = Commit(keys, changes, self)
        if self.child.changes == changes:
            return self.child
        if self.others is None:
            self.others = {}
        child = self.others.get(changes)
        if child is None:
            child = self.others[changes] = Commit(keys, changes, self)
        return child

    def at(self, revision: int) -> Commit:
        """The commit of this revision, which must not lie after this one or before the first."""
        found = self
        while found.revision > revision:
            if found.jump.revision >= revision:
                found = found.jump
            else:
                assert found.parent is not None
                found = found.parent
        return found

    def events(self) -> tuple[Event, ...]:
        """What a watch of everything is told of this revision, previous pairs included."""
        before = self.parent.keys if self.parent is not None else {}
        return tuple(
            Event("put" if kv.version else "delete", kv, before.get(kv.key)) for kv in self.changes
        )


class Store(NamedTuple):
    """A whole store: its content, the revision it was compacted at, the leases that live."""

    head: Commit
    compacted: int = NEVER_COMPACTED
    leases: frozenset[int] = frozenset()

    @property
    def revision(self) -> int:
        return self.head.revision


def empty() -> Store:
    return Store(Commit({}))


def apply(store: Store, request: Request) -> tuple[Store, Response | Refusal]:
    """The store after the request, and its answer; the same store if nothing has changed."""
    return _APPLY[type(request)](store, request)


def log_of(store: Store) -> list[tuple[int, tuple[Event, ...]]]:
    """Every revision that changed something, with its events."""
    log: list[tuple[int, tuple[Event, ...]]] = []
    commit = store.head
    while commit.parent is not None:
        if commit.changes:
            log.append((commit.revision, commit.events()))
        commit = commit.parent
    return log[::-1]


def agrees(expected: Response, given: Response) -> bool:
    """Whether two answers are the same, but that a part need not tell its revision."""
    if expected == given:
        return True
    if not expected.parts or len(expected.parts) != len(given.parts):
        return False
    return (
        expected.revision == given.revision
        and expected.succeeded == given.succeeded
        and all(
            agrees(_told(mine, theirs), theirs)
            for mine, theirs in zip(expected.parts, given.parts, strict=True)
        )
    )


def _told(expected: Response, given: Response) -> Response:
    if given.revision:
        return expected
    return Response(
        0, expected.kvs, expected.count, expected.deleted, expected.succeeded, expected.parts
    )


# --------------------------------------------------------------------------- reading and writing


def read(keys: Mapping[bytes, KV], request: Range, revision: int) -> Response:
    """What a read of this content answers, with `revision` in the header."""
    if request.end is None:
        kv = keys.get(request.key)
        found: tuple[KV, ...] = () if kv is None else (kv,)
    else:
        names = sorted(name for name in keys if covers(request.key, request.end, name))
        found = tuple(keys[name] for name in names)
    count = len(found)
    if request.count_only:
        found = ()
    elif request.limit > 0:
        found = found[: request.limit]
    return Response(revision, found, count)


class _Writing:
    """The changes of one request while it is carried out."""

    __slots__ = ("base", "changes", "keys")

    def __init__(self, base: Commit) -> None:
        self.base = base
        self.keys: dict[bytes, KV] = dict(base.keys)
        self.changes: list[KV] = []

    @property
    def revision(self) -> int:
        """What an answer given now holds: the new revision once anything has changed."""
        return self.base.revision + bool(self.changes)

    def put(self, request: Put) -> Response:
        revision = self.base.revision + 1
        old = self.keys.get(request.key)
        create, version = (old.create, old.version + 1) if old else (revision, 1)
        kv = KV(request.key, request.value, create, revision, version, request.lease)
        self.keys[request.key] = kv
        self.changes.append(kv)
        return Response(revision)

    def delete(self, names: list[bytes]) -> Response:
        for name in names:
            del self.keys[name]
            self.changes.append(deleted(name, self.base.revision + 1))
        return Response(self.revision, deleted=len(names))

    def delete_range(self, request: Delete) -> Response:
        if request.end is None:
            return self.delete([request.key] if request.key in self.keys else [])
        return self.delete(sorted(n for n in self.keys if covers(request.key, request.end, n)))

    def commit(self) -> Commit:
        if not self.changes:
            return self.base
        return self.base.then(tuple(self.changes), self.keys)


def _refusal(store: Store, request: Put | Range | Delete) -> Refusal | None:
    """Why a plain operation would be turned down in this state."""
    if isinstance(request, Range) and request.revision > 0:
        if request.revision > store.revision:
            return Refusal(FUTURE)
        if request.revision < store.compacted:
            return Refusal(COMPACTED)
    if isinstance(request, Put) and request.lease and request.lease not in store.leases:
        return Refusal(LEASE_NOT_FOUND)
    return None


def _range(store: Store, request: Range) -> tuple[Store, Response | Refusal]:
    refusal = _refusal(store, request)
    if refusal is not None:
        return store, refusal
    head = store.head
    shown = head.at(request.revision) if request.revision > 0 else head
    return store, read(shown.keys, request, head.revision)


def _put(store: Store, request: Put) -> tuple[Store, Response | Refusal]:
    refusal = _refusal(store, request)
    if refusal is not None:
        return store, refusal
    writing = _Writing(store.head)
    answer = writing.put(request)
    return Store(writing.commit(), store.compacted, store.leases), answer


def _delete(store: Store, request: Delete) -> tuple[Store, Response | Refusal]:
    writing = _Writing(store.head)
    answer = writing.delete_range(request)
    return store._replace(head=writing.commit()), answer


# --------------------------------------------------------------------------------- transactions

_RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


class _Choice(NamedTuple):
    """A transaction with the branch that its guards chose; `plan` aligns with the branch."""

    succeeded: bool
    plan: tuple[_Choice | Put | Range | Delete, ...]


def holds(keys: Mapping[bytes, KV], compare: Compare) -> bool:
    """Whether one guard holds; a missing key counts as zeros, and has no value to compare."""
    kv = keys.get(compare.key)
    if compare.target == "value":
        return kv is not None and _RELATIONS[compare.relation](kv.value, compare.operand)
    figure = 0 if kv is None else getattr(kv, compare.target)
    return _RELATIONS[compare.relation](figure, compare.operand)


def _choose(keys: Mapping[bytes, KV], txn: Txn) -> _Choice:
    succeeded = all(holds(keys, compare) for compare in txn.compares)
    branch = txn.success if succeeded else txn.failure
    plan = tuple(_choose(keys, one) if isinstance(one, Txn) else one for one in branch)
    return _Choice(succeeded, plan)


def _first_refusal(store: Store, choice: _Choice) -> Refusal | None:
    for one in choice.plan:
        if isinstance(one, _Choice):
            refusal = _first_refusal(store, one)
        else:
            refusal = _refusal(store, one)
        if refusal is not None:
            return refusal
    return None


def _carry_out(writing: _Writing, choice: _Choice) -> Response:
    parts: list[Response] = []
    for one in choice.plan:
        if isinstance(one, _Choice):
            parts.append(_carry_out(writing, one))
        elif isinstance(one, Put):
            parts.append(writing.put(one))
        elif isinstance(one, Delete):
            parts.append(writing.delete_range(one))
        elif one.revision > 0:  # the past as it was committed, without this transaction's changes
            parts.append(read(writing.base.at(one.revision).keys, one, writing.revision))
        else:
            parts.append(read(writing.keys, one, writing.revision))
    return Response(writing.revision, succeeded=choice.succeeded, parts=tuple(parts))


def _txn(store: Store, request: Txn) -> tuple[Store, Response | Refusal]:
    choice = _choose(store.head.keys, request)
    refusal = _first_refusal(store, choice)
    if refusal is not None:
        return store, refusal
    writing = _Writing(store.head)
    answer = _carry_out(writing, choice)
    return store._replace(head=writing.commit()), answer


# ------------------------------------------------------------------------ compaction and leases


def _compact(store: Store, request: Compact) -> tuple[Store, Response | Refusal]:
    if request.revision > store.revision:
        return store, Refusal(FUTURE)
    if request.revision <= store.compacted:
        return store, Refusal(COMPACTED)
    return store._replace(compacted=request.revision), Response(store.revision)


def attached(keys: Mapping[bytes, KV], lease_id: int) -> list[bytes]:
    """The keys that go with this lease, in order."""
    return sorted(name for name, kv in keys.items() if kv.lease == lease_id)


def _lease_grant(store: Store, request: LeaseGrant) -> tuple[Store, Response | Refusal]:
    # A lease without keys lapses without a trace; only one that still holds keys surely lives.
    if request.lease_id in store.leases and attached(store.head.keys, request.lease_id):
        return store, Refusal(LEASE_EXISTS)
    leases = store.leases | {request.lease_id}
    return store._replace(leases=leases), Response(store.revision)


def _lease_revoke(store: Store, request: LeaseRevoke) -> tuple[Store, Response | Refusal]:
    if request.lease_id not in store.leases:
        return store, Refusal(LEASE_NOT_FOUND)
    writing = _Writing(store.head)
    writing.delete(attached(writing.keys, request.lease_id))
    after = store._replace(head=writing.commit(), leases=store.leases - {request.lease_id})
    return after, Response(after.revision)


_APPLY: dict[type, Callable[[Store, Any], tuple[Store, Response | Refusal]]] = {
    Range: _range,
    Put: _put,
    Delete: _delete,
    Txn: _txn,
    Compact: _compact,
    LeaseGrant: _lease_grant,
    LeaseRevoke: _lease_revoke,
}
