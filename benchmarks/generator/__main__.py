"""Reads one job from stdin, carries it out, prints its outcome."""

from __future__ import annotations

import gc
import json
import sys

from benchmarks.generator import unary
from benchmarks.generator.jobs import Job

LOOPS = {"unary": unary.run}


def main() -> None:
    job = Job(**json.load(sys.stdin))
    # A run is short and makes no cycles: collections would only add to the latencies.
    gc.disable()
    json.dump(LOOPS[job.kind](job).to_json(), sys.stdout)


if __name__ == "__main__":
    main()
