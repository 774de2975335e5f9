"""What a generator is told to do, and what it answers; both travel as JSON."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.generator.clocks import CpuWatch
from benchmarks.generator.connection import Connection

__all__ = ("Job", "Outcome", "latency_ms", "outcome")


@dataclass(frozen=True, slots=True)
class Job:
    """One run. Which loop carries it out is `kind`; `options` are that loop's own."""

    kind: str
    ports: list[int]
    """Of the servers that are called; connections go round them."""
    connections: int
    inflight: int
    seconds: float
    warmup_s: float
    pids: list[int] = field(default_factory=list)
    """Servers whose CPU is to be counted."""
    methods: list[dict[str, Any]] = field(default_factory=list)
    keys: int = 1
    seed: int = 1
    step: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Job:
        return cls(**json.loads(text))

    def connect(self) -> list[Connection]:
        return [
            Connection(self.ports[number % len(self.ports)]) for number in range(self.connections)
        ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run was. Counts are of the measured time unless they say otherwise."""

    count: int
    """Calls, events or renewals that were finished."""
    seconds: float
    writes: int
    """Revisions made by all calls of the run, warm-up included."""
    failures: dict[str, int]
    latency_ms: dict[str, float]
    received_bytes: int
    """DATA of all calls of the run."""
    calls: int
    """All calls of the run, warm-up included."""
    generator_cpu_s: float
    server_cpu_s: list[float]
    extra: dict[str, float] = field(default_factory=dict)

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Outcome:
        return cls(**json.loads(text))


def latency_ms(seconds: array[float]) -> dict[str, float]:
    """Percentiles in milliseconds; empty when nothing was measured."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    last = len(ordered) - 1
    return {
        name: round(ordered[min(last, int(share * len(ordered)))] * 1000, 4)
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1))
    }


def outcome(
    connections: list[Connection],
    clock: CpuWatch,
    count: int,
    latencies: array[float],
    **extra: float,
) -> Outcome:
    """Sums over the connections; calls that are still open count as failures."""
    failures: Counter[str] = Counter()
    for each in connections:
        failures += each.failures
        if each.pending:
            failures["no answer"] += len(each.pending)
    return Outcome(
        count=count,
        seconds=clock.seconds,
        writes=sum(each.writes for each in connections),
        failures=dict(failures),
        latency_ms=latency_ms(latencies),
        received_bytes=sum(each.received_bytes for each in connections),
        calls=sum(each.sent for each in connections),
        generator_cpu_s=clock.own_s,
        server_cpu_s=clock.servers_s,
        extra=extra,
    )
