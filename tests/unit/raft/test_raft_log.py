from __future__ import annotations

import pytest

from raft.errors import InvariantBroken
from raft.limits import ENTRY_OVERHEAD_BYTES
from raft.log import RaftLog
from raft.types import ConfChange, ConfChangeKind, Entry, EntryKind


def entries(first: int, *terms: int) -> list[Entry]:
    return [Entry(first + i, term, 0, b"d%d" % (first + i)) for i, term in enumerate(terms)]


def change_at(index: int, term: int) -> Entry:
    data = ConfChange(ConfChangeKind.ADD_VOTER, 9).encode()
    return Entry(index, term, int(EntryKind.CONF_CHANGE), data)


def log(*terms: int, base: tuple[int, int] = (0, 0), commit: int = 0, applied: int = 0) -> RaftLog:
    applied = max(applied, base[0])
    return RaftLog(base, entries(base[0] + 1, *terms), commit=commit, applied=applied)


def test_terms_at_and_around_the_edges() -> None:
    a = log(1, 2, 2, base=(4, 1))
    assert [a.term_at(i) for i in range(3, 9)] == [None, 1, 1, 2, 2, None]
    assert (a.first_index, a.last_index, a.last_term) == (5, 7, 2)
    empty = log(base=(4, 3))
    assert (empty.first_index, empty.last_index, empty.last_term) == (5, 4, 3)


@pytest.mark.parametrize(
    ("index", "term", "up_to_date"),
    [(3, 2, True), (2, 2, False), (1, 3, True), (9, 1, False), (4, 2, True)],
)
def test_up_to_date_compares_term_first(index: int, term: int, up_to_date: bool) -> None:
    assert log(1, 2, 2).is_up_to_date(index, term) is up_to_date


@pytest.mark.parametrize(
    ("index", "term", "meets"),
    [
        (6, 9, (6, 5)),
        (99, 9, (6, 5)),
        (6, 4, (5, 3)),
        (6, 2, (2, 1)),
        (4, 3, (4, 3)),
        (6, 0, (0, 0)),
        (0, 5, (0, 0)),
    ],
)
def test_meeting_point(index: int, term: int, meets: tuple[int, int]) -> None:
    assert log(1, 1, 3, 3, 3, 5).meeting_point(index, term) == meets


def test_meeting_point_never_goes_below_the_base() -> None:
    assert log(5, 5, base=(7, 4)).meeting_point(9, 1) == (7, 4)
    assert log(5, 5, base=(7, 4)).meeting_point(3, 9) == (7, 4)


def test_try_append_refuses_a_gap_and_a_wrong_term() -> None:
    a = log(1, 1)
    assert a.try_append(3, 1, entries(4, 1)) is None
    assert a.try_append(2, 2, entries(3, 2)) is None
    assert a.last_index == 2


def test_try_append_keeps_what_agrees_and_replaces_what_does_not() -> None:
    a = log(1, 1, 1, 1)
    assert a.try_append(1, 1, entries(2, 1, 1)) == 3
    assert a.last_index == 4
    assert a.try_append(1, 1, entries(2, 1, 2)) == 3
    assert [a.term_at(i) for i in (1, 2, 3, 4)] == [1, 1, 2, None]
    assert a.stable == 2


def test_empty_append_is_a_probe() -> None:
    a = log(1, 1)
    assert a.try_append(1, 1, []) == 1
    assert a.last_index == 2


def test_written_marks_what_was_handed_out() -> None:
    a = log()
    a.append(entries(1, 1, 1))
    assert a.take_unstable() == entries(1, 1, 1)
    a.append(entries(3, 1))
    a.written()
    assert a.stable == 2
    assert a.take_unstable() == entries(3, 1)


def test_overwritten_while_in_flight_is_not_written() -> None:
    a = log(1)
    a.append(entries(2, 1, 1))
    a.take_unstable()
    assert a.try_append(1, 1, entries(2, 2, 2, 2)) == 4
    a.written()
    assert a.stable == 1


def test_committed_is_handed_out_once_and_only_when_stable() -> None:
    a = log(1, 1, 1)
    a.append(entries(4, 1))
    a.commit_to(4)
    assert [e.index for e in a.take_committed(2)] == [1, 2]
    assert [e.index for e in a.take_committed(9)] == [3]
    assert not a.has_committed()
    assert a.take_committed(9) == []
    a.take_unstable()
    a.written()
    assert a.has_committed()
    assert [e.index for e in a.take_committed(9)] == [4]


def test_commit_never_goes_back_nor_beyond_the_log() -> None:
    a = log(1, 1, 1)
    assert a.commit_to(2)
    assert not a.commit_to(1)
    assert a.commit == 2
    with pytest.raises(InvariantBroken, match="lost entries"):
        a.commit_to(4)


def test_contradiction_below_the_commit_index_is_fatal() -> None:
    a = log(1, 1, 1, commit=2)
    a.check_committed(entries(1, 1, 1, 5))
    with pytest.raises(InvariantBroken, match="another entry 2"):
        a.check_committed(entries(1, 1, 5))


def test_slices_are_cut_by_size_and_hold_at_least_one() -> None:
    a = log()
    a.append([Entry(i, 1, 0, b"x" * 10) for i in range(1, 6)])
    one = ENTRY_OVERHEAD_BYTES + 10
    assert [len(a.slice_from(1, size)[0]) for size in (1, one, 2 * one, 3 * one - 1, 99999)] == [
        1,
        1,
        2,
        2,
        5,
    ]
    assert a.slice_from(4, 99999)[1] == 2 * one


def test_level_followers_share_one_slice_until_the_log_changes() -> None:
    a = log(1, 1)
    first = a.slice_from(1, 1000)[0]
    assert a.slice_from(1, 1000)[0] is first
    a.append(entries(3, 1))
    assert a.slice_from(1, 1000)[0] == entries(1, 1, 1, 1)


def test_compaction_keeps_the_term_of_the_last_dropped_entry() -> None:
    a = log(1, 2, 3, 3, commit=3, applied=3)
    a.compact(2)
    assert (a.base_index, a.base_term, a.first_index) == (2, 2, 3)
    assert a.term_at(2) == 2
    assert a.slice_from(3, 1000)[0] == entries(3, 3, 3)
    a.compact(1)
    assert a.base_index == 2
    a.compact(3)
    assert (a.base_index, a.base_term) == (3, 3)
    assert a.stable == 4


def test_compaction_stops_at_what_is_applied() -> None:
    with pytest.raises(AssertionError, match="only 1 is applied"):
        log(1, 1, commit=2, applied=1).compact(2)


def test_restore_starts_again_behind_the_snapshot() -> None:
    a = log(1, 1, 1, commit=1)
    a.append(entries(4, 1))
    a.take_unstable()
    a.restore(9, 3)
    assert (a.first_index, a.last_index, a.commit, a.stable) == (10, 9, 9, 9)
    a.append(entries(10, 3))
    a.written()
    assert a.stable == 9


def test_membership_changes_are_tracked_until_resolved() -> None:
    a = RaftLog((0, 0), [*entries(1, 1), change_at(2, 1)], commit=1, applied=0)
    assert list(a.unresolved) == [2]
    assert not a.has_unapplied_committed_change()
    a.commit_to(2)
    assert a.has_unapplied_committed_change()
    a.resolve_conf_change()
    assert a.unresolved, "not handed out yet"
    a.take_committed(9)
    a.resolve_conf_change()
    assert not a.unresolved


def test_applying_past_a_change_resolves_it() -> None:
    a = RaftLog((0, 0), [change_at(1, 1), change_at(2, 1)], commit=2, applied=0)
    a.take_committed(9)
    a.applied_to(1)
    assert list(a.unresolved) == [2]


def test_overwritten_change_is_no_longer_tracked() -> None:
    a = RaftLog((0, 0), [*entries(1, 1), change_at(2, 1)], commit=0, applied=0)
    a.try_append(1, 1, entries(2, 2))
    assert not a.unresolved
    a.try_append(2, 2, [change_at(3, 2)])
    assert list(a.unresolved) == [3]


def test_changes_below_applied_are_not_pending_after_a_restart() -> None:
    a = RaftLog((0, 0), [change_at(1, 1), change_at(2, 1)], commit=2, applied=1)
    assert list(a.unresolved) == [2]


@pytest.mark.parametrize(
    ("base", "found", "commit", "applied"),
    [
        ((0, 0), entries(2, 1), 0, 0),
        ((3, 2), entries(4, 1), 3, 3),
        ((0, 0), [*entries(1, 1), *entries(3, 1)], 0, 0),
        ((0, 0), entries(1, 1), 2, 0),
        ((0, 0), entries(1, 1), 1, 2),
        ((5, 1), entries(6, 1), 6, 4),
    ],
)
def test_a_log_that_does_not_fit_together_is_refused(
    base: tuple[int, int], found: list[Entry], commit: int, applied: int
) -> None:
    with pytest.raises(InvariantBroken):
        RaftLog(base, found, commit=commit, applied=applied)
