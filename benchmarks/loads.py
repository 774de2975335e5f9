"""From a row to the generator's job, and what must be true of its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from benchmarks import calls
from benchmarks.generator.jobs import Job, Outcome
from benchmarks.generator.requests import Method
from benchmarks.judging import reasons_void
from benchmarks.rows import STREAMS, Row
from benchmarks.sides import Side, generate
from kvstore.pb import rpc_pb2

__all__ = ("Run", "Timing", "run_load")

CONNECTIONS = 8
DELETES_PER_S = 25_000
"""More keys than any server here deletes in a second: the row ends early where they run out."""
LEASE_TTL_S = 3600
KEPT_ALIVE = 64
"""Leases and streams, with one renewal of each under way."""
WATCHERS, WATCH_CONNECTIONS = 1000, 10
WATCH_WINDOW, WATCH_WINDOW_KEYS = 16, 128
"""Puts that may be ahead of their events: to a thousand watchers each, and to one each."""
WATCH_RATE = 1000
"""Puts, and so events, per second where latency is measured."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one run."""

    seconds: float
    warmup_s: float
    lease_ttl_s: int = 300
    """Of the leases that are kept alive; that run lasts a tenth longer."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one side."""

    value: float
    """What the row compares: a rate per second, or what its unit says."""
    outcome: Outcome | None
    void: list[str]
    extra: dict[str, float] = field(default_factory=dict)
    """What the value was made of, where no outcome tells."""


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
    if row.load in STREAMS:
        return 0
    return 1000 * row.value_bytes if row.load == "range-1000" else 10


def run_load(side: Side, row: Row, timing: Timing, seed: int) -> Run:
    """One run of a row on a side whose turn it is; raises StoreError."""
    if row.load in STREAMS:
        job = _keepalive(side, timing) if row.load == "keepalive" else _watch(side, row, timing)
    else:
        job = _unary(side, row, timing)
    job = replace(job, seed=seed, pids=side.pids())
    before = side.revision()
    done = generate(job)
    revisions = side.revision() - before
    value = done.count / done.seconds if done.seconds else 0.0
    if row.load == "watch-latency":
        value = done.latency_ms.get("p99", 0.0)
    return Run(
        value, done, reasons_void(done, revisions=revisions, answer_bytes=_answer_bytes(row))
    )


def _unary(side: Side, row: Row, timing: Timing) -> Job:
    keys, step = row.keys, 0
    if row.load == "delete":
        keys, step = int((timing.seconds + timing.warmup_s) * DELETES_PER_S), 1
    if row.load != "lease-grant":
        side.fill(keys, row.value_bytes)
    if row.load == "delete":
        side.loaded = (0, 0)
    elif row.load == "range-1000":
        keys = max(1, keys - 999)
    server = side.followers()[0] if row.load == "range-follower" else side.leader
    return Job(
        kind="unary",
        ports=[server.client_port],
        connections=min(CONNECTIONS, row.inflight),
        inflight=row.inflight,
        seconds=timing.seconds,
        warmup_s=timing.warmup_s,
        methods=[method.to_json() for method in _methods(row)],
        keys=keys,
        step=step,
    )


def _keepalive(side: Side, timing: Timing) -> Job:
    grant = rpc_pb2.LeaseGrantRequest(TTL=LEASE_TTL_S).SerializeToString()
    leases = [
        rpc_pb2.LeaseGrantResponse.FromString(
            side.ask(side.leader, "/etcdserverpb.Lease/LeaseGrant", grant)
        ).ID
        for _ in range(KEPT_ALIVE)
    ]
    return Job(
        kind="keepalive",
        ports=[side.leader.client_port],
        connections=CONNECTIONS,
        inflight=KEPT_ALIVE,
        seconds=timing.seconds,
        warmup_s=timing.warmup_s,
        options={"leases": leases},
    )


def _watch(side: Side, row: Row, timing: Timing) -> Job:
    one_key = row.load in {"watch-fanout", "watch-shared"}
    return Job(
        kind="watch",
        ports=[side.leader.client_port],
        connections=WATCH_CONNECTIONS,
        inflight=WATCH_WINDOW,
        seconds=timing.seconds,
        warmup_s=timing.warmup_s,
        methods=[calls.watch().to_json(), calls.numbered_put(row.value_bytes).to_json()],
        keys=1 if one_key else WATCHERS,
        options={
            "watchers": WATCHERS,
            "shared": row.load == "watch-shared",
            "window": WATCH_WINDOW if one_key else WATCH_WINDOW_KEYS,
            "rate": WATCH_RATE if row.load == "watch-latency" else 0,
            "put_port": side.leader.client_port,
        },
    )
