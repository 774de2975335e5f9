"""Majority arithmetic; knows nothing of Raft but that more than half decides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

__all__ = (
    "VoteResult",
    "committed_index",
    "has_quorum",
    "majority",
    "vote_result",
)


class VoteResult(Enum):
    """Where an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(voters: int) -> int:
    """The smallest number of `voters` of which any two sets overlap."""
    return voters // 2 + 1


def committed_index(matches: Collection[int]) -> int:
    """The highest index that a majority holds, given what each voter holds; 0 without voters."""
    if not matches:
        return 0
    ascending = sorted(matches)
    return ascending[(len(ascending) - 1) // 2]


def has_quorum(voters: Collection[int], present: Collection[int]) -> bool:
    """Whether `present` holds a majority of `voters`; others in `present` do not count."""
    count = sum(1 for voter in voters if voter in present)
    return count >= majority(len(voters))


def vote_result(voters: Collection[int], votes: Mapping[int, bool]) -> VoteResult:
    """Where the election stands; votes of nodes outside `voters` do not count.

    LOST means that even if everyone still silent agreed, there would be no majority.
    """
    needed = majority(len(voters))
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return VoteResult.WON
    if len(voters) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING
