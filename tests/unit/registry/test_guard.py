"""When too many fall silent at once: arithmetic and decisions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.registry.guard import Guard, GuardSettings, Verdict, too_many
from kvstore.registry.names import Invalid


@pytest.mark.parametrize(
    ("silent", "total", "engages"),
    [
        (2, 2, False),  # Fewer than three are never too many.
        (3, 3, True),
        (3, 9, True),  # 33 %
        (3, 10, False),  # Exactly 30 % is not more than 30 %.
        (4, 13, True),
        (30, 100, False),
        (31, 100, True),
        (0, 0, False),
    ],
)
def test_more_than_thirty_percent_and_at_least_three(
    silent: int, total: int, engages: bool
) -> None:
    assert too_many(silent, total, GuardSettings()) is engages


def test_those_who_fell_silent_within_the_window_are_held() -> None:
    guard = Guard()
    assert guard.fell([1], 0.0, 6) is None
    assert guard.fell([2], 59.0, 6) is None
    assert guard.fell([3], 61.0, 6) is None  # The first was too long ago.
    decision = guard.fell([4, 5], 70.0, 6)
    assert decision == (Verdict.ENGAGED, (2, 3, 4, 5))
    assert guard.until == 670.0
    assert guard.fell([6, 5], 80.0, 6) == (Verdict.HELD, (6,))
    assert guard.fell([6], 81.0, 6) is None


def test_it_ends_when_enough_came_back() -> None:
    guard = Guard()
    guard.fell([1, 2, 3, 4], 0.0, 10)
    assert guard.gone([1], 10) == (Verdict.RECOVERED, (2, 3, 4))
    assert guard.idle


def test_it_gives_up_after_its_time_and_the_same_silence_does_not_engage_it_again() -> None:
    guard = Guard(GuardSettings(hold_s=100.0))
    guard.fell([1, 2, 3], 0.0, 4)
    assert guard.tick(99.9) is None
    decision = guard.tick(100.0)
    assert decision == (Verdict.TIMED_OUT, (1, 2, 3))
    assert decision.verdict.ends
    assert guard.tick(101.0) is None
    assert guard.fell([4], 102.0, 4) is None


@pytest.mark.parametrize("verdict", [Verdict.LIFTED, Verdict.CONFIRMED])
def test_an_operator_ends_it(verdict: Verdict) -> None:
    guard = Guard()
    end = guard.lift if verdict is Verdict.LIFTED else guard.confirm
    assert end() is None
    guard.fell([1, 2, 3], 0.0, 4)
    assert end() == (verdict, (1, 2, 3))
    assert end() is None


def test_it_goes_on_with_a_new_leader() -> None:
    guard = Guard()
    guard.resume([1, 2, 3], 50.0)
    assert guard.held == (1, 2, 3)
    assert guard.fell([4], 1.0, 5) == (Verdict.HELD, (4,))
    assert guard.tick(50.0) == (Verdict.TIMED_OUT, (1, 2, 3, 4))


def test_it_can_be_switched_off_and_set_otherwise() -> None:
    assert Guard(GuardSettings(enabled=False)).fell(range(100), 0.0, 100) is None
    strict = GuardSettings.of_json({"guard": {"percent": 50, "at_least": 1, "window_s": 5}})
    assert strict == GuardSettings(True, 50, 1, 5, 600.0)
    assert Guard(strict).fell([1], 0.0, 2) is None
    assert Guard(strict).fell([1], 0.0, 1) == (Verdict.ENGAGED, (1,))
    assert GuardSettings.of_json({"other": 1}) == GuardSettings()


@pytest.mark.parametrize(
    "told",
    [
        7,
        {"guard": 7},
        {"guard": {"percent": "30"}},
        {"guard": {"percent": 101}},
        {"guard": {"at_least": 0}},
        {"guard": {"at_least": True}},
        {"guard": {"at_least": 1.5}},
        {"guard": {"enabled": 1}},
        {"guard": {"window_s": 0}},
        {"guard": {"window_s": "5"}},
        {"guard": {"hold_s": 3601}},
    ],
)
def test_settings_that_make_no_sense_are_refused(told: Any) -> None:
    with pytest.raises(Invalid):
        GuardSettings.of_json(told)


falls = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 40), st.booleans()), min_size=1, max_size=40
)


@given(falls, st.integers(1, 12))
def test_it_engages_exactly_when_the_window_holds_too_many(
    events: list[tuple[int, int, bool]], total: int
) -> None:
    guard, now = Guard(), 0.0
    silent: dict[int, float] = {}
    for number, pause, comes_back in events:
        now += pause
        if comes_back:
            silent.pop(number, None)
            guard.gone([number], total)
            continue
        if number in silent:
            continue
        silent[number] = now
        recent = {each for each, at in silent.items() if at >= now - 60.0}
        decision = guard.fell([number], now, total)
        if too_many(len(recent), total, GuardSettings()):
            assert decision is not None
            assert (decision.verdict, set(decision.instances)) == (Verdict.ENGAGED, recent)
            return
        assert decision is None
