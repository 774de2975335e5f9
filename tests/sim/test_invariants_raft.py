"""The invariants of Raft: each accepts a history that is right, and objects to one that is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kvstore.machine import Result
from kvstore.node import limits
from raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from raft.progress import Progress
from raft.types import (
    ConfChange,
    ConfChangeKind,
    ConfState,
    EntryKind,
    HardState,
    Role,
    SnapshotMeta,
)
from tests.sim.invariants import ALL
from tests.sim.invariants.i01_one_leader_per_term import OneLeaderPerTerm
from tests.sim.invariants.i02_term_and_vote_stay import TermAndVoteStay
from tests.sim.invariants.i03_one_vote_per_term import OneVotePerTerm
from tests.sim.invariants.i04_leaders_only_append import LeadersOnlyAppend
from tests.sim.invariants.i05_commit_in_own_term import CommitInOwnTerm
from tests.sim.invariants.i06_logs_match import LogsMatch
from tests.sim.invariants.i07_leaders_are_complete import LeadersAreComplete
from tests.sim.invariants.i08_committed_for_ever import CommittedForEver
from tests.sim.invariants.i09_one_change_at_a_time import OneChangeAtATime
from tests.sim.invariants.i10_majorities_meet import MajoritiesMeet, majorities_meet
from tests.sim.invariants.i11_commit_needs_a_quorum import CommitNeedsAQuorum
from tests.sim.invariants.i12_a_leader_stays import ALeaderStays
from tests.sim.invariants.i13_indexes_in_order import IndexesInOrder
from tests.sim.invariants.i14_never_back import NeverBack
from tests.sim.invariants.i15_snapshots_fit import SnapshotsFit
from tests.sim.invariants.i16_queues_are_bounded import QueuesAreBounded
from tests.sim.invariants.i49_removed_means_gone import RemovedMeansGone
from tests.sim.observer import Invariant
from tests.sim.stubs import StubProcess, StubWorld, entry, objection

CHANGE = int(EntryKind.CONF_CHANGE)


@pytest.fixture
def world() -> StubWorld:
    return StubWorld()


def make(kind: type[Invariant], world: StubWorld) -> Any:
    return kind(world)  # type: ignore[arg-type]


def test_every_invariant_has_a_number_a_title_and_a_source() -> None:
    numbers = [kind.number for kind in ALL]
    assert len(set(numbers)) == len(ALL) == 51
    assert all(kind.title and kind.source for kind in ALL)
    expected = [*range(1, 45), *range(48, 54)]
    assert numbers == [f"I{number}" for number in expected] + ["oracle"]


def test_i1_one_leader_per_term(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(OneLeaderPerTerm, world)
    one.raft.lead(2)
    invariant.changed(one)
    two.raft.lead(3)
    invariant.changed(two)
    with objection("I1"):
        invariant.sent(two, Append(2, 3, 2, 1, 1, 1, ()))
    two.raft.lead(2)
    with objection("I1"):
        invariant.changed(two)


def test_i2_terms_and_votes_stay(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(TermAndVoteStay, world)
    invariant.started(one)
    one.raft.term, one.raft.vote = 2, 1
    invariant.changed(one)
    invariant.sent(one, RequestVote(1, 2, 2, 1, 1, False))
    one.raft.term, one.raft.vote = 3, 0
    invariant.changed(one)
    one.raft.vote = 2
    invariant.changed(one)
    one.raft.vote = 3
    with objection("I2"):
        invariant.changed(one)
    one.raft.term = 2
    with objection("I2"):
        invariant.changed(one)


def test_i2_what_nobody_was_told_may_be_forgotten_by_a_crash(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(TermAndVoteStay, world)
    invariant.sent(one, VoteReply(1, 3, 4, True))
    one.start.hard_state = HardState(4, 3, 1)
    invariant.started(one)
    one.start.hard_state = HardState(4, 2, 1)
    with objection("I2"):
        invariant.started(one)
    one.start.hard_state = HardState(3, 3, 1)
    with objection("I2"):
        invariant.started(one)


def test_i3_one_vote_per_term(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(OneVotePerTerm, world)
    invariant.sent(one, VoteReply(1, 2, 4, True))
    invariant.sent(one, VoteReply(1, 2, 4, True))
    invariant.sent(one, VoteReply(1, 3, 4, False))
    invariant.sent(one, VoteReply(1, 3, 5, True))
    with objection("I3"):
        invariant.sent(one, RequestVote(1, 2, 4, 1, 1, False))


def test_i4_leaders_only_append(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(LeadersOnlyAppend, world)
    one.raft.lead(2)
    for index in range(2, 6):
        one.raft.append(entry(index, 2))
        invariant.changed(one)
    one.raft.follow(3)
    one.raft.append(entry(3, 3))
    invariant.changed(one)
    one.raft.lead(4)
    one.raft.append(entry(4, 4))
    invariant.changed(one)
    one.raft.append(entry(4, 4, b"other"), entry(5, 4))
    with objection("I4"):
        invariant.changed(one)
    del one.raft.log._entries[-2:]
    with objection("I4"):
        invariant.changed(one)


def test_i5_commit_by_counting_is_of_the_own_term(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(CommitInOwnTerm, world)
    one.raft.append(entry(2, 2), entry(3, 2))
    one.raft.lead(3)
    one.raft.append(entry(4, 3))
    invariant.changed(one)
    one.raft.append(commit=4)
    invariant.changed(one)
    two = StubProcess(world, 2)
    two.raft.append(entry(2, 2), entry(3, 2), entry(4, 3))
    two.raft.lead(3)
    invariant.changed(two)
    two.raft.append(commit=3)
    with objection("I5"):
        invariant.changed(two)


def test_i6_logs_match(world: StubWorld) -> None:
    one, two, three = (StubProcess(world, number) for number in (1, 2, 3))
    invariant = make(LogsMatch, world)
    one.raft.append(entry(2, 2, b"a"), entry(3, 3, b"b"))
    two.raft.append(entry(2, 2, b"a"), entry(3, 2, b"x"))
    for p in (one, two):
        invariant.changed(p)
    two.raft.append(entry(3, 3, b"b"), entry(4, 3, b"c"))
    invariant.changed(two)
    three.raft.append(entry(2, 2, b"a"), entry(3, 3, b"other"))
    with objection("I6"):
        invariant.changed(three)


def test_i6_the_entry_before_counts_too(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(LogsMatch, world)
    one.raft.append(entry(2, 2), entry(3, 3))
    invariant.changed(one)
    two.raft.append(entry(2, 1), entry(3, 3))
    with objection("I6"):
        invariant.started(two)


def test_i7_leaders_are_complete(world: StubWorld) -> None:
    one, two, three = (StubProcess(world, number) for number in (1, 2, 3))
    invariant, books = make(LeadersAreComplete, world), make(CommittedForEver, world)
    one.raft.lead(2)
    one.raft.append(entry(2, 2), entry(3, 2), commit=3)
    books.changed(one)
    two.raft.append(entry(2, 2), entry(3, 2), entry(4, 3))
    two.raft.lead(3)
    invariant.changed(two)
    three.raft.append(entry(2, 2))
    three.raft.lead(2)
    invariant.changed(three)  # Of the term in which it was committed: it need not have it.
    three.raft.lead(4)
    with objection("I7"):
        invariant.changed(three)


def test_i8_committed_for_ever(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(CommittedForEver, world)
    one.raft.append(entry(2, 2, b"a"), entry(3, 2, b"b"), commit=3)
    two.raft.append(entry(2, 2, b"a"), entry(3, 3, b"x"), commit=2)
    invariant.started(one)
    invariant.changed(two)
    two.raft.append(entry(3, 2, b"b"), commit=3)
    invariant.changed(two)
    two.raft.log._entries[0] = entry(2, 2, b"rotten")
    with objection("I8"):
        for _ in range(3):  # An old entry: its turn comes.
            invariant.changed(two)


def test_i8_a_newly_committed_entry_is_compared_at_once(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(CommittedForEver, world)
    one.raft.append(entry(2, 2), commit=2)
    invariant.changed(one)
    two.raft.append(entry(2, 3), commit=2)
    with objection("I8"):
        invariant.changed(two)


def test_i8_what_is_applied_was_committed(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(CommittedForEver, world)
    invariant.applied(one, [entry(2, 2), entry(3, 2)], [])
    invariant.applied(two, [entry(2, 2)], [])
    with objection("I8"):
        invariant.applied(two, [entry(3, 3)], [])


def test_i9_one_change_at_a_time(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(OneChangeAtATime, world)
    invariant.started(one)
    one.raft.lead(2)
    one.raft.append(entry(2, 2), commit=2)
    invariant.changed(one)
    one.raft.append(entry(3, 2, kind=CHANGE))
    invariant.changed(one)
    one.raft.append(commit=3)
    one.raft.log.applied = 3
    one.raft.append(entry(4, 2, kind=CHANGE))
    invariant.changed(one)
    one.raft.append(entry(5, 2, kind=CHANGE))
    with objection("I9"):
        invariant.changed(one)


def test_i9_no_change_before_the_terms_first_commit(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(OneChangeAtATime, world)
    one.raft.append(entry(2, 2, kind=CHANGE))
    invariant.started(one)
    one.raft.lead(3)
    one.raft.append(entry(3, 3))
    invariant.changed(one)  # Inherited, not accepted.
    two = StubProcess(world, 2)
    invariant.started(two)
    two.raft.lead(3)
    two.raft.append(entry(2, 3), entry(3, 3, kind=CHANGE))
    with objection("I9"):
        invariant.changed(two)


def test_i9_no_campaign_with_a_committed_change_unapplied(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(OneChangeAtATime, world)
    one.raft.append(entry(2, 2, kind=CHANGE))
    invariant.started(one)
    one.raft.role = Role.CANDIDATE
    invariant.changed(one)
    one.raft.append(commit=2)
    with objection("I9"):
        invariant.changed(one)


def test_i10_majorities() -> None:
    three, four = ConfState((1, 2, 3)), ConfState((1, 2, 3, 4))
    assert majorities_meet(three, three)
    assert majorities_meet(three, four)
    assert majorities_meet(ConfState((1,)), ConfState((1, 2)))
    assert not majorities_meet(three, ConfState((1, 2, 3, 4, 5)))
    assert not majorities_meet(ConfState((1, 2)), ConfState((3, 4)))


def test_i10_elections_are_counted_among_voters(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(MajoritiesMeet, world)
    one.raft.lead(2)
    invariant.sent(two, VoteReply(2, 1, 2, True))
    invariant.changed(one)
    two.raft.conf = ConfState((1, 2, 3), (4,))
    two.raft.lead(3)
    invariant.sent(one, VoteReply(4, 2, 3, True))
    with objection("I10"):
        invariant.changed(two)


def test_i10_leaders_decide_by_configurations_that_meet(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(MajoritiesMeet, world)
    for p, voter in ((one, 2), (two, 3)):
        p.raft.lead(p.member_id + 1)
        invariant.sent(p, VoteReply(voter, p.member_id, p.raft.term, True))
    invariant.changed(one)
    two.raft.conf = ConfState((2, 3))
    two.raft.term = 3
    one.raft.conf = ConfState((1, 2, 3, 4, 5))
    invariant.changed(one)
    with objection("I10"):
        invariant.changed(two)


def test_i10_a_refused_vote_has_a_reason(world: StubWorld) -> None:
    one, four = StubProcess(world, 1), StubProcess(world, 4)
    invariant = make(MajoritiesMeet, world)
    four.raft.conf = ConfState((1, 2, 3), (4,))
    four.raft.term = 2
    four.raft.vote = 3
    invariant.sent(one, RequestVote(1, 4, 2, 1, 1, False))
    invariant.sent(four, VoteReply(4, 1, 2, False))
    four.raft.vote = 0
    with objection("I10"):
        invariant.sent(four, VoteReply(4, 1, 2, False))
    # The answer to an older question, given in a newer term.
    invariant.sent(one, RequestVote(1, 4, 3, 1, 1, False))
    four.raft.term = 3
    invariant.sent(four, VoteReply(4, 1, 3, False))


def test_i10_a_vote_request_is_answered(world: StubWorld) -> None:
    four = StubProcess(world, 4)
    four.raft.conf = ConfState((1, 2, 3), (4,))
    invariant = make(MajoritiesMeet, world)

    def silence(*others: Message) -> None:
        for message in (RequestVote(1, 4, 2, 1, 1, False), *others):
            invariant.received(four, message)
        for _ in range(3):
            invariant.stepped(four)
            world.now_ns += 6_000_000

    silence()  # It hears a leader, and stays in its term.
    four.raft.term = 2
    silence(Heartbeat(3, 4, 2, 1, 0))
    silence(HeartbeatReply(3, 4, 2, 0, 0))
    four.core.persisting = object()
    silence()
    four.core.persisting = None
    invariant.sent(four, VoteReply(4, 1, 2, True))
    invariant.stepped(four)
    with objection("I10"):
        silence()


def test_i11_commit_needs_a_quorum(world: StubWorld) -> None:
    one = StubProcess(world, 1)
    invariant = make(CommitNeedsAQuorum, world)
    one.raft.lead(2)
    one.raft.append(entry(2, 2), entry(3, 2))
    invariant.changed(one)
    invariant.sent(one, AppendReply(2, 1, 2, 2, False, 0, 0))
    one.raft.append(commit=2)
    invariant.changed(one)
    invariant.sent(one, AppendReply(3, 1, 1, 3, False, 0, 0))  # of another term
    one.raft.append(commit=3)
    with objection("I11"):
        invariant.changed(one)


def test_i11_a_word_of_an_older_term_is_not_believed(world: StubWorld) -> None:
    one = StubProcess(world, 1)
    invariant = make(CommitNeedsAQuorum, world)
    one.raft.lead(3)
    late = AppendReply(2, 1, 2, 2, False, 0, 0)
    progress = one.raft._state.progress[2] = Progress(match=0, next_index=3, recent_active=True)
    for term in (2, 3):
        invariant.sent(one, AppendReply(2, 1, term, 2, False, 0, 0))
        invariant.received(one, late)
        invariant.stepped(one)
        progress.match = 2
        if term == 2:
            with objection("I11"):
                invariant.stepped(one)
    invariant.stepped(one)


def test_i11_a_leader_outside_does_not_count_itself(world: StubWorld) -> None:
    one = StubProcess(world, 1)
    invariant = make(CommitNeedsAQuorum, world)
    one.raft.conf = ConfState((2, 3))
    one.raft.lead(2)
    one.raft.append(entry(2, 2))
    invariant.changed(one)
    invariant.sent(one, AppendReply(2, 1, 2, 2, False, 0, 0))
    one.raft.append(commit=2)
    with objection("I11"):
        invariant.changed(one)


def _led_by(world: StubWorld, leader: StubProcess, term: int) -> None:
    for p in world.processes.values():
        p.raft.follow(term, leader.member_id)
    leader.raft.lead(term)


def test_i12_a_leader_stays(world: StubWorld) -> None:
    one, two, _ = (StubProcess(world, number) for number in (1, 2, 3))
    invariant = make(ALeaderStays, world)
    invariant.phase_ended("safety")
    _led_by(world, one, 2)
    invariant.changed(one)
    _led_by(world, two, 3)  # Soon after the faults have stopped.
    world.now_ns = 7_000_000_000
    invariant.changed(two)
    invariant.sent(two, TimeoutNow(2, 1, 2))  # A hand-over is a reason.
    _led_by(world, one, 4)
    invariant.changed(one)
    world.now_ns = 14_000_000_000
    invariant.changed(one)
    _led_by(world, two, 5)
    with objection("I12"):
        invariant.changed(two)


def test_i12_somebody_leads_at_the_end(world: StubWorld) -> None:
    one, _, _ = (StubProcess(world, number) for number in (1, 2, 3))
    invariant = make(ALeaderStays, world)
    for lead in (True, False):
        invariant.phase_ended("safety")
        if lead:
            _led_by(world, one, 2)
            invariant.phase_ended("liveness")
        else:
            one.raft.follow(3)
            with objection("I12"):
                invariant.phase_ended("liveness")


def test_i13_indexes_in_order(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(IndexesInOrder, world)
    one.raft.append(entry(2, 2), commit=2)
    invariant.changed(one)
    one.snapshots.append(SimpleNamespace(index=9))  # received, never installed
    one.raft.append(entry(3, 2))
    invariant.changed(one)
    one.wal._writer._segments[0].first_index = 3
    one.raft.append(entry(4, 2))
    with objection("I13"):
        invariant.changed(one)


def test_i13_applied_before_committed(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(IndexesInOrder, world)
    invariant.changed(one)
    one.raft.log.commit = 0
    with objection("I13"):
        invariant.changed(one)
    one.raft.log.commit = 9
    with objection("I13"):
        invariant.changed(one)


def test_i14_never_back(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant, books = make(NeverBack, world), make(CommittedForEver, world)
    one.raft.append(entry(2, 2), entry(3, 2), commit=3)
    books.changed(one)
    invariant.started(one)
    one.raft.log.commit = 2
    with objection("I14"):
        invariant.changed(one)
    one.raft.log.commit = 1
    invariant.started(one)  # The commit index is written lazily.
    one.machine = SimpleNamespace(applied_index=2, applied_term=2)  # type: ignore[assignment]
    with objection("I14"):
        invariant.started(one)
    one.raft.log.commit = 2
    invariant.started(one)
    one.machine = SimpleNamespace(applied_index=2, applied_term=1)  # type: ignore[assignment]
    with objection("I14"):
        invariant.started(one)


def test_i15_snapshots_fit(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant, books = make(SnapshotsFit, world), make(CommittedForEver, world)
    change = ConfChange(ConfChangeKind.REMOVE, 3)
    one.raft.append(entry(2, 2, kind=CHANGE), entry(3, 2), commit=3)
    books.changed(one)
    conf = ConfState((1, 2))
    one.machine = SimpleNamespace(conf_state=lambda: conf)  # type: ignore[assignment]
    result = Result(1, 1, conf_change=change, conf_valid=True)
    invariant.applied(one, [one.raft.log._entries[0]], [result])
    invariant.sent(one, InstallSnapshot(1, 2, 2, SnapshotMeta(3, 2, conf)))
    for meta in (SnapshotMeta(3, 1, conf), SnapshotMeta(3, 2, ConfState((1, 2, 3)))):
        with objection("I15"):
            invariant.sent(one, InstallSnapshot(1, 2, 2, meta))
    invariant.changed(one)
    one.raft.log.commit = 2
    with objection("I15"):
        invariant.installed(one, 3, 2)
    two.machine = SimpleNamespace(  # type: ignore[assignment]
        conf_state=lambda: ConfState((1, 2, 3)), applied_index=2, applied_term=2
    )
    with objection("I15"):
        invariant.started(two)
    with objection("I15"):
        invariant.applied(two, [one.raft.log._entries[0]], [result])


def _steps(invariant: Invariant, p: StubProcess) -> None:
    for _ in range(32):
        invariant.stepped(p)  # type: ignore[arg-type]


def test_i16_queues_are_bounded(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(QueuesAreBounded, world)
    one.raft.lead(2)
    progress = Progress(match=0, next_index=1, recent_active=True)
    one.raft._state.progress = {2: progress}
    one.core.proposals.queued = limits.MAX_QUEUED_WRITES
    _steps(invariant, one)
    progress.inflight_bytes = 2**40
    with objection("I16"):
        _steps(invariant, one)
    progress.inflight_bytes = 0
    one.raft._state.uncommitted_bytes = 2**40
    with objection("I16"):
        _steps(invariant, one)
    one.raft.follow(2)
    one.core.proposals.queued = limits.MAX_QUEUED_WRITES + 2
    with objection("I16"):
        _steps(invariant, one)


def test_i49_removed_means_gone(world: StubWorld) -> None:
    one, three = StubProcess(world), StubProcess(world, 3)
    invariant = make(RemovedMeansGone, world)
    invariant.started(one)
    invariant.sent(one, VoteReply(1, 3, 2, True))
    one.raft.follow(2, 3)
    result = Result(1, 1, conf_change=ConfChange(ConfChangeKind.REMOVE, 3), conf_valid=True)
    invariant.applied(one, [entry(2, 2, kind=CHANGE)], [result])
    invariant.changed(one)  # It leads on until the others know.
    invariant.sent(one, AppendReply(1, 3, 2, 2, False, 0, 0))
    invariant.sent(one, VoteReply(1, 3, 3, False))
    with objection("I49"):
        invariant.sent(one, VoteReply(1, 3, 3, True))
    with objection("I49"):
        invariant.sent(one, AppendReply(1, 3, 3, 2, False, 0, 0))
    one.raft.term = 3
    with objection("I49"):
        invariant.changed(one)
    # Its log has the removal, and nobody has told it that this is committed.
    three.raft.append(entry(2, 2, kind=CHANGE))
    invariant.changed(one)
    invariant.sent(one, VoteReply(1, 3, 3, True))
    invariant.applied(three, [entry(2, 2, kind=CHANGE)], [result])
    with objection("I49"):
        invariant.changed(one)
