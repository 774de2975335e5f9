"""The invariants of what clients see, and the oracle: accepted histories, and broken ones."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from kvstore.machine.command import CommandKind
from kvstore.pb.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.watch import limits
from raft.messages import ForwardRead, Heartbeat, HeartbeatReply, ReadReply
from tests.linear.history import (
    KV,
    Compare,
    Delete,
    Event,
    Outcome,
    Put,
    Range,
    Response,
    Txn,
    WatchRecord,
    WatchResponse,
    deleted,
)
from tests.sim.invariants.i08_committed_for_ever import CommittedForEver
from tests.sim.invariants.i18_reads_see_acknowledged_writes import ReadsSeeAcknowledgedWrites
from tests.sim.invariants.i19_confirmations_fit_attempts import ConfirmationsFitAttempts
from tests.sim.invariants.i20_no_clock_answers_reads import NoClockAnswersReads
from tests.sim.invariants.i21_one_revision_per_write import OneRevisionPerWrite
from tests.sim.invariants.i31_watches_go_forward import WatchesGoForward
from tests.sim.invariants.i32_no_event_twice import NoEventTwice
from tests.sim.invariants.i33_exactly_its_events import ExactlyItsEvents
from tests.sim.invariants.i34_revisions_arrive_whole import RevisionsArriveWhole
from tests.sim.invariants.i35_marks_are_true import MarksAreTrue
from tests.sim.invariants.i36_compacted_only_below import CompactedOnlyBelow
from tests.sim.invariants.i37_nothing_before_the_start import NothingBeforeTheStart
from tests.sim.invariants.i41_fencing_tokens_grow import FencingTokensGrow
from tests.sim.invariants.i48_refused_stays_refused import RefusedStaysRefused
from tests.sim.invariants.i50_stalled_clients_are_bounded import StalledClientsAreBounded
from tests.sim.observer import Invariant, Violated
from tests.sim.oracle import Oracle
from tests.sim.stubs import (
    StubProcess,
    StubWorld,
    apply,
    command,
    done,
    entry,
    invoke,
    objection,
    watch,
)


@pytest.fixture
def world() -> StubWorld:
    return StubWorld()


def make(kind: type[Invariant], world: StubWorld) -> Any:
    return kind(world)  # type: ignore[arg-type]


def put(key: bytes, value: bytes = b"") -> bytes:
    return command(CommandKind.PUT, PutRequest(key=key, value=value))


# ---- reads


@pytest.mark.parametrize("read", [Range(b"a"), Txn(success=(Range(b"a"),))])
def test_i18_reads_see_acknowledged_writes(world: StubWorld, read: Any) -> None:
    invariant = make(ReadsSeeAcknowledgedWrites, world)
    early = invoke(invariant, 2, 5, read)
    write = invoke(invariant, 1, 10, Put(b"a", b"1"))
    done(invariant, write, 20, Response(7))
    stale = invoke(invariant, 2, 30, Range(b"a", serializable=True))
    done(invariant, stale, 40, Response(3))
    done(invariant, early, 40, Response(6))
    late = invoke(invariant, 2, 50, read)
    done(invariant, late, 60, Response(7))
    late = invoke(invariant, 2, 70, read)
    with objection("I18"):
        done(invariant, late, 80, Response(6))


def test_i18_a_leader_confirms_in_its_term(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(ReadsSeeAcknowledgedWrites, world)
    one.raft.append(entry(2, 2), entry(3, 3))
    one.raft.lead(3)
    invariant.sent(one, ReadReply(1, 2, 3, 3, (1,)))
    with objection("I18"):
        invariant.sent(one, ReadReply(1, 2, 3, 2, (1,)))


def test_i19_confirmations_fit_attempts(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant, books = make(ConfirmationsFitAttempts, world), make(CommittedForEver, world)
    invariant.sent(two, ForwardRead(2, 1, 3, (1, 2)))
    invariant.sent(one, ReadReply(1, 2, 3, 1, (1,)))
    for reply in (ReadReply(1, 2, 4, 1, (2,)), ReadReply(3, 2, 3, 1, (2,))):
        with objection("I19"):
            invariant.sent(one, reply)
    one.raft.append(entry(2, 3), entry(3, 3), commit=3)
    books.changed(one)
    invariant.sent(two, ForwardRead(2, 1, 3, (3,)))
    with objection("I19"):
        invariant.sent(one, ReadReply(1, 2, 3, 2, (3,)))
    with objection("I19"):
        invariant.sent(two, ForwardRead(2, 1, 4, (1,)))


def test_i19_a_majority_confirms_the_very_round(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(ConfirmationsFitAttempts, world)
    reads = one.raft._state.reads

    def round_of(number: int, context: int) -> None:
        reads.round_reads = [(2, context)]
        for peer in (2, 3):
            invariant.sent(one, Heartbeat(1, peer, 2, 1, number))

    round_of(1, 10)
    invariant.sent(two, HeartbeatReply(2, 1, 2, 1, 1))
    invariant.sent(one, ReadReply(1, 2, 2, 1, (10,)))
    round_of(2, 11)
    invariant.sent(two, HeartbeatReply(2, 1, 2, 1, 1))
    with objection("I19"):
        invariant.sent(one, ReadReply(1, 2, 2, 1, (11,)))
    # Asked twice, as a doubled message does: the first round is enough.
    round_of(3, 12)
    round_of(4, 12)
    invariant.sent(two, HeartbeatReply(2, 1, 2, 3, 1))
    invariant.sent(one, ReadReply(1, 2, 2, 1, (12,)))


def test_i20_reads_never_go_back(world: StubWorld) -> None:
    invariant = make(NoClockAnswersReads, world)
    overlapping = invoke(invariant, 2, 5, Range(b"a"))
    done(invariant, invoke(invariant, 1, 10, Range(b"a")), 20, Response(7))
    done(invariant, overlapping, 30, Response(6))
    with objection("I20"):
        done(invariant, invoke(invariant, 2, 40, Range(b"a")), 50, Response(6))


# ---- watches


def kv(key: bytes, mod: int, *, value: bytes = b"", create: int = 0, version: int = 1) -> KV:
    return KV(key, value, create or mod, mod, version)


def events(revision: int, *found: Event, progress: bool = False, **more: Any) -> WatchResponse:
    return WatchResponse(0, revision, tuple(found), progress=progress, **more)


def was_put(key: bytes, mod: int, **more: Any) -> Event:
    return Event("put", kv(key, mod, **more))


A2 = was_put(b"a", 2)
B3 = was_put(b"b", 3)
A4 = was_put(b"a", 4, create=2, version=2)
GONE5 = Event("delete", deleted(b"a", 5))
TXN6 = (was_put(b"a", 6), was_put(b"b", 6, create=3, version=2))


@pytest.fixture
def history(world: StubWorld) -> StubWorld:
    """Revisions 2 to 6: put a, put b, put a, delete a, both in one transaction."""
    one = StubProcess(world)
    books = make(OneRevisionPerWrite, world)
    both = [RequestOp(request_put=PutRequest(key=key)) for key in (b"a", b"b")]
    apply(
        one,
        put(b"a"),
        put(b"b"),
        put(b"a"),
        command(CommandKind.DELETE_RANGE, DeleteRangeRequest(key=b"a")),
        command(CommandKind.TXN, TxnRequest(success=both)),
        watchers=[books],
    )
    return world


def test_i31_watches_go_forward(history: StubWorld) -> None:
    invariant = make(WatchesGoForward, history)
    record = WatchRecord(1, b"a", None, 2)
    watch(invariant, record, events(2, A2), events(4, A4), events(4, progress=True))
    with objection("I31"):
        watch(invariant, record, events(4, A2))
    with objection("I31"):
        watch(invariant, record, events(3, progress=True))


def test_i32_no_event_twice(history: StubWorld) -> None:
    invariant = make(NoEventTwice, history)
    record, other = WatchRecord(1, b"a", b"z", 2), WatchRecord(1, b"a", b"z", 2)
    watch(invariant, record, events(2, A2), events(6, *TXN6))
    watch(invariant, other, events(2, A2))
    with objection("I32"):
        watch(invariant, record, events(6, TXN6[1]))


def test_i33_exactly_its_events(history: StubWorld) -> None:
    invariant = make(ExactlyItsEvents, history)
    created = events(2, created=True)
    watch(invariant, WatchRecord(1, b"a", b"z", 0), created, events(3, B3), events(4, A4))
    puts_of_a = WatchRecord(1, b"a", None, 2, filters=frozenset({"delete"}))
    watch(invariant, puts_of_a, events(4, A2, A4), events(5, progress=True), events(6, TXN6[0]))
    watch(
        invariant,
        WatchRecord(1, b"a", b"z", 6),
        events(6, TXN6[0], fragment=True),
        events(6, TXN6[1]),
    )
    for wrong in (events(4, A4), events(4, A2, A4), events(3, A2, was_put(b"b", 3, value=b"x"))):
        with objection("I33"):
            watch(invariant, WatchRecord(1, b"a", b"z", 2), wrong)
    with objection("I33"):
        watch(invariant, WatchRecord(1, b"a", None, 0), created, events(2, A2))
    with objection("I33"):
        watch(invariant, WatchRecord(1, b"a", b"z", 6), events(6, TXN6[0]))


def test_i34_revisions_arrive_whole(history: StubWorld) -> None:
    invariant = make(RevisionsArriveWhole, history)
    record = WatchRecord(1, b"a", b"z", 2)
    watch(invariant, record, events(4, A4), events(5, GONE5))
    watch(invariant, record, events(6, TXN6[0], fragment=True), events(6, TXN6[1]))
    with objection("I34"):
        watch(invariant, record, events(6, TXN6[1]))
    watch(invariant, record, events(7, was_put(b"a", 7), fragment=True))
    with objection("I34"):
        watch(invariant, record, events(7, progress=True))


def test_i35_marks_are_true(history: StubWorld) -> None:
    invariant = make(MarksAreTrue, history)
    record = WatchRecord(1, b"a", None, 2)
    watch(invariant, record, events(2, A2), events(3, progress=True), events(4, A4))
    with objection("I35"):
        watch(invariant, record, events(5, progress=True))
    watch(invariant, record, events(5, GONE5), events(5, progress=True))
    with objection("I35"):
        watch(invariant, record, events(5, GONE5))


def test_i36_compacted_only_below(history: StubWorld) -> None:
    books = make(OneRevisionPerWrite, history)
    one = history.processes["n1"]
    apply(one, command(CommandKind.COMPACT, CompactionRequest(revision=4)), watchers=[books])
    invariant = make(CompactedOnlyBelow, history)
    ended = WatchResponse(0, 0, canceled=True, compact_revision=4)
    watch(invariant, WatchRecord(1, b"a", None, 2), events(2, A2), ended)
    with objection("I36"):
        watch(invariant, WatchRecord(1, b"a", None, 4), ended)
    with objection("I36"):
        watch(invariant, WatchRecord(1, b"a", b"z", 2), events(3, A2, B3), ended)
    with objection("I36"):
        watch(invariant, WatchRecord(1, b"a", None, 2), replace(ended, compact_revision=5))


def test_i37_nothing_before_the_start(history: StubWorld) -> None:
    invariant = make(NothingBeforeTheStart, history)
    record = WatchRecord(1, b"a", None, 4, prev_kv=True)
    told = replace(A4, prev=A2.kv)
    watch(invariant, record, events(4, told), events(4, progress=True))
    watch(invariant, record, events(5, replace(GONE5, prev=A4.kv)))
    watch(invariant, WatchRecord(1, b"a", None, 4), events(4, A4))
    for wrong in (events(3, progress=True), events(2, A2), events(4, A4), events(5, GONE5)):
        with objection("I37"):
            watch(invariant, record, wrong)
    with objection("I37"):
        watch(invariant, WatchRecord(1, b"a", None, 4), events(4, told))
    with objection("I37"):
        watch(invariant, record, events(4, Event("put", kv(b"a", 4), A2.kv)))


def test_i37_a_compacted_past_may_be_left_out(history: StubWorld) -> None:
    invariant = make(NothingBeforeTheStart, history)
    record = WatchRecord(1, b"a", None, 4, prev_kv=True)
    books = make(OneRevisionPerWrite, history)
    compact = command(CommandKind.COMPACT, CompactionRequest(revision=4))
    apply(history.processes["n1"], compact, watchers=[books])
    watch(invariant, record, events(4, A4))
    with objection("I37"):
        watch(invariant, record, events(5, GONE5))


def test_i50_stalled_clients_are_bounded(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(StalledClientsAreBounded, world)
    stream = SimpleNamespace(_queue=[b""] * 128, _bytes=2**20, _watchers={})
    one.hub._streams.append(stream)

    def look() -> None:
        for _ in range(32):
            invariant.stepped(one)

    look()
    stream._bytes = 2**40
    with objection("I50"):
        look()
    stream._bytes, stream._queue = 0, [b""] * 2 * limits.ANSWERS_QUEUED_MAX
    with objection("I50"):
        look()
    stream._queue, stream._watchers = [], range(limits.WATCHERS_PER_STREAM_MAX + 1)
    with objection("I50"):
        look()


# ---- locks, refusals, the oracle


def lock(client: int, call: int, invariant: Any) -> Any:
    request = Txn((Compare(b"lock", "create", "=", 0),), (Put(b"lock", b"%d" % client),))
    return invoke(invariant, client, call, request)


def fenced(token: int) -> Txn:
    return Txn((Compare(b"a", "create", "=", token),), (Put(b"x", b"1"),))


def test_i41_fencing_tokens_grow(history: StubWorld) -> None:
    invariant = make(FencingTokensGrow, history)
    taken = Response(7, succeeded=True)
    done(invariant, lock(1, 10, invariant), 20, taken)
    done(invariant, lock(2, 30, invariant), 40, Response(9, succeeded=False))
    done(invariant, lock(2, 50, invariant), 60, replace(taken, revision=9))
    with objection("I41"):
        done(invariant, lock(1, 70, invariant), 80, replace(taken, revision=8))
    done(invariant, invoke(invariant, 1, 90, fenced(2)), 95, Response(4, succeeded=True))
    done(invariant, invoke(invariant, 1, 90, fenced(2)), 95, Response(6, succeeded=False))
    with objection("I41"):
        done(invariant, invoke(invariant, 1, 90, fenced(2)), 95, Response(6, succeeded=True))


def test_i48_refused_stays_refused(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(RefusedStaysRefused, world)
    ops = [invoke(invariant, 1, n, Put(b"a", b"1.%d" % n)) for n in range(4)]
    done(invariant, ops[0], 10, None, Outcome.REFUSED)
    apply(one, put(b"a", b"1.1"), put(b"a", b"1.2"), watchers=[invariant])
    with objection("I48"):
        done(invariant, ops[1], 10, None, Outcome.REFUSED)
    with objection("I48"):
        apply(one, put(b"a", b"1.0"), watchers=[invariant])
    done(invariant, ops[2], 20, None, Outcome.UNKNOWN)
    with objection("I48"):
        apply(one, put(b"a", b"1.2"), watchers=[invariant])


@pytest.fixture
def asked(history: StubWorld) -> Oracle:
    """The oracle after revisions 2 to 6, with the values that were written."""
    oracle: Oracle = make(Oracle, history)
    invoke(oracle, 9, 0, Put(b"a", b""))
    return oracle


def answer(oracle: Oracle, request: Any, response: Response, client: int = 1) -> None:
    done(oracle, invoke(oracle, client, 1, request), 2, response)


def test_oracle_accepts_what_the_history_gives(asked: Oracle) -> None:
    answer(asked, Put(b"a", b""), Response(4))
    answer(asked, Range(b"a", serializable=True), Response(3, (A2.kv,), 1))
    answer(asked, Range(b"a"), Response(5))
    answer(asked, Delete(b"a"), Response(5, deleted=1))
    answer(asked, Delete(b"zz"), Response(5))
    answer(asked, Range(b"a", b"z"), Response(6, (TXN6[0].kv, TXN6[1].kv), 2))
    answer(asked, Range(b"a", b"z", revision=3, limit=1), Response(6, (A2.kv,), 2))
    answer(asked, Range(b"a", b"z", count_only=True), Response(6, count=2))
    txn = Txn(success=(Put(b"a", b""), Put(b"b", b"")))
    answer(asked, txn, Response(6, succeeded=True, parts=(Response(6), Response(6))))
    read = Response(0, (TXN6[0].kv,), 1)
    answer(asked, Txn(success=(Range(b"a"),)), Response(6, succeeded=True, parts=(read,)))
    assert asked.judged == 10


@pytest.mark.parametrize(
    ("request_", "response", "word"),
    [
        (Range(b"a"), Response(6, (kv(b"a", 6, value=b"never"),), 1), "phantom"),
        (Range(b"a"), Response(6, (A4.kv,), 1), "was not there"),
        (Range(b"a"), Response(5, (A4.kv,), 1), "was not there"),
        (Range(b"a", b"z"), Response(6, (TXN6[0].kv,), 1), "missing"),
        (Range(b"a", b"z"), Response(6, (TXN6[1].kv, TXN6[0].kv), 2), "order"),
        (Range(b"a", b"z", count_only=True), Response(6, count=3), "counted"),
        (Put(b"a", b"lost"), Response(4), "took effect"),
        (Delete(b"a"), Response(4, deleted=1), "deletions"),
        (Delete(b"b"), Response(5, deleted=0), "leaves"),
        (Txn(success=(Put(b"c", b""),)), Response(6, succeeded=True), "took effect"),
        (
            Txn(success=(Range(b"a"),)),
            Response(6, succeeded=True, parts=(Response(0, (A4.kv,)),)),
            "was not there",
        ),
        (
            Txn(success=(Range(b"a"), Delete(b"q"))),
            Response(6, succeeded=True, parts=(Response(0, (kv(b"a", 3),)), Response(0))),
            "saw",
        ),
    ],
)
def test_oracle_objects(asked: Oracle, request_: Any, response: Response, word: str) -> None:
    with pytest.raises(Violated, match=f"^oracle: .*{word}"):
        answer(asked, request_, response)


def test_oracle_sessions_never_go_back(asked: Oracle) -> None:
    answer(asked, Range(b"a"), Response(5))
    answer(asked, Range(b"a", serializable=True), Response(3, (A2.kv,), 1))
    answer(asked, Range(b"b"), Response(4, (B3.kv,), 1), client=2)
    with objection("oracle"):
        answer(asked, Range(b"b"), Response(4, (B3.kv,), 1))


def test_oracle_waits_for_the_log(asked: Oracle, history: StubWorld) -> None:
    one = history.processes["n1"]
    answer(asked, Put(b"c", b"new"), Response(7))
    asked.phase_ended("safety")
    with objection("oracle"):
        asked.phase_ended("end")
    apply(one, put(b"c", b"new"), watchers=[asked])
    asked.phase_ended("end")
    answer(asked, Put(b"c", b"other"), Response(8))
    with objection("oracle"):
        apply(one, put(b"c", b"new2"), watchers=[asked])


def test_oracle_one_request_one_place(world: StubWorld) -> None:
    one = StubProcess(world)
    oracle = make(Oracle, world)
    data = put(b"a")
    apply(one, data, put(b"a"), watchers=[oracle])
    with objection("oracle"):
        apply(one, data, watchers=[oracle])
