from __future__ import annotations

from raft.progress import Progress, ProgressState


def follower(match: int = 3, next_index: int = 4) -> Progress:
    return Progress(match=match, next_index=next_index, recent_active=True)


def test_window_is_bounded_by_count_and_by_bytes() -> None:
    p = follower()
    p.become_replicate()
    p.sent(5, 100)
    p.sent(6, 50)
    assert p.next == 7
    assert p.inflight_count == 2
    assert p.inflight_bytes == 150
    assert p.is_full(2, 10_000)
    assert p.is_full(10, 150)
    assert not p.is_full(3, 151)


def test_acknowledgement_frees_everything_up_to_it() -> None:
    p = follower()
    p.become_replicate()
    p.sent(5, 100)
    p.sent(7, 50)
    p.free_to(6)
    assert (p.inflight_count, p.inflight_bytes) == (1, 50)
    p.free_to(7)
    assert (p.inflight_count, p.inflight_bytes) == (0, 0)


def test_advance_reports_news_only() -> None:
    p = follower()
    assert p.advance(5)
    assert (p.match, p.next) == (5, 6)
    assert not p.advance(5)
    assert not p.advance(2)
    assert p.match == 5


def test_rejection_while_probing_must_be_about_the_probe() -> None:
    p = follower(match=0, next_index=10)
    p.probe_sent = True
    assert not p.fall_back(5, 3)
    assert p.probe_sent
    assert p.fall_back(9, 3)
    assert p.next == 4
    assert not p.probe_sent


def test_probe_never_goes_behind_match_or_beyond_the_rejection() -> None:
    p = follower(match=6, next_index=10)
    assert p.fall_back(9, 2)
    assert p.next == 7
    p = follower(match=0, next_index=10)
    assert p.fall_back(9, 50)
    assert p.next == 9


def test_rejection_while_replicating_goes_back_to_match() -> None:
    p = follower()
    p.become_replicate()
    p.sent(9, 1)
    assert not p.fall_back(3, 1)
    assert p.fall_back(8, 1)
    assert p.next == 4


def test_rejection_during_a_snapshot_is_ignored() -> None:
    p = follower()
    p.become_snapshot()
    assert not p.fall_back(3, 1)


def test_transitions_start_with_an_empty_window() -> None:
    p = follower()
    p.become_replicate()
    p.sent(9, 5)
    p.become_probe(20)
    assert (p.state, p.next, p.inflight_count, p.inflight_bytes) == (ProgressState.PROBE, 20, 0, 0)
    p.become_probe(1)
    assert p.next == p.match + 1
