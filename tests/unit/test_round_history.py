"""The judge of the kill rounds notices what a member may not do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.process.fault_rounds import History

Pairs = dict[str, tuple[str, int]]


def told() -> History:
    """Writes and a deletion that were acknowledged, and two requests without an answer."""
    return History(
        asked={
            "1": {"a": "1"},
            "2": {"a": "2-0", "b": "2-1"},
            "3": {"c": "3"},
            "4": {"c": None},
            "5": {"a": "5"},
            "6": {"b": None},
        },
        acked={"1": 2, "2": 3, "3": 4, "4": 5},
    )


@pytest.mark.parametrize(
    ("pairs", "revision"),
    [
        ({"a": ("2-0", 3), "b": ("2-1", 3)}, 5),
        ({"a": ("5", 6), "b": ("2-1", 3)}, 6),
        ({"a": ("5", 6)}, 7),
        ({"a": ("2-0", 3)}, 6),
        ({"a": ("2-0", 3), "b": ("2-1", 3), "last": ("x", 9)}, 9),
    ],
)
def test_what_may_be_found(pairs: Pairs, revision: int) -> None:
    told().judge(pairs, revision)


def a_write_is_gone(pairs: Pairs) -> int:
    del pairs["a"]
    return 5


def an_older_one_is_back(pairs: Pairs) -> int:
    pairs["a"] = ("1", 2)
    return 5


def a_deletion_is_undone(pairs: Pairs) -> int:
    pairs["c"] = ("3", 4)
    return 5


def nobody_wrote_it(pairs: Pairs) -> int:
    pairs["d"] = ("7", 6)
    return 6


def it_is_another_key_s(pairs: Pairs) -> int:
    pairs["b"] = ("2-0", 3)
    return 5


def it_has_another_revision(pairs: Pairs) -> int:
    pairs["b"] = ("2-1", 4)
    return 5


def a_late_one_is_in_the_past(pairs: Pairs) -> int:
    pairs["a"] = ("5", 2)
    return 5


def the_revision_went_back(pairs: Pairs) -> int:
    return 4


@pytest.mark.parametrize(
    "wrong",
    [
        a_write_is_gone,
        an_older_one_is_back,
        a_deletion_is_undone,
        nobody_wrote_it,
        it_is_another_key_s,
        it_has_another_revision,
        a_late_one_is_in_the_past,
        the_revision_went_back,
    ],
)
def test_what_may_not(wrong: Callable[[Pairs], int]) -> None:
    pairs = {"a": ("2-0", 3), "b": ("2-1", 3)}
    revision = wrong(pairs)
    with pytest.raises(AssertionError):
        told().judge(pairs, revision)
