"""Unary calls by the clock, their latencies kept apart by phases that the harness calls out.

A call's latency counts from when it was due, so that a server that stands still is charged with
everything that should have been sent meanwhile. A call belongs to the phase in which its answer
comes; what is still open at the end, to the last one.
"""

from __future__ import annotations

import os
import select
import sys
from array import array
from collections.abc import Iterator
from time import perf_counter

from benchmarks.generator.clocks import CpuWatch
from benchmarks.generator.connection import Connection, LostError
from benchmarks.generator.jobs import Job, Outcome, latency_ms, outcome
from benchmarks.generator.requests import Method, Request, Space, draw

__all__ = ("END", "Steady", "run")

END = "end"
DRAIN_S = 30.0
LOOK_S = 0.05
"""How often at least the loop looks up."""


class Steady:
    """One connection, a rate, and the phases so far."""

    def __init__(self, connection: Connection, requests: Iterator[Request], rate: float) -> None:
        self._connection = connection
        self._take = lambda: next(requests, None)
        self._pause = 1 / rate
        self._due = perf_counter()
        self._phase = ""
        self.phases: dict[str, array[float]] = {}

    def begin(self, phase: str) -> None:
        """What was answered until now belongs to the phase before."""
        self.collect()
        self._phase = phase

    def collect(self) -> None:
        latencies = self._connection.latencies
        self.phases.setdefault(self._phase, array("d")).extend(latencies)
        del latencies[:]

    def send_due(self) -> float:
        """Sends what is due; seconds until there is more to do."""
        connection = self._connection
        while (left := self._due - perf_counter()) <= 0:
            if not connection.submit(1, self._take):
                # No room at the server: it is sent later, and counts from when it was due.
                return LOOK_S
            connection.pending[next(reversed(connection.pending))] = self._due
            self._due += self._pause
        return left

    def pump(self, left: float, more: list[int]) -> bool:
        """Waits so long for input, and takes it; whether `more` has something to read."""
        connection = self._connection
        blocked = [connection] if connection.blocked else []
        files: list[Connection | int] = [connection, *more]
        ready, writable, _ = select.select(files, blocked, [], min(left, LOOK_S))
        if writable:
            connection.flush()
        if connection in ready:
            connection.receive()
        return any(each in more for each in ready)

    def drain(self) -> None:
        deadline = perf_counter() + DRAIN_S
        while self._connection.pending and (left := deadline - perf_counter()) > 0:
            self.pump(left, [])


def run(job: Job) -> Outcome:
    """Options: `rate` per second. Lines of stdin name phases, the last one is END.

    For each phase `extra` holds p99_<phase> in milliseconds and calls_<phase>.
    """
    methods = [Method.from_json(each) for each in job.methods]
    connection = Connection(job.ports[0])
    requests = draw(methods, Space(job.keys, job.seed, job.step))
    print("ready", flush=True)
    steady = Steady(connection, requests, job.options["rate"])
    clock = CpuWatch(job.pids)
    lines = b""
    told = sys.stdin.fileno()
    try:
        while True:
            if steady.pump(steady.send_due(), [told]):
                lines += os.read(told, 4096) or f"{END}\n".encode()
            *whole, lines = lines.split(b"\n")
            if END.encode() in whole:
                break
            for name in whole:
                steady.begin(name.decode())
        steady.drain()
    except LostError as error:
        connection.failures[f"connection lost: {error}"] += 1
    finally:
        connection.close()
    clock.stop()
    steady.collect()
    total = array("d")
    extra = {}
    for phase, latencies in steady.phases.items():
        total.extend(latencies)
        if phase and latencies:
            extra[f"p99_{phase}"] = latency_ms(latencies)["p99"]
            extra[f"calls_{phase}"] = float(len(latencies))
    return outcome([connection], clock, len(total), total, **extra)
