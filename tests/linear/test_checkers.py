"""Small histories, each legal or not for one reason, judged alike by both checkers."""

from __future__ import annotations

import pytest

from tests.linear import model, revision_check, wgl
from tests.linear.finding import Verdict
from tests.linear.history import (
    KV,
    Compact,
    Delete,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Outcome,
    Put,
    Range,
    Request,
    Response,
    Txn,
)
from tests.linear.models import (
    Acquire,
    LockModel,
    Read,
    RegisterModel,
    Release,
    StoreModel,
    Write,
)

A = KV(b"a", b"1", 2, 2, 1)
A_NEW = KV(b"a", b"2", 2, 3, 2)


def ok(call: int, ret: int | None, request: Request, response: Response) -> Operation:
    return Operation(call, call, request, ret, Outcome.OK, response)


def refused(call: int, ret: int, request: Request, error: str) -> Operation:
    return Operation(call, call, request, ret, Outcome.REFUSED, error=error)


def unknown(call: int, request: Request) -> Operation:
    return Operation(call, call, request)


PUT = ok(10, 20, Put(b"a", b"1"), Response(2))
AGAIN = ok(30, 40, Put(b"a", b"2"), Response(3))
COMPACT = ok(50, 60, Compact(3), Response(3))
GRANT = ok(1, 2, LeaseGrant(7, 5), Response(1))
LEASED = ok(3, 4, Put(b"a", b"1", 7), Response(2))
REVOKED = ok(5, 6, LeaseRevoke(7), Response(3))


def get(call: int, ret: int, response: Response, **options: object) -> Operation:
    return ok(call, ret, Range(b"a", **options), response)


LEGAL: dict[str, list[Operation]] = {
    "nothing": [],
    "a write and a read of it": [PUT, get(30, 40, Response(2, (A,), 1))],
    "a read beside a write sees the old": [PUT, get(15, 40, Response(1))],
    "a read beside a write sees the new": [PUT, get(5, 15, Response(2, (A,), 1))],
    "moments that touch are at once": [PUT, get(20, 25, Response(1))],
    "a stale serializable read": [PUT, get(30, 40, Response(1), serializable=True)],
    "a stale transaction of serializable reads": [
        PUT,
        ok(
            30,
            40,
            Txn((), (Range(b"a", serializable=True),)),
            Response(1, succeeded=True, parts=(Response(1),)),
        ),
    ],
    "a read of the past": [PUT, AGAIN, get(45, 46, Response(3, (A,), 1), revision=2)],
    "the past beside its compaction": [
        PUT, AGAIN, COMPACT, get(55, 70, Response(3, (A,), 1), revision=2)
    ],
    "compacted": [PUT, AGAIN, COMPACT, refused(70, 80, Range(b"a", revision=2), model.COMPACTED)],
    "compacted beside the compaction": [
        PUT, AGAIN, COMPACT, refused(45, 55, Range(b"a", revision=2), model.COMPACTED)
    ],
    "compacted by one that never answered": [
        PUT, AGAIN, unknown(50, Compact(3)), refused(60, 70, Compact(2), model.COMPACTED)
    ],
    "future": [PUT, refused(1, 5, Range(b"a", revision=2), model.FUTURE), AGAIN],
    "future on a member behind": [
        PUT, refused(30, 35, Range(b"a", revision=2, serializable=True), model.FUTURE)
    ],
    "compaction in the future": [PUT, refused(30, 35, Compact(3), model.FUTURE), AGAIN],
    "an error that says nothing": [PUT, refused(30, 35, Range(b"a"), "etcdserver: no leader")],
    "a read that never answered": [PUT, unknown(30, Range(b"a"))],
    "an absent write": [PUT, unknown(5, Put(b"a", b"9")), get(30, 40, Response(2, (A,), 1))],
    "a done write without a return": [
        ok(10, None, Put(b"a", b"1"), Response(2)), get(30, 40, Response(2, (A,), 1))
    ],
    "a lease's life": [GRANT, LEASED, REVOKED, get(7, 8, Response(3))],
    "a lease granted by one that never answered": [unknown(1, LeaseGrant(7, 5)), LEASED],
    "a grant beside its use": [ok(1, 9, LeaseGrant(7, 5), Response(1)), LEASED],
    "a lease without keys": [GRANT, ok(5, 6, LeaseRevoke(7), Response(1))],
    "a delete of nothing": [ok(1, 2, Delete(b"a"), Response(1)), PUT],
}  # fmt: skip

ILLEGAL: dict[str, list[Operation]] = {
    "a stale read": [PUT, get(30, 40, Response(1))],
    "a read of nothing written": [get(1, 2, Response(1, (A,), 1))],
    "a value before it was written": [get(1, 5, Response(2, (A,), 1)), PUT],
    "a stale serializable read of the future": [
        get(1, 5, Response(2, (A,), 1), serializable=True), PUT
    ],
    "a serializable read of what never was": [
        PUT, get(30, 40, Response(2, (A_NEW,), 1), serializable=True)
    ],
    "reads that go back": [
        ok(10, 50, Put(b"a", b"1"), Response(2)),
        get(20, 25, Response(2, (A,), 1)),
        get(30, 35, Response(1)),
    ],
    "one revision twice": [PUT, ok(30, 40, Put(b"a", b"2"), Response(2))],
    "a revision left out": [PUT, ok(30, 40, Put(b"a", b"2"), Response(4))],
    "a revision nobody made": [PUT, get(30, 40, Response(3, (A,), 1))],
    "a write at the first revision": [ok(1, 2, Put(b"a", b"1"), Response(1))],
    "a revision below the first": [get(1, 2, Response(0))],
    "writes against time": [
        ok(30, 40, Put(b"a", b"1"), Response(2)), ok(10, 20, Put(b"a", b"2"), Response(3))
    ],
    "a delete that missed": [PUT, ok(30, 40, Delete(b"a"), Response(2))],
    "a delete of nothing that deleted": [ok(1, 2, Delete(b"a"), Response(2, deleted=1))],
    "a wrong count": [PUT, get(30, 40, Response(2, (A,), 2))],
    "a wrong version": [PUT, AGAIN, get(45, 46, Response(3, (KV(b"a", b"2", 2, 3, 1),), 1))],
    "a wrong past": [PUT, AGAIN, get(45, 46, Response(3, (A_NEW,), 1), revision=2)],
    "the past after its compaction": [
        PUT, AGAIN, COMPACT, get(70, 80, Response(3, (A,), 1), revision=2)
    ],
    "the past after its compaction, by a later revision": [
        PUT, AGAIN, COMPACT,
        ok(55, 65, Put(b"b", b""), Response(4)),
        get(52, 70, Response(4, (A,), 1), revision=2),
    ],
    "the compacted past in a transaction": [
        PUT, AGAIN, COMPACT,
        ok(70, 80, Txn((), (Range(b"a", revision=2), Put(b"b", b""))),
           Response(4, succeeded=True, parts=(Response(3, (A,), 1), Response(4)))),
    ],
    "compacted before the compaction": [
        PUT, AGAIN, refused(45, 47, Range(b"a", revision=2), model.COMPACTED), COMPACT
    ],
    "compacted without any compaction": [
        PUT, refused(30, 35, Range(b"a", revision=2), model.COMPACTED)
    ],
    "compactions against their order": [
        PUT, AGAIN, COMPACT, ok(70, 80, Compact(2), Response(3))
    ],
    "future, but it was there": [PUT, refused(30, 35, Range(b"a", revision=2), model.FUTURE)],
    "the first revision as future": [refused(1, 2, Range(b"a", revision=1), model.FUTURE)],
    "a lease used before its grant": [LEASED, ok(5, 6, LeaseGrant(7, 5), Response(2))],
    "a lease never granted": [ok(3, 4, Put(b"a", b"1", 7), Response(2))],
    "a lease used after its end": [
        GRANT, ok(3, 4, LeaseRevoke(7), Response(1)), ok(5, 6, Put(b"a", b"1", 7), Response(2))
    ],
    "a lease used after its end, with keys": [
        GRANT, LEASED, REVOKED, ok(7, 8, Put(b"a", b"1", 7), Response(4))
    ],
    "a lease revoked twice": [GRANT, LEASED, REVOKED, ok(7, 8, LeaseRevoke(7), Response(3))],
    "a lease revoked before its grant": [
        ok(1, 2, LeaseRevoke(7), Response(1)), ok(3, 4, LeaseGrant(7, 5), Response(1))
    ],
    "a revocation that left its key": [
        GRANT, LEASED, ok(5, 6, LeaseRevoke(7), Response(2))
    ],
    "a transaction's wrong branch": [
        ok(1, 2, Txn((), (Put(b"a", b"1"),)), Response(1, succeeded=False))
    ],
}  # fmt: skip


def both(history: list[Operation]) -> tuple[Verdict, Verdict]:
    by_revision = revision_check.check(history).verdict
    return by_revision, wgl.check(StoreModel(), history).verdict


@pytest.mark.parametrize("name", LEGAL)
def test_legal(name: str) -> None:
    assert both(LEGAL[name]) == (Verdict.LEGAL, Verdict.LEGAL)


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal(name: str) -> None:
    assert both(ILLEGAL[name]) == (Verdict.ILLEGAL, Verdict.ILLEGAL)


def test_a_write_of_unknown_outcome_is_found_by_the_search_only() -> None:
    history = [unknown(5, Put(b"a", b"1")), get(30, 40, Response(2, (A,), 1))]
    assert both(history) == (Verdict.INCONCLUSIVE, Verdict.LEGAL)


# -------------------------------------------------------------------------- the smaller models


def lock(client: int, call: int, ret: int, request: object, token: int | None = None) -> Operation:
    return Operation(client, call, request, ret, Outcome.OK, token)


def lock_verdict(*history: Operation) -> Verdict:
    return wgl.check(LockModel(), history).verdict


def test_a_lock_has_one_holder() -> None:
    first, second = lock(1, 1, 2, Acquire("l"), 5), lock(2, 3, 4, Acquire("l"), 6)
    assert lock_verdict(first, second) is Verdict.ILLEGAL
    between = lock(1, 2, 3, Release("l"))
    assert lock_verdict(first, between, second) is Verdict.LEGAL
    assert lock_verdict(first, lock(2, 2, 3, Release("l")), second) is Verdict.ILLEGAL
    assert lock_verdict(first, lock(2, 3, 4, Acquire("other"), 6)) is Verdict.LEGAL


def test_fencing_tokens_grow() -> None:
    history = [
        lock(1, 1, 2, Acquire("l"), 5), lock(1, 3, 4, Release("l")), lock(2, 5, 6, Acquire("l"), 5)
    ]  # fmt: skip
    assert lock_verdict(*history) is Verdict.ILLEGAL
    history[2].response = 6
    assert lock_verdict(*history) is Verdict.LEGAL


def test_an_unheard_release_may_have_freed_the_lock() -> None:
    held = lock(1, 1, 2, Acquire("l"), 5)
    freed = Operation(1, 3, Release("l"))
    assert lock_verdict(held, freed, lock(2, 5, 6, Acquire("l"), 6)) is Verdict.LEGAL
    freed.call = 7
    assert lock_verdict(held, freed, lock(2, 5, 6, Acquire("l"), 6)) is Verdict.ILLEGAL


def test_a_register_without_a_return() -> None:
    written = Operation(1, 1, Write(3))
    read = Operation(2, 5, Read(), 6, Outcome.OK, 3)
    assert wgl.check(RegisterModel(), [written, read]).legal
    again = Operation(2, 7, Read(), 8, Outcome.OK, None)
    assert not wgl.check(RegisterModel(), [written, read, again]).legal
