"""Who leads: pre-votes, votes, and what follows from winning (thesis 3.4, 9.6).

- Nobody campaigns while a committed membership change is unapplied (R2): its quorum could miss
  the one that has already decided.
- Learners answer vote requests (R3): a learner may have been made a voter and not know it yet.
  They are never counted.
- A node that hears a leader ignores vote requests, unless that leader asked for the election.
"""

from __future__ import annotations

from raft.messages import (
    PreVoteReply,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from raft.quorum import VoteResult, vote_result
from raft.replication import append_first_entry
from raft.state import State
from raft.types import NO_NODE, Role

__all__ = (
    "campaign",
    "count_own_vote",
    "handle_pre_vote",
    "handle_pre_vote_reply",
    "handle_timeout_now",
    "handle_vote",
    "handle_vote_reply",
    "may_campaign",
)


def may_campaign(state: State) -> bool:
    """Whether this node may try to become leader."""
    return (
        state.is_voter
        and state.pending_snapshot is None
        and not state.log.has_unapplied_committed_change()
    )


def campaign(state: State, *, forced: bool = False) -> None:
    """Starts an election if this node may; `forced` on the old leader's demand, at once."""
    if state.role is Role.LEADER or not may_campaign(state):
        return
    if state.config.pre_vote and not forced:
        _start_pre_vote(state)
    else:
        _start_vote(state, forced=forced)


def _start_pre_vote(state: State) -> None:
    state.become_pre_candidate()
    state.votes[state.id] = True
    log = state.log
    for peer in state.conf.voters:
        if peer != state.id:
            state.now.append(
                RequestPreVote(state.id, peer, state.term + 1, log.last_index, log.last_term)
            )
    _tally(state)


def _start_vote(state: State, *, forced: bool) -> None:
    """Requests leave only with the new term on disk.

    Otherwise a node could crash, forget entries that it had claimed here, campaign in the same
    term again and be elected by votes that were given to the longer log.
    """
    state.become_candidate()
    log = state.log
    for peer in state.conf.voters:
        if peer != state.id:
            request = RequestVote(state.id, peer, state.term, log.last_index, log.last_term, forced)
            state.promise(request, log.last_index)


def count_own_vote(state: State) -> None:
    """A Persist is done: if it brought this candidate's own vote to disk, the vote counts."""
    if (
        state.role is Role.CANDIDATE
        and state.id not in state.votes
        and (state.disk.term, state.disk.vote) == (state.term, state.id)
    ):
        state.votes[state.id] = True
        _tally(state)


def _tally(state: State) -> None:
    result = vote_result(state.conf.voters, state.votes)
    if result is VoteResult.LOST:
        state.become_follower(state.term, NO_NODE)
    elif result is VoteResult.WON:
        if state.role is Role.PRE_CANDIDATE:
            _start_vote(state, forced=False)
        elif state.id in state.votes:
            state.become_leader()
            append_first_entry(state)


def handle_pre_vote(state: State, message: RequestPreVote) -> None:
    """Any role. Says what a vote would say, and changes nothing."""
    free = message.term > state.term or _has_free_vote(state, message.sender)
    granted = free and state.log.is_up_to_date(message.last_index, message.last_term)
    term = message.term if granted else state.term
    state.now.append(PreVoteReply(state.id, message.sender, term, granted))


def handle_vote(state: State, message: RequestVote) -> None:
    """Any role, in the same term: one vote per term, and only for a log that is up to date."""
    granted = _has_free_vote(state, message.sender) and state.log.is_up_to_date(
        message.last_index, message.last_term
    )
    reply = VoteReply(state.id, message.sender, state.term, granted)
    if granted:
        state.vote = message.sender
        state.election_elapsed = 0
        state.promise(reply)
    else:
        state.now.append(reply)


def _has_free_vote(state: State, candidate: int) -> bool:
    if state.vote == candidate:
        return True
    return state.vote == NO_NODE and state.leader_id == NO_NODE


def handle_pre_vote_reply(state: State, message: PreVoteReply) -> None:
    """Pre-candidate."""
    if message.granted != (message.term == state.term + 1):
        return
    state.votes.setdefault(message.sender, message.granted)
    _tally(state)


def handle_vote_reply(state: State, message: VoteReply) -> None:
    """Candidate."""
    state.votes.setdefault(message.sender, message.granted)
    _tally(state)


def handle_timeout_now(state: State, message: TimeoutNow) -> None:
    """Follower: the leader hands over."""
    if message.sender == state.leader_id:
        campaign(state, forced=True)
