"""A store beside itself: puts with many keys and with few, with a snapshot under way and without.

Each value is a ratio that one side has alone, so that it can be held against a target without
etcd; etcd's own ratio stands beside it where there is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks import calls
from benchmarks.background import Background
from benchmarks.generator.jobs import Job, Outcome
from benchmarks.generator.steady import END
from benchmarks.judging import reasons_void
from benchmarks.loads import Run, Timing, run_load
from benchmarks.rows import BASE_KEYS, Row
from benchmarks.sides import Side, StoreError, generate
from tests.support.servers import Server

__all__ = ("own_snapshot_p99", "p99_ratio", "put_keys", "snapshot_p99")

PUT_RATE = 1000
"""Puts per second by the clock, on one connection, while snapshots are made."""
FEED_BYTES, FEED_CALLS = 56_000, 256
"""Of one request that fills the log, and how many go before the harness looks again."""
FEED_MAX_S = 120.0
QUIET_S = 2.0
"""Without a snapshot for so long: none is due. A member looks once a second."""
AFTER_S = 0.5
"""Older files are removed behind a snapshot: that is part of making one."""


def put_keys(side: Side, row: Row, timing: Timing, seed: int) -> Run:
    """Puts/s into a store of `row.keys` by puts/s into one of a thousand, right beside it."""
    few = side.beside()
    side.fill(row.keys, row.value_bytes)
    put = replace(row, load="put")

    def many_keys() -> Run:
        return run_load(side, put, timing, seed)

    def few_keys() -> Run:
        side.rest()
        with few.turn():
            run = run_load(few, replace(put, keys=BASE_KEYS), timing, seed)
        side.wake()
        return run

    # Now the one first, now the other: whatever the first one leaves behind falls on both.
    if seed % 2:
        of_few, of_many = few_keys(), many_keys()
    else:
        of_many, of_few = many_keys(), few_keys()
    void = [f"{row.keys:,} keys: {why}" for why in of_many.void]
    void += [f"{BASE_KEYS:,} keys: {why}" for why in of_few.void]
    value = of_many.value / of_few.value if of_few.value else 0.0
    rates = {"per_s_many_keys": of_many.value, "per_s_few_keys": of_few.value}
    return Run(value, None, void, rates)


def snapshot_p99(side: Side, row: Row, timing: Timing, seed: int) -> Run:
    """p99 of puts while a client reads backups, by p99 right before."""
    backups: list[Outcome] = []

    def read(puts: Background) -> None:
        job = Job(
            kind="reading",
            ports=[side.leader.client_port],
            connections=1,
            inflight=1,
            seconds=timing.seconds,
            warmup_s=0,
        )
        with Background(job) as reader:
            puts.tell("with")
            backups.append(reader.finish("go", within_s=timing.seconds + 600))

    run = _with_and_without(side, row, timing, seed, read)
    (backup,) = backups
    wanted = row.keys * row.value_bytes
    if backup.failures or backup.received_bytes < backup.count * wanted:
        run.void.append(
            f"{backup.count} backups hold {backup.received_bytes:,} bytes, less than {wanted:,} "
            f"each: {backup.failures}"
        )
    seconds = backup.seconds / backup.count if backup.count else 0.0
    return replace(run, extra={**run.extra, "snapshot_s": round(seconds, 3)})


def own_snapshot_p99(side: Side, row: Row, timing: Timing, seed: int) -> Run:
    """p99 of puts while the leader makes a snapshot for itself, by p99 right before."""
    took: list[float] = []

    def make(puts: Background) -> None:
        puts.tell("feed")
        # The rule for a periodic snapshot wants a log that has grown: requests that are refused
        # make it grow, and leave the store as it is.
        deadline = time.monotonic() + FEED_MAX_S
        while not _unfinished(side.leader):
            if time.monotonic() > deadline:
                raise StoreError(f"no snapshot was begun in {FEED_MAX_S:.0f} s of filling the log")
            _feed(side, seed)
        puts.tell("with")
        began = time.monotonic()
        while _unfinished(side.leader):
            time.sleep(0.005)
        took.append(time.monotonic() - began)
        time.sleep(AFTER_S)

    run = _with_and_without(side, row, timing, seed, make)
    return replace(run, extra={**run.extra, "snapshot_s": round(took[0], 3)})


def _with_and_without(
    side: Side, row: Row, timing: Timing, seed: int, snapshot: Callable[[Background], None]
) -> Run:
    """Puts by the clock all the time: without for `timing.seconds`, then what `snapshot` does.

    `snapshot` says "with" when the time that counts begins.
    """
    side.fill(row.keys, row.value_bytes)
    _quiet(side.leader)
    job = Job(
        kind="steady",
        ports=[side.leader.client_port],
        connections=1,
        inflight=1,
        seconds=0,
        warmup_s=0,
        pids=side.pids(),
        methods=[calls.put(row.value_bytes).to_json()],
        keys=row.keys,
        seed=seed,
        options={"rate": PUT_RATE},
    )
    before = side.revision()
    with Background(job) as puts:
        time.sleep(timing.warmup_s)
        made = _files(side.leader)
        puts.tell("without")
        time.sleep(timing.seconds)
        disturbed = _unfinished(side.leader) or _files(side.leader) != made
        snapshot(puts)
        done = puts.finish(END)
    void = reasons_void(done, revisions=side.revision() - before, answer_bytes=10)
    if disturbed:
        void.append("a snapshot was made in the time without one")
    return Run(p99_ratio(done, void), done, void)


def p99_ratio(done: Outcome, void: list[str]) -> float:
    """With a snapshot by without; adds to `void` when one of them has too few calls to tell."""
    for phase in ("with", "without"):
        count = done.extra.get(f"calls_{phase}", 0.0)
        # Of fewer than these the slowest hundredth is not even one call.
        if count < 100:
            void.append(f"{count:.0f} calls {phase} a snapshot say nothing of the slowest 1 %")
            return 0.0
    return done.extra["p99_with"] / done.extra["p99_without"]


def _feed(side: Side, seed: int) -> None:
    done = generate(
        Job(
            kind="unary",
            ports=[side.leader.client_port],
            connections=4,
            inflight=16,
            seconds=FEED_MAX_S,
            warmup_s=0,
            methods=[calls.refused_put(FEED_BYTES).to_json()],
            # Keys 0 to FEED_CALLS - 1 exist, as the condition wants.
            keys=FEED_CALLS,
            seed=seed,
            step=1,
        )
    )
    if done.failures:
        raise StoreError(f"the log could not be filled: {done.failures}")


def _snapshots(server: Server) -> Path:
    return server.data_dir / "member" / "snap"


def _unfinished(server: Server) -> bool:
    """Whether the member is making one of our snapshot files."""
    return any(_snapshots(server).glob("*.kvs.tmp"))


def _files(server: Server) -> set[str]:
    return {path.name for path in _snapshots(server).glob("*.kvs")}


def _quiet(server: Server) -> None:
    """Waits until the member has nothing more to make of what was loaded."""
    deadline = time.monotonic() + FEED_MAX_S
    since, files = time.monotonic(), _files(server)
    while (now := time.monotonic()) - since < QUIET_S:
        if now > deadline:
            raise StoreError(f"{server.name} goes on making snapshots for {FEED_MAX_S:.0f} s")
        if _unfinished(server) or _files(server) != files:
            since, files = now, _files(server)
        time.sleep(0.05)
