"""The rules that make a run void."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.generator.jobs import Outcome
from benchmarks.judging import reasons_void

GOOD = Outcome(
    count=900,
    seconds=1.0,
    writes=1000,
    failures={},
    latency_ms={},
    received_bytes=40_000,
    calls=1000,
    generator_cpu_s=0.2,
    server_cpu_s=[0.5, 0.1, 0.1],
)


def void(run: Outcome, revisions: int | None = 1000, answer_bytes: int = 10) -> list[str]:
    return reasons_void(run, revisions=revisions, answer_bytes=answer_bytes)


def test_a_good_run_counts() -> None:
    assert void(GOOD) == []
    assert void(GOOD, revisions=None) == []


def test_an_error_voids() -> None:
    (reason,) = void(replace(GOOD, failures={"grpc-status 14: gone": 3}))
    assert reason == "3 × grpc-status 14: gone"


def test_a_revision_too_few_or_too_many_voids() -> None:
    for revisions in (999, 1001):
        (reason,) = void(GOOD, revisions=revisions)
        assert "writes were 1,000" in reason


def test_answers_that_are_too_short_void() -> None:
    (reason,) = void(GOOD, answer_bytes=100)
    assert "less than 100 each" in reason


def test_nothing_finished_voids() -> None:
    assert "nothing was finished in the measured time" in void(replace(GOOD, count=0))


def test_a_busy_generator_voids_unless_a_member_is_as_busy() -> None:
    busy = replace(GOOD, generator_cpu_s=0.96)
    (reason,) = void(busy)
    assert "bottleneck: 96% of a core, the busiest member 50%" in reason
    assert void(replace(busy, server_cpu_s=[0.1, 0.97, 0.1])) == []
