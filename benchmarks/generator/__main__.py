"""Reads one job, a line of stdin, carries it out, prints its outcome."""

from __future__ import annotations

import gc
import sys

from benchmarks.generator import keepalive, leases, reading, steady, unary, watching
from benchmarks.generator.jobs import Job

LOOPS = {
    "unary": unary.run,
    "keepalive": keepalive.run,
    "watch": watching.run,
    "leases": leases.run,
    "steady": steady.run,
    "reading": reading.run,
}


def main() -> None:
    job = Job.loads(sys.stdin.readline())
    # A run is short and makes no cycles: collections would only add to the latencies.
    gc.disable()
    print(LOOPS[job.kind](job).dumps())


if __name__ == "__main__":
    main()
