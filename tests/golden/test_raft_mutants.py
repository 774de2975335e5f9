"""Tests of the tests: with a known bug put in, the trace that claims otherwise must fail.

Each mutant is a mistake that a real implementation has made or could easily make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from raft import (
    confchange,
    core,
    election,
    membership,
    messages,
    proposals,
    reads,
    replication,
    timers,
    transfer,
)
from raft.errors import ConfChangeRefused, RefusalReason
from raft.log import RaftLog
from raft.messages import Append, Heartbeat, InstallSnapshot, Message, RequestVote
from raft.quorum import committed_index
from raft.state import State
from raft.types import NO_NODE, ConfChange, Entry, Role
from tests.golden.runner import check
from tests.golden.runner_raft import RaftScript

Patches = list[AbstractContextManager[Any]]
MUTANTS: dict[str, tuple[Callable[[], Patches], tuple[str, ...]]] = {}


def mutant(*traces: str) -> Callable[[Callable[[], Patches]], Callable[[], Patches]]:
    """Registers a bug with the traces that must notice it."""

    def register(build: Callable[[], Patches]) -> Callable[[], Patches]:
        MUTANTS[build.__name__] = (build, traces)
        return build

    return register


def handler(kind: type[Any], replacement: Callable[[State, Any], None]) -> Patches:
    return [
        patch.dict(table, {kind: replacement}) for table in core.HANDLERS.values() if kind in table
    ]


@mutant("leader_of_new_term_does_not_commit_old_entries_by_counting")
def commits_old_entries_by_counting() -> Patches:
    def commit(state: State) -> None:
        index = committed_index([progress.match for progress in state.voter_progress])
        if state.log.commit_to(index):
            state.flush = True

    return [patch.object(replication, "commit_by_counting", commit)]


@mutant("read_held_until_first_commit_of_term", "single_voter_holds_reads_until_its_first_commit")
def serves_reads_before_its_first_commit() -> Patches:
    return [patch.object(reads, "can_begin_round", lambda state: state.role is Role.LEADER)]


def _lenient(*, first_commit: bool, one_at_a_time: bool) -> Patches:
    def check_change(state: State, change: ConfChange) -> None:
        if first_commit and state.log.commit < state.term_start:
            raise ConfChangeRefused(RefusalReason.NOT_COMMITTED_IN_TERM)
        if one_at_a_time and state.log.unresolved:
            raise ConfChangeRefused(RefusalReason.ANOTHER_UNAPPLIED)
        confchange.changed(state.conf, change)

    return [patch.object(proposals, "check_conf_change", check_change)]


@mutant(
    "change_is_refused_before_the_first_commit_of_the_term",
    "r1_add_then_remove_across_terms_cannot_split",
    "r1_two_adds_across_terms_cannot_split",
    "r1_two_removes_across_terms_cannot_split",
)
def accepts_a_change_before_its_first_commit() -> Patches:
    return _lenient(first_commit=False, one_at_a_time=True)


@mutant(
    "second_change_is_refused_while_one_is_unapplied", "new_leader_inherits_the_unapplied_change"
)
def accepts_two_changes() -> Patches:
    return _lenient(first_commit=True, one_at_a_time=False)


@mutant(
    "no_campaign_while_a_committed_change_is_unapplied",
    "transfer_target_with_an_unapplied_change_does_not_campaign",
)
def campaigns_with_an_unapplied_change() -> Patches:
    def may(state: State) -> bool:
        return state.is_voter and state.pending_snapshot is None

    return [patch.object(election, "may_campaign", may), patch.object(timers, "may_campaign", may)]


@mutant("no_campaign_while_a_snapshot_is_being_installed")
def campaigns_during_an_installation() -> Patches:
    return [patch.object(election, "may_campaign", lambda state: state.is_voter)]


@mutant("read_confirmation_of_an_earlier_round_does_not_count")
def counts_confirmations_of_any_round() -> Patches:
    def confirm(state: State, peer: int, read_id: int) -> None:
        if state.reads.round_reads and read_id:
            state.reads.round_acks.add(peer)
            reads.check_round(state)

    return [patch.object(replication, "confirm", confirm)]


@mutant("paused_leader_read_fails_with_leader_change", "read_is_confirmed_by_a_quorum")
def answers_reads_without_a_round() -> Patches:
    original = reads._begin_round

    def begin(state: State) -> None:
        original(state)
        state.reads.round_acks.update(state.conf.voters)
        reads.check_round(state)

    return [patch.object(reads, "_begin_round", begin)]


@mutant(
    "vote_leaves_only_after_persist",
    "append_is_acknowledged_only_after_persist",
    "vote_request_leaves_only_after_own_vote_is_on_disk",
    "snapshot_is_acknowledged_only_after_it_is_installed",
)
def sends_promises_at_once() -> Patches:
    def promise(self: State, message: Message, index: int = 0) -> None:
        self.now.append(message)

    return [patch.object(State, "promise", promise)]


@mutant("promise_of_an_older_term_never_leaves")
def releases_promises_of_an_older_term() -> Patches:
    class Forgiving(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    original = State.promise

    def promise(self: State, message: Message, index: int = 0) -> None:
        original(self, message._replace(term=Forgiving(message.term)), index)

    return [patch.object(State, "promise", promise)]


@mutant("leader_does_not_count_itself_before_its_write_ends")
def leader_counts_itself_at_once() -> Patches:
    original = replication.flush_appends

    def flush(state: State) -> None:
        state.progress[state.id].advance(state.log.last_index)
        original(state)

    return [patch.object(replication, "flush_appends", flush)]


@mutant("own_vote_counts_only_after_persist")
def candidate_counts_itself_at_once() -> Patches:
    original = State.become_candidate

    def become(self: State) -> None:
        original(self)
        self.disk = self.hard_state()
        election.count_own_vote(self)

    return [patch.object(State, "become_candidate", become)]


@mutant("overwritten_entries_are_not_stable_when_their_write_ends")
def marks_overwritten_entries_stable() -> Patches:
    def written(self: RaftLog) -> None:
        self.stable = self.last_index

    return [patch.object(RaftLog, "written", written)]


@mutant("late_append_does_not_cut_off_newer_entries")
def truncates_on_every_append() -> Patches:
    def try_append(
        self: RaftLog, prev_index: int, prev_term: int, entries: Sequence[Entry]
    ) -> int | None:
        if self.term_at(prev_index) != prev_term:
            return None
        if prev_index < self.last_index:
            self._truncate(prev_index + 1)
        self._extend(entries)
        return prev_index + len(entries)

    return [patch.object(RaftLog, "try_append", try_append)]


@mutant("candidate_with_a_shorter_log_gets_no_vote")
def votes_for_any_log() -> Patches:
    return [patch.object(RaftLog, "is_up_to_date", lambda self, index, term: True)]


@mutant("candidate_with_an_older_last_term_gets_no_vote_despite_a_longer_log")
def compares_length_before_term() -> Patches:
    def is_up_to_date(self: RaftLog, last_index: int, last_term: int) -> bool:
        return last_index >= self.last_index

    return [patch.object(RaftLog, "is_up_to_date", is_up_to_date)]


@mutant("second_candidate_in_a_term_gets_no_vote", "vote_survives_a_restart")
def votes_twice() -> Patches:
    return [patch.object(election, "_has_free_vote", lambda state, candidate: True)]


@mutant("learner_asked_to_vote_votes")
def learner_refuses_votes() -> Patches:
    original = election.handle_vote

    def handle(state: State, message: RequestVote) -> None:
        if state.is_voter:
            original(state, message)

    return handler(RequestVote, handle)


@mutant(
    "pre_vote_is_ignored_while_a_leader_is_heard", "vote_request_is_ignored_while_a_leader_is_heard"
)
def ignores_the_leaders_lease() -> Patches:
    return [patch.object(State, "hears_leader", lambda self: False)]


@mutant(
    "lower_term_append_is_answered_and_the_old_leader_steps_down",
    "lower_term_pre_vote_is_refused_with_the_term",
    "old_leader_learns_the_new_term_from_a_heartbeat_reply",
)
def is_silent_to_lower_terms() -> Patches:
    return [patch.object(core, "_answer_lower_term", lambda state, message: None)]


@mutant("stale_acknowledgement_of_an_older_term_is_not_counted")
def counts_acknowledgements_of_any_term() -> Patches:
    original = core._answer_lower_term

    def answer(state: State, message: Message) -> None:
        leads = state.role is Role.LEADER and message.sender in state.progress
        if leads and isinstance(message, messages.AppendReply):
            replication.handle_append_reply(state, message)
        else:
            original(state, message)

    return [patch.object(core, "_answer_lower_term", answer)]


@mutant("removed_node_cannot_disturb_the_rest")
def listens_to_removed_nodes() -> Patches:
    return [patch.object(core, "_MEMBERS_ONLY", frozenset())]


@mutant("duplicated_forward_is_appended_once")
def appends_duplicated_forwards() -> Patches:
    return [patch.object(proposals, "_is_new", lambda state, message: True)]


@mutant("conflict_hint_skips_whole_terms")
def gives_no_useful_hint() -> Patches:
    def meeting_point(self: RaftLog, index: int, term: int) -> tuple[int, int]:
        index = min(index, self.last_index)
        return index, self.term_at(index) or 0

    return [patch.object(RaftLog, "meeting_point", meeting_point)]


@mutant("removed_leader_leads_until_the_others_know")
def removed_leader_leaves_at_once() -> Patches:
    original = membership.switch_conf

    def switch(state: State, conf: Any) -> None:
        original(state, conf)
        if state.retire_index:
            state.become_follower(state.term, NO_NODE)

    return [patch.object(membership, "switch_conf", switch)]


@mutant("heartbeat_commits_only_what_the_follower_has_acknowledged")
def heartbeats_carry_the_whole_commit_index() -> Patches:
    def broadcast(state: State) -> None:
        for peer in state.progress:
            if peer != state.id:
                state.now.append(Heartbeat(state.id, peer, state.term, state.log.commit, 0))

    return [patch.object(timers, "broadcast_heartbeat", broadcast)]


@mutant("follower_commits_no_further_than_an_append_vouches_for")
def follower_trusts_the_commit_index_blindly() -> Patches:
    original = core.HANDLERS[Role.FOLLOWER][Append]

    def handle(state: State, message: Append) -> None:
        original(state, message)
        state.log.commit_to(min(message.commit, state.log.last_index))

    return handler(Append, handle)


@mutant("snapshot_waits_for_entries_that_are_being_applied")
def installs_while_entries_are_applied() -> Patches:
    def install(state: State, message: InstallSnapshot) -> None:
        meta = message.meta
        state.follow(message.sender)
        state.log.restore(meta.index, meta.term)
        state.pending_snapshot = meta
        membership.switch_conf(state, meta.conf)

    return handler(InstallSnapshot, install)


@mutant("removing_a_slow_voter_commits_what_waited_for_it")
def forgets_to_look_again_after_a_removal() -> Patches:
    return [patch.object(membership, "commit_by_counting", lambda state: None)]


@mutant("smaller_configuration_can_complete_a_read")
def forgets_reads_after_a_removal() -> Patches:
    return [patch.object(membership, "check_round", lambda state: None)]


@mutant("transfer_is_given_up_after_an_election_timeout")
def never_gives_a_transfer_up() -> Patches:
    return [patch.object(timers, "give_up_late_transfer", lambda state: None)]


@mutant("transfer_waits_until_the_target_is_level")
def hands_over_too_early() -> Patches:
    def hand_over(state: State, peer: int) -> None:
        if peer == state.transferee:
            state.now.append(messages.TimeoutNow(state.id, peer, state.term))

    return [patch.object(transfer, "hand_over_if_level", hand_over)]


@mutant("leader_without_a_quorum_steps_down", "learner_does_not_keep_a_leader_in_office")
def stays_without_a_quorum() -> Patches:
    return [patch.object(timers, "_quorum_is_active", lambda state: True)]


def fails(trace: str) -> bool:
    path = Path(__file__).with_name("raft") / f"{trace}.txt"
    try:
        check(path, RaftScript())
    except Exception:
        return True
    return False


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KVSTORE_GOLDEN", raising=False)
    build, traces = MUTANTS[name]
    assert not any(fails(trace) for trace in traces), "fails without the mutant already"
    with ExitStack() as stack:
        for context in build():
            stack.enter_context(context)
        unnoticed = [trace for trace in traces if not fails(trace)]
    assert not unnoticed, f"{name} goes unnoticed by {unnoticed}"
