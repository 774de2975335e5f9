"""What a store is beside itself: the arithmetic of its p99s."""

from __future__ import annotations

import pytest

from benchmarks.against_itself import p99_ratio
from benchmarks.generator.jobs import Outcome


def outcome(**extra: float) -> Outcome:
    return Outcome(
        count=1, seconds=1.0, writes=0, failures={}, latency_ms={}, received_bytes=0, calls=1,
        generator_cpu_s=0.0, server_cpu_s=[0.0], extra=extra,
    )  # fmt: skip


def test_the_ratio_is_with_by_without() -> None:
    void: list[str] = []
    run = outcome(p99_with=6.0, calls_with=2000, p99_without=2.0, calls_without=1000)
    assert p99_ratio(run, void) == 3.0
    assert void == []


@pytest.mark.parametrize("phase", ["with", "without"])
def test_too_few_calls_void_the_run(phase: str) -> None:
    figures = {"p99_with": 6.0, "calls_with": 2000, "p99_without": 2.0, "calls_without": 1000}
    void: list[str] = []
    p99_ratio(outcome(**{**figures, f"calls_{phase}": 99}), void)
    assert void == [f"99 calls {phase} a snapshot say nothing of the slowest 1 %"]
    void.clear()
    p99_ratio(outcome(), void)
    assert len(void) == 1
