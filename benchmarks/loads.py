"""From a row to the generator's job, and what must be true of its outcome."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import calls
from benchmarks.generator.jobs import Job, Outcome
from benchmarks.generator.requests import Method
from benchmarks.judging import reasons_void
from benchmarks.rows import Row
from benchmarks.sides import Side, generate

__all__ = ("Run", "Timing", "run_load")

CONNECTIONS = 8
DELETES_PER_S = 25_000
"""More keys than any server here deletes in a second: the row ends early where they run out."""
LEASE_TTL_S = 3600


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one run."""

    seconds: float
    warmup_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one side."""

    value: float
    """What the row compares: a rate per second, or what its unit says."""
    outcome: Outcome | None
    void: list[str]


def _methods(row: Row) -> list[Method]:
    value = row.value_bytes
    match row.load:
        case "put":
            return [calls.put(value)]
        case "range" | "range-follower":
            return [calls.range_keys()]
        case "serializable":
            return [calls.range_keys(serializable=True)]
        case "range-1000":
            return [calls.range_keys(1000)]
        case "txn":
            return [calls.compare_and_put(value)]
        case "mixed":
            put = calls.put(value)
            return [calls.range_keys().often(9), put]
        case "delete":
            return [calls.delete()]
        case "lease-grant":
            return [calls.grant(LEASE_TTL_S)]
    raise ValueError(f"no such load: {row.load}")


def _answer_bytes(row: Row) -> int:
    """The least that an answer holds: the values that were asked for, or a header."""
    if row.load in {"range", "range-follower", "serializable"}:
        return row.value_bytes
    return 1000 * row.value_bytes if row.load == "range-1000" else 10


def run_load(side: Side, row: Row, timing: Timing, seed: int) -> Run:
    """One run of a row on a side whose turn it is; raises StoreError."""
    keys, step = row.keys, 0
    if row.load == "delete":
        keys, step = int((timing.seconds + timing.warmup_s) * DELETES_PER_S), 1
    side.fill(keys, row.value_bytes)
    if row.load == "delete":
        side.loaded = (0, 0)
    elif row.load == "range-1000":
        keys = max(1, keys - 999)
    server = side.followers()[0] if row.load == "range-follower" else side.leader
    job = Job(
        kind="unary",
        ports=[server.client_port],
        connections=min(CONNECTIONS, row.inflight),
        inflight=row.inflight,
        seconds=timing.seconds,
        warmup_s=timing.warmup_s,
        pids=side.pids(),
        methods=[method.to_json() for method in _methods(row)],
        keys=keys,
        seed=seed,
        step=step,
    )
    before = side.revision()
    done = generate(job)
    revisions = side.revision() - before
    return Run(
        value=done.count / done.seconds if done.seconds else 0.0,
        outcome=done,
        void=reasons_void(done, revisions=revisions, answer_bytes=_answer_bytes(row)),
    )
