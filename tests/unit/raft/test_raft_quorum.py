from __future__ import annotations

import pytest

from raft.quorum import VoteResult, committed_index, has_quorum, majority, vote_result


@pytest.mark.parametrize(("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_majority(voters: int, needed: int) -> None:
    assert majority(voters) == needed


@pytest.mark.parametrize(
    ("matches", "index"),
    [([], 0), ([7], 7), ([7, 5], 5), ([9, 5, 1], 5), ([9, 9, 1, 1], 1), ([9, 9, 9, 1, 1], 9)],
)
def test_committed_index_is_what_a_majority_holds(matches: list[int], index: int) -> None:
    assert committed_index(matches) == index


def test_a_quorum_counts_voters_only() -> None:
    assert has_quorum((1, 2, 3), {1, 3})
    assert not has_quorum((1, 2, 3), {1, 8, 9})
    assert not has_quorum((), {1})


@pytest.mark.parametrize(
    ("votes", "result"),
    [
        ({}, VoteResult.PENDING),
        ({1: True}, VoteResult.PENDING),
        ({1: True, 2: False}, VoteResult.PENDING),
        ({1: True, 2: True}, VoteResult.WON),
        ({1: True, 2: False, 3: False}, VoteResult.LOST),
        ({1: True, 8: True, 9: True}, VoteResult.PENDING),
    ],
)
def test_vote_result_of_three(votes: dict[int, bool], result: VoteResult) -> None:
    assert vote_result((1, 2, 3), votes) is result


def test_even_split_of_four_is_lost_only_when_a_majority_is_out_of_reach() -> None:
    assert vote_result((1, 2, 3, 4), {1: True, 2: False}) is VoteResult.PENDING
    assert vote_result((1, 2, 3, 4), {1: True, 2: False, 3: False}) is VoteResult.LOST
