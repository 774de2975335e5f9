"""The judge of the process tests: what it must see in watches and answers, planted one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

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
from tests.support.judging import judge, watch_faults

FIRST = Event("put", KV(b"a", b"1", 2, 2, 1))
BOTH = (Event("put", KV(b"a", b"2", 2, 3, 2), FIRST.kv), Event("put", KV(b"b", b"x", 3, 3, 1)))
GONE = Event("delete", deleted(b"b", 4), BOTH[1].kv)
LOG = [
    (2, (FIRST,)),
    (3, tuple(replace(event, prev=None) for event in BOTH)),
    (4, (replace(GONE, prev=None),)),
]


def record() -> WatchRecord:
    return WatchRecord(
        -1, b"\0", TO_THE_END, 2, prev_kv=True,
        responses=[
            WatchResponse(1, 1, created=True),
            WatchResponse(2, 2, (FIRST,)),
            WatchResponse(3, 3, BOTH),
            WatchResponse(4, 3, progress=True),
            WatchResponse(5, 4, (GONE,)),
        ],
    )  # fmt: skip


def test_a_faultless_watch() -> None:
    assert list(watch_faults(record(), LOG)) == []
    later = WatchRecord(-1, b"b", None, 0, responses=record().responses[2:])
    later.responses[0] = WatchResponse(3, 3, created=True)
    later.responses[2] = WatchResponse(5, 4, (replace(GONE, prev=None),))
    assert list(watch_faults(later, LOG)) == []


def without(at: int) -> Callable[[list[WatchResponse]], None]:
    return lambda responses: responses.__delitem__(at)


def changed(at: int, **changes: object) -> Callable[[list[WatchResponse]], None]:
    return lambda responses: responses.__setitem__(at, replace(responses[at], **changes))


PLANTED = {
    "lost": without(1),
    "lost behind progress": without(2),
    "twice": lambda responses: responses.insert(2, responses[1]),
    "half a revision": changed(2, events=BOTH[:1]),
    "wrong value": changed(1, events=(replace(FIRST, kv=replace(FIRST.kv, value=b"?")),)),
    "no previous value": changed(2, events=(replace(BOTH[0], prev=None), BOTH[1])),
    "torn revision": lambda responses: responses.__setitem__(
        slice(2, 3), [WatchResponse(3, 3, BOTH[:1]), WatchResponse(3, 3, BOTH[1:])]
    ),
    "early progress": lambda responses: responses.insert(2, WatchResponse(2, 3, progress=True)),
    "header goes back": changed(4, revision=2),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_of_a_watch_is_seen(name: str) -> None:
    watched = record()
    PLANTED[name](watched.responses)
    assert list(watch_faults(watched, LOG))


def test_a_stale_read_and_a_lost_write_are_seen() -> None:
    put = Operation(1, 10, Put(b"a", b"1"), 20, Outcome.OK, Response(2))
    read = Operation(2, 30, Range(b"a"), 40, Outcome.OK, Response(2, (FIRST.kv,), 1))
    judge([put, read], [], LOG[:1])
    with pytest.raises(AssertionError, match="illegal"):
        judge([put, replace(read, response=Response(1))], [], LOG[:1])
    with pytest.raises(AssertionError):
        judge([put, replace(read, response=Response(1))], [], [])


def test_a_refused_write_that_took_effect_is_seen() -> None:
    refused = Operation(1, 10, Put(b"a", b"1"), 20, Outcome.REFUSED, error="no leader")
    read = Operation(2, 30, Range(b"a"), 40, Outcome.OK, Response(2, (FIRST.kv,), 1))
    judge([replace(refused, outcome=Outcome.UNKNOWN, ret=None), read], [], LOG[:1])
    with pytest.raises(AssertionError, match=r"illegal|inconclusive"):
        judge([refused, read], [], LOG[:1])
