"""Any sequence of membership changes leaves a configuration that can decide."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raft.confchange import changed, checked
from raft.errors import ConfChangeInvalid
from raft.types import ConfChange, ConfChangeKind, ConfState

CHANGES = st.lists(
    st.builds(ConfChange, st.sampled_from(ConfChangeKind), st.integers(1, 6)), max_size=20
)


@given(CHANGES)
def test_against_two_sets(changes: list[ConfChange]) -> None:
    conf = ConfState((1, 2, 3))
    voters, learners = {1, 2, 3}, set[int]()
    for change in changes:
        node = change.node_id
        try:
            after = changed(conf, change)
        except ConfChangeInvalid:
            last = change.kind is ConfChangeKind.REMOVE and voters == {node}
            assert last or (change.kind is ConfChangeKind.ADD_LEARNER and node in voters)
            continue
        if change.kind is ConfChangeKind.ADD_VOTER:
            voters, learners = voters | {node}, learners - {node}
        elif change.kind is ConfChangeKind.ADD_LEARNER:
            learners = learners | {node}
        elif change.kind is ConfChangeKind.REMOVE:
            voters, learners = voters - {node}, learners - {node}
        assert after == ConfState(tuple(sorted(voters)), tuple(sorted(learners)))
        assert after == checked(after)
        assert len(set(after.voters) ^ set(conf.voters)) <= 1, "more than a single step"
        assert after.voters
        assert changed(after, change) == after, "applying twice differs from once"
        conf = after


@given(st.sampled_from(ConfChangeKind), st.integers(0, 2**64 - 1), st.binary(max_size=40))
def test_bytes_and_back(kind: ConfChangeKind, node_id: int, context: bytes) -> None:
    change = ConfChange(kind, node_id, context)
    assert ConfChange.decode(change.encode()) == change


@given(st.binary(max_size=30))
def test_any_bytes_are_a_change_or_a_value_error(data: bytes) -> None:
    try:
        change = ConfChange.decode(data)
    except ValueError:
        return
    assert change.encode() == data
