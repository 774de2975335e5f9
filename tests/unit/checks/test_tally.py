"""Thresholds, pauses and what several checks add up to."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from kvstore.checks import limits
from kvstore.checks.spec import Check, TcpProbe
from kvstore.checks.tally import (
    Finding,
    Standing,
    Tally,
    Verdict,
    pause_s,
    shortened,
    worst,
)

WORDS = {"p": Verdict.PASSING, "w": Verdict.WARNING, "c": Verdict.CRITICAL}


def standings(findings: str, *, healthy_after: int = 2, unhealthy_after: int = 3) -> str:
    """The first letters of where a check stands after each finding."""
    check = Check(TcpProbe(), healthy_after=healthy_after, unhealthy_after=unhealthy_after)
    rows = accumulate(
        findings, lambda tally, word: tally.after(check, Finding(WORDS[word], "")), initial=Tally()
    )
    # STARTING, Up, dEgraded, Down
    letters = {
        Standing.STARTING: "S",
        Standing.UP: "U",
        Standing.DEGRADED: "E",
        Standing.DOWN: "D",
    }
    return "".join(letters[row.standing] for row in list(rows)[1:])


def test_thresholds_count_findings_in_a_row() -> None:
    assert standings("pp") == "SU"
    assert standings("ppcc") == "SUUU"
    assert standings("ppccc") == "SUUUD"
    assert standings("ppccpccc") == "SUUUUUUD"
    assert standings("ppcccp") == "SUUUDD"
    assert standings("ppcccpp") == "SUUUDDU"
    assert standings("ppcccpcpp") == "SUUUDDDDU"


def test_who_never_passed_is_starting_for_as_long_as_it_takes() -> None:
    assert standings("c" * 50 + "pp") == "S" * 51 + "U"
    assert standings("cpcpcc", healthy_after=1) == "SUUUUU"


def test_warnings_degrade_at_once_and_count_as_alive() -> None:
    assert standings("ppw") == "SUE"
    assert standings("ww") == "SE"
    assert standings("ppwp") == "SUEU"
    assert standings("ppccwcc") == "SUUUEEE"


@given(st.text("pwc", max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_it_falls_only_after_so_many_in_a_row(word: str, up: int, down: int) -> None:
    told = standings(word, healthy_after=up, unhealthy_after=down)
    for end in range(1, len(word)):
        before, after = told[end - 1], told[end]
        if after == "D" and before != "D":
            assert word[: end + 1].endswith("c" * down)
        if before in "SD" and after in "UE":
            assert end + 1 >= up
            assert "c" not in word[end + 1 - up : end + 1]


@given(
    st.floats(1, 3600),
    st.floats(0, 10),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from(Standing),
)
def test_pauses_stay_near_the_interval(
    interval_s: float, took_s: float, chance: float, eager: bool, standing: Standing
) -> None:
    check = Check(TcpProbe(), interval_s=interval_s)
    pause = pause_s(check, Tally(standing), took_s, chance, eager=eager)
    assert limits.PAUSE_MIN_S <= pause <= interval_s * 1.1 + 1e-9
    if not (eager and standing is Standing.STARTING):
        assert pause >= min(interval_s * 0.9, interval_s * 0.9 - took_s) - 1e-9
    else:
        assert pause <= limits.STARTING_INTERVAL_S * 1.1 + 1e-9


def test_the_gravest_of_several_counts() -> None:
    assert worst(()) is Standing.UP
    assert worst((Standing.UP, Standing.DEGRADED)) is Standing.DEGRADED
    assert worst((Standing.DEGRADED, Standing.STARTING)) is Standing.STARTING
    assert worst((Standing.STARTING, Standing.DOWN, Standing.UP)) is Standing.DOWN


@given(st.binary(max_size=9000))
def test_kept_output_is_text_of_bounded_size(output: bytes) -> None:
    text = shortened(output)
    assert len(text.encode()) <= limits.OUTPUT_BYTES_MAX
    assert text[:100] == output[: limits.OUTPUT_BYTES_MAX].decode("utf-8", "replace")[:100]
