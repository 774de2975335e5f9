"""True records of a watch pass every check, and spoilt ones are named by the right one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.linear import generate
from tests.linear.history import (
    KV,
    TO_THE_END,
    Event,
    WatchRecord,
    WatchResponse,
    Witness,
    covers,
    deleted,
)
from tests.linear.judge import judge
from tests.linear.watch_check import CHECKS, EventLog, faults
from tests.sim.prng import Prng

A2 = KV(b"a", b"1", 2, 2, 1)
B3 = KV(b"b", b"1", 3, 3, 1)
A4, C4 = KV(b"a", b"2", 2, 4, 2), KV(b"c", b"1", 4, 4, 1)
A6 = KV(b"a", b"3", 6, 6, 1)
LOG: Witness = [
    (2, (Event("put", A2),)),
    (3, (Event("put", B3),)),
    (4, (Event("put", A4, A2), Event("put", C4))),
    (5, (Event("delete", deleted(b"a", 5), A4),)),
    (6, (Event("put", A6),)),
]
EVENTS = dict(LOG)


def live(revision: int, *events: Event) -> WatchResponse:
    return WatchResponse(100 * revision, revision, events or EVENTS[revision])


def mark(revision: int) -> WatchResponse:
    return WatchResponse(100 * revision, revision, progress=True)


CREATED = WatchResponse(0, 1, created=True)


def record(*responses: WatchResponse, start: int = 2, **options: object) -> WatchRecord:
    fields = {"key": b"\0", "end": TO_THE_END, "prev_kv": True, **options}
    return WatchRecord(1, start_revision=start, responses=[CREATED, *responses], **fields)


def caught(one: WatchRecord, compacted: int = 0) -> set[str]:
    """The promises that this record breaks."""
    log = EventLog(LOG, [(0, compacted)])
    return {sentence.split(":")[0] for sentence in faults([one], log)}


ALL = [live(revision) for revision in EVENTS]

TRUE_RECORDS = {
    "everything": record(*ALL, mark(6)),
    "the past in one response": record(
        WatchResponse(1, 6, tuple(event for _, events in LOG for event in events))
    ),
    "marks between": record(live(2), mark(2), live(3), mark(3), *ALL[2:]),
    "from now on": WatchRecord(
        1, b"\0", TO_THE_END, 0, True, responses=[replace(CREATED, revision=3), *ALL[2:]]
    ),
    "cut off": record(*ALL[:2]),
    "nothing came": record(),
    "one key": record(live(2), live(4, EVENTS[4][0]), live(5), live(6), key=b"a", end=None),
    "without deletes": record(*ALL[:3], ALL[4], filters=frozenset(["delete"])),
    "without puts": record(live(5), mark(6), filters=frozenset(["put"])),
    "in fragments": record(
        *ALL[:2], replace(live(4, EVENTS[4][0]), fragment=True), live(4, EVENTS[4][1]), *ALL[3:]
    ),
    "cut off in a fragment": record(*ALL[:2], replace(live(4, EVENTS[4][0]), fragment=True)),
    "the future": record(live(6), mark(6), start=6),
    "ended by compaction": record(
        live(2), WatchResponse(300, 0, canceled=True, compact_revision=4)
    ),
}


@pytest.mark.parametrize("name", TRUE_RECORDS)
def test_what_a_true_watch_shows_passes(name: str) -> None:
    assert caught(TRUE_RECORDS[name]) == set()


def test_a_previous_pair_may_be_missing_if_it_was_compacted() -> None:
    bare = Event("put", A4)
    one = record(*ALL[:2], live(4, bare, EVENTS[4][1]))
    assert caught(one, compacted=4) == set()
    assert caught(one, compacted=3) == {"prev_kv"}


PLANTED: dict[str, tuple[str, WatchRecord]] = {
    "an older event later": ("ordered", record(live(3), live(2))),
    "a header that goes back": (
        "ordered",
        record(live(2), replace(live(3), revision=5), replace(live(4), revision=4)),
    ),
    "an event twice": ("unique", record(live(2), live(2))),
    "an event twice, later": ("unique", record(*ALL, live(3))),
    "an event left out": ("reliable", record(live(2), live(4))),
    "an event that never was": (
        "reliable",
        record(live(2), live(3, Event("put", replace(B3, key=b"x"))), live(4)),
    ),
    "another value": ("reliable", record(live(2, Event("put", replace(A2, value=b"9"))))),
    "another lease": ("reliable", record(live(2, Event("put", replace(A2, lease=9))))),
    "a revision in two responses": (
        "atomic",
        record(*ALL[:2], live(4, EVENTS[4][0]), live(4, EVENTS[4][1])),
    ),
    "half a revision": ("reliable", record(*ALL[:2], live(4, EVENTS[4][0]))),
    "a mark between fragments": (
        "atomic",
        record(
            *ALL[:2], replace(live(4, EVENTS[4][0]), fragment=True), mark(3), live(4, EVENTS[4][1])
        ),
    ),
    "the first event left out": ("resumable", record(*ALL[1:])),
    "an event before the start": ("resumable", record(*ALL[1:], start=4)),
    "an end for nothing": (
        "resumable",
        record(live(2), live(3), WatchResponse(9, 0, canceled=True, compact_revision=4)),
    ),
    "a mark too early": ("bookmarkable", record(live(2), mark(3), live(3))),
    "a mark over a lost event": ("bookmarkable", record(live(2), mark(4))),
    "a mark before a future start": ("bookmarkable", record(mark(4), start=5)),
    "no previous pair": ("prev_kv", record(*ALL[:2], live(4, Event("put", A4), EVENTS[4][1]))),
    "a wrong previous pair": (
        "prev_kv",
        record(*ALL[:2], live(4, Event("put", A4, B3), EVENTS[4][1])),
    ),
    "a previous pair unasked": ("prev_kv", record(*ALL[:3], prev_kv=False)),
    "a creation that is none": (
        "is_create",
        record(*ALL[:2], live(4, Event("put", replace(A4, create=4), A2), EVENTS[4][1])),
    ),
    "a creation not shown": (
        "is_create",
        record(*ALL[:4], live(6, Event("put", replace(A6, create=2, version=3)))),
    ),
    "a delete with a value": (
        "is_create",
        record(*ALL[:3], live(5, Event("delete", replace(deleted(b"a", 5), value=b"2"), A4))),
    ),
    "a delete through a filter": ("filters", record(*ALL, filters=frozenset(["delete"]))),
    "another key": ("filters", record(*ALL, key=b"a", end=b"c")),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_caught(name: str) -> None:
    promise, one = PLANTED[name]
    assert promise in caught(one)


def test_every_validator_has_a_planted_violation() -> None:
    assert {promise for promise, _ in PLANTED.values()} == set(CHECKS)


# ----------------------------------------------------------------------------------- random runs


def watched(witness: Witness, prng: Prng) -> WatchRecord:
    """A true watch over a run: batches of revisions, then marks, from a random start."""
    prev_kv = prng.chance(1, 2)
    wanted = frozenset(prng.pick([(), (), ("put",), ("delete",)]))
    start = prng.between(1, len(witness))
    one = WatchRecord(1, b"k1", prng.pick([None, b"k3", TO_THE_END]), start, prev_kv, wanted)
    one.responses.append(WatchResponse(0, 1, created=True))
    position = max(0, start - 2)
    while position < len(witness):
        batch = witness[position : position + prng.between(1, 4)]
        position += len(batch)
        shown = tuple(
            event if prev_kv else replace(event, prev=None)
            for _, events in batch
            for event in events
            if event.kind not in wanted and covers(one.key, one.end, event.kv.key)
        )
        last = batch[-1][0]
        if shown:
            one.responses.append(WatchResponse(last, last, shown))
        if prng.chance(1, 4):
            one.responses.append(WatchResponse(last, last, progress=True))
    return one


def dropped_event(one: WatchRecord, prng: Prng) -> None:
    """Takes one event, not of the last response, out of a record."""
    places = [i for i, response in enumerate(one.responses) if response.events][:-1]
    place = prng.pick(places)
    events = list(one.responses[place].events)
    events.pop(prng.below(len(events)))
    one.responses[place] = replace(one.responses[place], events=tuple(events))


def repeated_response(one: WatchRecord, prng: Prng) -> None:
    places = [i for i, response in enumerate(one.responses) if response.events]
    place = prng.pick(places)
    one.responses.insert(place, one.responses[place])


def swapped_responses(one: WatchRecord, prng: Prng) -> None:
    places = [i for i, response in enumerate(one.responses) if response.events]
    at = prng.below(len(places) - 1)
    first, second = places[at], places[at + 1]
    one.responses[first], one.responses[second] = one.responses[second], one.responses[first]


@pytest.mark.parametrize("spoil", [dropped_event, repeated_response, swapped_responses])
def test_a_spoilt_record_of_a_random_run_is_caught(
    spoil: Callable[[WatchRecord, Prng], None],
) -> None:
    spoilt = 0
    for seed in range(60):
        prng = Prng(seed)
        recorded = generate.plan(prng.fork("run")).carry_out()
        one = watched(recorded.witness, prng)
        assert judge(recorded.history, [one], recorded.witness).problems == []
        if sum(bool(response.events) for response in one.responses) < 3:
            continue
        spoilt += 1
        spoil(one, prng)
        assert list(faults([one], EventLog(recorded.witness))) != []
    assert spoilt > 25
