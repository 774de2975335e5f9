"""The model against statements of the API document, one by one."""

from __future__ import annotations

import pytest

from tests.linear.history import (
    KV,
    TO_THE_END,
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
    deleted,
)
from tests.linear.model import (
    COMPACTED,
    FUTURE,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    Refusal,
    Store,
    agrees,
    apply,
    empty,
    log_of,
)

A = KV(b"a", b"1", 2, 2, 1)


def after(*requests: Request) -> Store:
    store = empty()
    for request in requests:
        store, answer = apply(store, request)
        assert isinstance(answer, Response), answer
    return store


def answer(store: Store, request: Request) -> Response | Refusal:
    return apply(store, request)[1]


def test_an_empty_store_is_at_revision_1_and_its_first_write_makes_2() -> None:
    assert answer(empty(), Range(b"a")) == Response(1)
    assert answer(empty(), Put(b"a", b"1")) == Response(2)


def test_versions_count_the_puts_of_one_generation() -> None:
    store = after(Put(b"a", b"1"), Put(b"a", b"2"))
    assert answer(store, Range(b"a")) == Response(3, (KV(b"a", b"2", 2, 3, 2),), 1)
    store = after(Put(b"a", b"1"), Delete(b"a"), Put(b"a", b"2"))
    assert answer(store, Range(b"a")) == Response(4, (KV(b"a", b"2", 4, 4, 1),), 1)


def test_what_changes_nothing_makes_no_revision() -> None:
    store = after(Put(b"a", b"1"))
    for request in (Delete(b"x"), Txn((Compare(b"a", "version", "=", 9),), (Put(b"a", b""),))):
        changed, given = apply(store, request)
        assert changed == store
        assert isinstance(given, Response)
        assert given.revision == 2


def test_a_range_ends_before_its_end_and_counts_beyond_its_limit() -> None:
    store = after(Put(b"a", b""), Put(b"b", b""), Put(b"c", b""))
    found = answer(store, Range(b"a", b"c", limit=1))
    assert isinstance(found, Response)
    assert ([kv.key for kv in found.kvs], found.count) == ([b"a"], 2)
    assert answer(store, Range(b"b", TO_THE_END, count_only=True)) == Response(4, (), 2)
    assert answer(store, Range(b"c", b"a")) == Response(4)


def test_the_past_is_read_at_its_revision_under_the_present_header() -> None:
    store = after(Put(b"a", b"1"), Put(b"a", b"2"), Delete(b"a"))
    assert answer(store, Range(b"a", revision=2)) == Response(4, (A,), 1)
    assert answer(store, Range(b"a", revision=4)) == Response(4)
    assert answer(store, Range(b"a", revision=5)) == Refusal(FUTURE)


def test_every_past_revision_is_found() -> None:
    store = after(*(Put(b"a", b"%d" % i) for i in range(100)))
    for revision in range(2, 102):
        found = answer(store, Range(b"a", revision=revision))
        assert isinstance(found, Response)
        assert found.kvs[0].mod == revision


def test_compaction() -> None:
    store = after(Put(b"a", b"1"), Put(b"a", b"2"), Put(b"a", b"3"), Compact(3))
    assert answer(store, Range(b"a", revision=2)) == Refusal(COMPACTED)
    assert answer(store, Range(b"a", revision=3)) == Response(4, (KV(b"a", b"2", 2, 3, 2),), 1)
    assert answer(store, Compact(3)) == Refusal(COMPACTED)
    assert answer(store, Compact(5)) == Refusal(FUTURE)
    assert answer(store, Compact(4)) == Response(4)
    assert answer(empty(), Compact(0)) == Response(1)


def test_operations_of_a_transaction_see_the_ones_before_and_share_a_revision() -> None:
    txn = Txn((), (Range(b"a"), Put(b"a", b"1"), Range(b"a"), Put(b"b", b"2"), Delete(b"a")))
    store, given = apply(empty(), txn)
    assert given == Response(
        2,
        succeeded=True,
        parts=(Response(1), Response(2), Response(2, (A,), 1), Response(2), Response(2, deleted=1)),
    )
    assert [event.kv.key for event in store.head.events()] == [b"a", b"b", b"a"]


def test_a_past_read_in_a_transaction_does_not_see_its_writes() -> None:
    store = after(Put(b"a", b"0"))
    _, given = apply(store, Txn((), (Put(b"a", b"1"), Range(b"a", revision=2))))
    assert isinstance(given, Response)
    assert given.parts[1].kvs == (KV(b"a", b"0", 2, 2, 1),)


def test_guards_of_nested_transactions_see_the_state_before_all() -> None:
    nested = Txn((Compare(b"a", "create", "=", 0),), (Put(b"b", b""),), (Put(b"c", b""),))
    store = after(Txn((), (Put(b"a", b""), nested)))
    assert sorted(store.head.keys) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        (Compare(b"a", "value", "=", b"1"), True),
        (Compare(b"a", "value", "<", b"2"), True),
        (Compare(b"a", "value", "!=", b"1"), False),
        (Compare(b"a", "mod", ">", 1), True),
        (Compare(b"a", "version", "=", 2), False),
        (Compare(b"a", "lease", "=", 0), True),
        (Compare(b"x", "create", "=", 0), True),
        (Compare(b"x", "version", "<", 1), True),
        (Compare(b"x", "value", "!=", b"1"), False),
        (Compare(b"x", "value", "=", b""), False),
    ],
)
def test_guards(compare: Compare, expected: bool) -> None:
    given = answer(after(Put(b"a", b"1")), Txn((compare,)))
    assert given == Response(2, succeeded=expected)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Put(b"b", b"", lease=7), LEASE_NOT_FOUND),
        (Range(b"a", revision=9), FUTURE),
        (Range(b"a", revision=1), COMPACTED),
        (Txn((), (Put(b"b", b"", lease=7),)), LEASE_NOT_FOUND),
    ],
)
def test_one_bad_operation_of_the_taken_branch_rejects_all(bad: Put | Range, error: str) -> None:
    store = after(Put(b"a", b"1"), Compact(2))
    changed, given = apply(store, Txn((), (Put(b"c", b""), bad)))
    assert (changed, given) == (store, Refusal(error))
    _, given = apply(store, Txn((), (Put(b"c", b""),), (bad,)))
    assert isinstance(given, Response)


def test_a_revoked_lease_takes_its_keys_along_in_one_revision() -> None:
    store = after(LeaseGrant(7, 5), Put(b"b", b"", 7), Put(b"a", b"", 7), Put(b"c", b"", 7))
    store, _ = apply(store, Put(b"c", b"kept"))
    store, given = apply(store, LeaseRevoke(7))
    assert given == Response(6)
    assert [event.kv for event in store.head.events()] == [deleted(b"a", 6), deleted(b"b", 6)]
    assert answer(store, LeaseRevoke(7)) == Refusal(LEASE_NOT_FOUND)
    assert answer(store, Put(b"a", b"", 7)) == Refusal(LEASE_NOT_FOUND)


def test_a_lease_is_granted_again_only_without_keys() -> None:
    store = after(LeaseGrant(7, 5), Put(b"a", b"", 7))
    assert answer(store, LeaseGrant(7, 5)) == Refusal(LEASE_EXISTS)
    # Without keys it may have lapsed unseen.
    assert answer(after(LeaseGrant(7, 5)), LeaseGrant(7, 5)) == Response(1)
    assert answer(after(LeaseGrant(7, 5)), LeaseRevoke(7)) == Response(1)


def test_the_log_holds_what_a_watch_of_everything_sees() -> None:
    store = after(Put(b"a", b"1"), Range(b"a"), Txn((), (Delete(b"a"), Put(b"b", b"2"))))
    assert log_of(store) == [
        (2, (Event("put", A),)),
        (3, (Event("delete", deleted(b"a", 3), A), Event("put", KV(b"b", b"2", 3, 3, 1)))),
    ]


def test_equal_histories_make_equal_stores_and_others_do_not() -> None:
    store = after(Put(b"a", b"1"))
    one, _ = apply(store, Put(b"b", b"1"))
    two, _ = apply(store, Put(b"b", b"2"))
    again, _ = apply(store, Put(b"b", b"1"))
    third, _ = apply(store, Put(b"b", b"2"))
    assert one == again
    assert two == third
    assert one != two


def test_a_part_need_not_tell_its_revision() -> None:
    expected = Response(5, succeeded=True, parts=(Response(5, deleted=1),))
    assert agrees(expected, Response(5, succeeded=True, parts=(Response(0, deleted=1),)))
    assert not agrees(expected, Response(5, succeeded=True, parts=(Response(4, deleted=1),)))
    assert not agrees(expected, Response(5, succeeded=True, parts=(Response(0, deleted=2),)))
    assert not agrees(expected, Response(4, succeeded=True, parts=(Response(0, deleted=1),)))
    assert not agrees(expected, Response(5, succeeded=False, parts=(Response(0, deleted=1),)))
