"""Backups of the whole store, one after another, read as fast as they come and thrown away."""

from __future__ import annotations

import select
import sys
from array import array
from time import perf_counter

from benchmarks.generator.clocks import CpuWatch
from benchmarks.generator.connection import Connection, LostError
from benchmarks.generator.jobs import Job, Outcome, outcome
from benchmarks.generator.requests import framed, request

__all__ = ("run",)

PATH = "/etcdserverpb.Maintenance/Snapshot"
LONGEST_S = 300.0
"""Of one backup."""


def run(job: Job) -> Outcome:
    """After one line of stdin: whole backups until `job.seconds` are over, one at least."""
    connection = Connection(job.ports[0])
    ready = request(PATH, framed(b""))
    print("ready", flush=True)
    sys.stdin.readline()
    clock = CpuWatch(job.pids)
    began = perf_counter()
    try:
        while connection.done == 0 or perf_counter() - began < job.seconds:
            connection.submit(1, lambda: ready)
            deadline = perf_counter() + LONGEST_S
            while connection.pending and perf_counter() < deadline:
                select.select([connection], [], [], 1.0)
                connection.receive()
            if connection.pending or connection.failures:
                break
    except LostError as error:
        connection.failures[f"connection lost: {error}"] += 1
    finally:
        connection.close()
    clock.stop()
    return outcome([connection], clock, connection.done, array("d", connection.latencies))
