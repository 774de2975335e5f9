"""The random numbers: the published sequence, fair enough, and independent by name."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sim.prng import Prng


def test_it_is_splitmix64() -> None:
    prng = Prng(1234567)
    assert [prng.next64() for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_a_seed_means_the_same_for_ever() -> None:
    prng = Prng(7).fork("disk")
    drawn = [prng.below(1000) for _ in range(4)], prng.shuffled("abcdef"), prng.between(5, 9)
    assert drawn == ([739, 932, 930, 185], list("cbefda"), 5)


def test_a_fork_depends_on_its_name_and_not_on_what_was_drawn() -> None:
    prng = Prng(1)
    before = prng.fork("network").next64()
    prng.next64()
    assert prng.fork("network").next64() == before
    assert prng.fork("disk").next64() != before
    assert Prng(2).fork("network").next64() != before


def test_a_copy_goes_on_alike() -> None:
    prng = Prng(3)
    prng.next64()
    twin = prng.copy()
    assert [twin.next64() for _ in range(5)] == [prng.next64() for _ in range(5)]


def test_draws_stay_in_their_bounds_and_reach_all_of_them() -> None:
    prng = Prng(4)
    assert {prng.below(5) for _ in range(200)} == {0, 1, 2, 3, 4}
    assert {prng.between(-2, 1) for _ in range(200)} == {-2, -1, 0, 1}
    assert {prng.pick("xy") for _ in range(50)} == {"x", "y"}
    hits = Counter(prng.chance(1, 4) for _ in range(4000))
    assert 850 < hits[True] < 1150
    weighed = Counter(prng.weighted([(3, "a"), (0, "never"), (1, "b")]) for _ in range(4000))
    assert set(weighed) == {"a", "b"}
    assert 2800 < weighed["a"] < 3200
    places = Counter("".join(prng.shuffled("abc")) for _ in range(6000))
    assert len(places) == 6
    assert min(places.values()) > 850


def test_there_is_nothing_below_zero() -> None:
    with pytest.raises(AssertionError):
        Prng(5).below(0)
