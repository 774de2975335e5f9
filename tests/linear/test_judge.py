"""The judge of a whole run: its rules, its log check, and the counter-example it prints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.linear import generate, wgl
from tests.linear.finding import LEGAL
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
    judgement = judge([Operation(3, 5, Put(b"z", b"")), *history()], [], LOG)
    judgement.demand()
    assert (judgement.legal, str(judgement)) == (True, "all is well")
    assert (judgement.operations, judgement.unknown, judgement.watches) == (3, 1, 0)


def test_two_requests_in_flight() -> None:
    ops = history()
    ops[1].client, ops[1].call = 1, 15
    assert "a client had two requests in flight" in str(judge(ops, [], LOG))


def test_a_client_that_never_heard_may_go_on() -> None:
    ops = [Operation(2, 5, Range(b"a")), *history()]
    assert judge(ops, [], LOG).legal


def test_the_record_must_go_on_to_the_end() -> None:
    last = Operation(3, 50, Range(b"a"), 60, Outcome.REFUSED, error="no leader")
    assert "nothing was recorded" in str(judge([], [], []))
    assert "nothing succeeded" in str(judge([last], [], []))
    # A whole log shows what the last state was; without one only a successful request does.
    assert judge([*history(), last], [], LOG).legal
    assert "the last operation did not succeed" in str(judge([*history(), last]))
    assert judge(history()).legal


def test_without_a_log_the_search_settles_what_is_unknown() -> None:
    unheard = [Operation(5, 1, Put(b"a", b"1")), history()[1]]
    judge(unheard).demand()
    stale = Operation(3, 50, Range(b"a"), 60, Outcome.OK, Response(1))
    assert "by search: illegal" in str(judge([*unheard, stale]))


def test_a_refused_write_that_took_effect() -> None:
    refused = replace(history()[0], outcome=Outcome.REFUSED, error="no leader", response=None)
    judge([replace(refused, outcome=Outcome.UNKNOWN, ret=None), history()[1]], [], LOG).demand()
    assert not judge([refused, history()[1]], [], LOG).legal


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ([], "revision 2 is nothing in the event log"),
        ([(2, (Event("put", replace(FIRST, value=b"2")),))], "revision 2 is (Event("),
        ([*LOG, (3, (Event("put", KV(b"b", b"", 3, 3, 1)),))], "the requests made nothing"),
        ([(3, (Event("put", replace(FIRST, mod=3)),))], "has revision 3 where 2 must follow"),
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
    problem = "the mark of 2 came before the put of a at revision 2"
    assert judge(history(), [record], LOG).problems == [
        f"bookmarkable: client 7, watch of a from 2: {problem}"
    ]


EXAMPLE = """
by revisions: illegal: by their revisions the second operation comes before the first, \
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
    judgement = judge(ops, [], LOG)
    assert str(judgement) == EXAMPLE
    with pytest.raises(AssertionError, match="by search"):
        judgement.demand()


def test_a_search_that_was_given_up_is_not_a_pass() -> None:
    judgement = judge(history(), [], LOG, states_max=1)
    assert judgement.undecided
    with pytest.raises(AssertionError, match="given up"):
        judgement.demand()


def test_checkers_that_do_not_agree_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = plant("phantom", generate.plan(Prng(1)), Prng(1))
    monkeypatch.setattr(wgl, "check", lambda *_: LEGAL)
    assert "the two checkers disagree" in judge(recorded.history, [], recorded.witness).problems
