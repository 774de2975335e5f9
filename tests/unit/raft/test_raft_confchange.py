from __future__ import annotations

import pytest

from raft.confchange import changed, checked
from raft.errors import ConfChangeInvalid
from raft.types import ConfChange, ConfChangeKind, ConfState

BASE = ConfState((1, 2, 3), (7,))


@pytest.mark.parametrize(
    ("kind", "node", "after"),
    [
        (ConfChangeKind.ADD_VOTER, 4, ConfState((1, 2, 3, 4), (7,))),
        (ConfChangeKind.ADD_VOTER, 2, BASE),
        (ConfChangeKind.ADD_VOTER, 7, ConfState((1, 2, 3, 7))),
        (ConfChangeKind.ADD_LEARNER, 5, ConfState((1, 2, 3), (5, 7))),
        (ConfChangeKind.ADD_LEARNER, 7, BASE),
        (ConfChangeKind.REMOVE, 2, ConfState((1, 3), (7,))),
        (ConfChangeKind.REMOVE, 7, ConfState((1, 2, 3))),
        (ConfChangeKind.REMOVE, 9, BASE),
        (ConfChangeKind.UPDATE, 2, BASE),
    ],
)
def test_changes(kind: ConfChangeKind, node: int, after: ConfState) -> None:
    assert changed(BASE, ConfChange(kind, node)) == after


def test_the_last_voter_stays() -> None:
    with pytest.raises(ConfChangeInvalid, match="last voter"):
        changed(ConfState((1,), (2,)), ConfChange(ConfChangeKind.REMOVE, 1))


def test_a_voter_does_not_become_a_learner() -> None:
    with pytest.raises(ConfChangeInvalid, match="is a voter"):
        changed(BASE, ConfChange(ConfChangeKind.ADD_LEARNER, 1))


def test_the_first_voter_can_join_an_empty_configuration() -> None:
    assert changed(ConfState(()), ConfChange(ConfChangeKind.ADD_VOTER, 3)) == ConfState((3,))


def test_checked_sorts_and_refuses_doubles() -> None:
    assert checked(ConfState((3, 1), (9, 8))) == ConfState((1, 3), (8, 9))
    with pytest.raises(ConfChangeInvalid):
        checked(ConfState((1, 2), (2,)))


def test_conf_change_bytes() -> None:
    change = ConfChange(ConfChangeKind.REMOVE, 2**63, b"why")
    assert ConfChange.decode(change.encode()) == change
    for bad in (b"", b"\x00" * 8, b"\x09" + b"\x00" * 8):
        with pytest.raises(ValueError, match=r".+"):
            ConfChange.decode(bad)
