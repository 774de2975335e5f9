"""Quorum arithmetic against counting by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raft.quorum import VoteResult, committed_index, has_quorum, majority, vote_result

VOTERS = st.sets(st.integers(1, 9), min_size=1, max_size=7)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=7))
def test_committed_index(matches: list[int]) -> None:
    held = [i for i in range(21) if sum(match >= i for match in matches) * 2 > len(matches)]
    assert committed_index(matches) == max(held)


@given(VOTERS, st.sets(st.integers(1, 9)), st.sets(st.integers(1, 9)))
def test_two_quorums_share_a_voter(voters: set[int], one: set[int], other: set[int]) -> None:
    if has_quorum(voters, one) and has_quorum(voters, other):
        assert voters & one & other


@given(VOTERS, st.integers(1, 9))
def test_quorums_of_neighbouring_configurations_share_a_voter(voters: set[int], node: int) -> None:
    after = voters ^ {node}
    for size_before in range(majority(len(voters)), len(voters) + 1):
        for size_after in range(majority(len(after)), len(after) + 1):
            # The least overlap that two subsets of these sizes can have.
            assert size_before + size_after > len(voters | after)


@given(VOTERS, st.dictionaries(st.integers(1, 9), st.booleans()))
def test_vote_result(voters: set[int], votes: dict[int, bool]) -> None:
    result = vote_result(voters, votes)
    silent = [voter for voter in voters if voter not in votes]
    yes = [voter for voter in voters if votes.get(voter)]
    if len(yes) * 2 > len(voters):
        assert result is VoteResult.WON
    elif (len(yes) + len(silent)) * 2 > len(voters):
        assert result is VoteResult.PENDING
    else:
        assert result is VoteResult.LOST
