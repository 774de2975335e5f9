"""Every promise of a watch, broken on purpose: the check of that name must say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.linear.generate import plan
from tests.linear.history import (
    KV,
    TO_THE_END,
    Event,
    Operation,
    Outcome,
    Put,
    Range,
    Response,
    WatchRecord,
    WatchResponse,
    deleted,
)
from tests.linear.judge import judge
from tests.linear.watch_check import CHECKS, EventLog, faults
from tests.sim.prng import Prng

A2 = KV(b"a", b"1", 2, 2, 1)
A3 = KV(b"a", b"2", 2, 3, 2)
B3 = KV(b"b", b"x", 3, 3, 1)
WITNESS = [
    (2, (Event("put", A2),)),
    (3, (Event("put", A3), Event("put", B3))),
    (4, (Event("delete", deleted(b"b", 4)),)),
    (5, (Event("put", KV(b"b", b"y", 5, 5, 1)),)),
]
LOG = EventLog(WITNESS)
FIRST = Event("put", A2)
BOTH = (Event("put", A3, A2), Event("put", B3))
GONE = Event("delete", deleted(b"b", 4), B3)
AGAIN = Event("put", KV(b"b", b"y", 5, 5, 1))

Responses = list[WatchResponse]


def record() -> WatchRecord:
    responses = [
        WatchResponse(1, 1, created=True),
        WatchResponse(2, 2, (FIRST,)),
        WatchResponse(3, 3, BOTH),
        WatchResponse(4, 3, progress=True),
        WatchResponse(5, 4, (GONE,)),
        WatchResponse(6, 5, (AGAIN,)),
    ]
    return WatchRecord(1, b"\0", TO_THE_END, 2, prev_kv=True, responses=responses)


def changed(at: int, **changes: object) -> Callable[[Responses], None]:
    return lambda responses: responses.__setitem__(at, replace(responses[at], **changes))


def insert(at: int, response: WatchResponse) -> Callable[[Responses], None]:
    return lambda responses: responses.insert(at, response)


def without(at: int) -> Callable[[Responses], None]:
    return lambda responses: responses.__delitem__(at)


def compacted(at: int, revision: int) -> WatchResponse:
    return WatchResponse(at, 0, canceled=True, compact_revision=revision)


BROKEN: list[tuple[str, Callable[[Responses], None]]] = [
    ("ordered", changed(4, revision=2)),
    ("ordered", insert(5, WatchResponse(6, 4, (FIRST,)))),
    ("ordered", changed(1, revision=1)),
    ("unique", insert(2, WatchResponse(2, 2, (FIRST,)))),
    ("atomic", lambda rs: rs.__setitem__(
        slice(2, 3), [WatchResponse(3, 3, BOTH[:1]), WatchResponse(3, 3, BOTH[1:])]
    )),
    ("atomic", lambda rs: rs.__setitem__(slice(2, 3), [
        WatchResponse(3, 3, BOTH[:1], fragment=True),
        WatchResponse(3, 3, progress=True),
        WatchResponse(3, 3, BOTH[1:]),
    ])),
    ("reliable", without(4)),
    ("reliable", changed(2, events=BOTH[:1])),
    ("reliable", changed(1, events=(replace(FIRST, kv=replace(A2, value=b"?")),))),
    ("reliable", insert(1, WatchResponse(2, 2, (Event("put", KV(b"z", b"", 2, 2, 1)),)))),
    ("resumable", without(1)),
    ("resumable", insert(6, compacted(7, 3))),
    ("bookmarkable", insert(2, WatchResponse(2, 3, progress=True))),
    ("bookmarkable", insert(6, WatchResponse(7, 0, progress=True))),
    ("prev_kv", changed(2, events=(replace(BOTH[0], prev=None), BOTH[1]))),
    ("prev_kv", changed(4, events=(replace(GONE, prev=A2),))),
    ("is_create", changed(5, events=(replace(AGAIN, kv=replace(AGAIN.kv, version=2)),))),
    ("is_create", changed(5, events=(replace(AGAIN, kv=replace(AGAIN.kv, create=3)),))),
]  # fmt: skip


def test_a_watch_that_kept_its_promises() -> None:
    assert list(faults([record()], LOG)) == []
    for name, check in CHECKS.items():
        assert list(check(record(), LOG)) == [], name


@pytest.mark.parametrize(("name", "change"), BROKEN)
def test_the_check_names_what_was_broken(name: str, change: Callable[[Responses], None]) -> None:
    broken = record()
    change(broken.responses)
    assert list(CHECKS[name](broken, LOG)), name


def test_filters_and_ranges_are_kept() -> None:
    narrow = replace(record(), key=b"a", end=None)
    assert list(CHECKS["filters"](narrow, LOG))
    no_puts = replace(record(), filters=frozenset({"put"}))
    assert list(CHECKS["filters"](no_puts, LOG))
    kept = [each for each in record().responses if not each.events or GONE in each.events]
    assert list(faults([replace(no_puts, responses=kept)], LOG)) == []
    assert list(CHECKS["prev_kv"](replace(record(), prev_kv=False), LOG))


def test_what_was_cut_off_is_not_owed() -> None:
    cut = record()
    cut.responses[2:] = [WatchResponse(3, 3, BOTH[:1], fragment=True)]
    assert list(faults([cut], LOG)) == []
    early = WatchRecord(1, b"\0", TO_THE_END, 2, responses=[])
    assert list(faults([early], LOG)) == []


def test_a_watch_from_now_begins_behind_its_creation() -> None:
    late = WatchRecord(1, b"\0", TO_THE_END, 0, prev_kv=True)
    late.responses = [WatchResponse(1, 3, created=True), WatchResponse(2, 4, (GONE,))]
    assert list(faults([late], LOG)) == []
    late.responses[1] = WatchResponse(2, 5, (AGAIN,))
    assert list(CHECKS["resumable"](late, LOG))


def test_a_previous_pair_may_be_gone_once_it_was_compacted() -> None:
    bare = record()
    changed(4, events=(replace(GONE, prev=None),))(bare.responses)
    assert list(CHECKS["prev_kv"](bare, EventLog(WITNESS, [(6, 4)])))
    assert list(CHECKS["prev_kv"](bare, EventLog(WITNESS, [(5, 3)])))
    assert not list(CHECKS["prev_kv"](bare, EventLog(WITNESS, [(5, 4)])))


def test_a_watch_may_end_as_compacted_only_if_it_was_behind() -> None:
    behind = WatchRecord(1, b"\0", TO_THE_END, 2)
    behind.responses = [WatchResponse(1, 5, created=True), compacted(2, 4)]
    assert list(faults([behind], LOG)) == []
    behind.responses[1] = compacted(2, 2)
    assert list(CHECKS["resumable"](behind, LOG))


def test_the_judge_takes_a_whole_record_and_says_what_is_wrong() -> None:
    recorded = plan(Prng(7)).carry_out()
    assert judge(recorded.history, [], recorded.witness).legal
    holed = [pair for pair in recorded.witness if pair[0] != 3]
    assert "the event log has revision 4" in str(judge(recorded.history, [], holed))
    assert "nothing was recorded" in str(judge([], [], []))


def put(client: int, call: int, ret: int | None, revision: int) -> Operation:
    outcome = Outcome.OK if ret is not None else Outcome.UNKNOWN
    answer = Response(revision) if ret is not None else None
    return Operation(client, call, Put(b"a", b"%d" % revision), ret, outcome, answer)


def test_the_judge_refuses_what_it_cannot_judge() -> None:
    log = [(2, (Event("put", KV(b"a", b"2", 2, 2, 1)),))]
    twice = [put(1, 0, 10, 2), Operation(1, 5, Range(b"a"), 12, Outcome.OK, Response(2))]
    assert "two requests in flight" in str(judge(twice, [], log))
    assert "nothing succeeded" in str(judge([put(1, 0, None, 2)], [], log))


def test_the_judge_shows_the_violation_of_both_checkers_and_of_watches() -> None:
    log = [(2, (Event("put", KV(b"a", b"2", 2, 2, 1)),))]
    stale = Operation(2, 20, Range(b"a"), 30, Outcome.OK, Response(1))
    last = Operation(2, 40, Range(b"b"), 50, Outcome.OK, Response(2))
    watch = WatchRecord(1, b"a", None, 2, responses=[WatchResponse(1, 2, progress=True)])
    judgement = judge([put(1, 0, 10, 2), stale, last], [watch], log)
    assert [problem.split(":")[0] for problem in judgement.problems] == [
        "by revisions", "by search", "bookmarkable",
    ]  # fmt: skip
