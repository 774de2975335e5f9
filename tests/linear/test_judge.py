"""The judge of a whole run: its rules, its log check, and the counter-example it prints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.linear import generate, wgl
from tests.linear.finding import LEGAL, Verdict
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
)
from tests.linear.judge import judge
from tests.linear.planted import plant
from tests.sim.prng import Prng

FIRST = KV(b"a", b"1", 2, 2, 1)
LOG = [(2, (Event("put", FIRST),))]


def history() -> list[Operation]:
    return [
        Operation(1, 10, Put(b"a", b"1"), 20, Outcome.OK, Response(2)),
        Operation(2, 30, Range(b"a"), 40, Outcome.OK, Response(2, (FIRST,), 1)),
    ]


def test_a_legal_run() -> None:
    judgement = judge(history(), [], LOG)
    judgement.demand()
    assert (judgement.verdict, str(judgement)) == (Verdict.LEGAL, "legal")
    assert judgement.counts == {"operations": 2, "settled": 0, "watches": 0, "events": 0}


def test_two_requests_in_flight() -> None:
    ops = history()
    ops[1].client, ops[1].call = 1, 15
    assert "client 1 had two requests in flight" in str(judge(ops, [], LOG))


def test_a_client_that_never_heard_may_go_on() -> None:
    ops = [Operation(2, 5, Range(b"a")), *history()]
    assert judge(ops, [], LOG).verdict is Verdict.LEGAL


def test_the_last_operation_must_succeed() -> None:
    ops = [*history(), Operation(3, 50, Range(b"a"), 60, Outcome.REFUSED, error="no leader")]
    assert "the last operation did not succeed" in str(judge(ops, [], LOG))
    assert judge(ops, [], LOG, last_must_succeed=False).verdict is Verdict.LEGAL
    assert judge([], [], []).verdict is Verdict.ILLEGAL


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ([], "revision 2 is missing"),
        ([(2, (Event("put", replace(FIRST, value=b"2")),))], "revision 2 holds"),
        ([*LOG, (3, (Event("put", KV(b"b", b"", 3, 3, 1)),))], "revision 3 was made by no request"),
    ],
)
def test_a_log_that_is_not_what_the_answers_make(
    log: list[tuple[int, tuple[Event, ...]]], words: str
) -> None:
    assert words in str(judge(history(), [], log))


def test_a_log_need_not_hold_previous_pairs() -> None:
    recorded = generate.plan(Prng(3)).carry_out()
    bare = [
        (revision, tuple(replace(event, prev=None) for event in events))
        for revision, events in recorded.witness
    ]
    judge(recorded.history, [], bare).demand()


def test_a_watch_that_broke_a_promise_is_named() -> None:
    record = WatchRecord(7, b"a", TO_THE_END, 2, responses=[WatchResponse(0, 2, progress=True)])
    judgement = judge(history(), [record], LOG)
    problem = "the progress mark 2 came before the put of a at revision 2"
    assert judgement.problems == [f"bookmarkable: watch of client 7 on a from 2: {problem}"]


EXAMPLE = """
by revision: illegal: by their revisions the second operation comes before the first, \
but it was called after that one returned
  client  call  return  request    answer
  1       10    20      put a = 1  rev 2
  1       50    60      get a      rev 1
by search: illegal: no order explains these answers: the longest one places 2 of 4 operations, \
and the last one shown has no place after the others
  client  call  return  request    answer
  1       10    20      put a = 1  rev 2
  2       30    40      get a      rev 2 a=1 (c2 m2 v1)
  1       50    60      get a      rev 1
""".strip()


def test_the_counter_example_is_a_short_table() -> None:
    ops = history()
    ops.append(Operation(1, 50, Range(b"a"), 60, Outcome.OK, Response(1)))
    ops.append(Operation(1, 70, Range(b"a"), 80, Outcome.OK, Response(2, (FIRST,), 1)))
    assert str(judge(ops, [], LOG)) == EXAMPLE


def test_a_search_that_was_given_up_is_not_a_pass() -> None:
    judgement = judge(history(), [], LOG, states_max=1)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    with pytest.raises(AssertionError, match="given up after 1 positions"):
        judgement.demand()


def test_checkers_that_do_not_agree_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = plant("phantom", generate.plan(Prng(1)), Prng(1))
    monkeypatch.setattr(wgl, "check", lambda *_: LEGAL)
    assert "the two checkers do not agree" in judge(recorded.history, [], recorded.witness).problems
