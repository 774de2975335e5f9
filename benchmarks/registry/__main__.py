"""The registry's promises, measured on three members on this machine, each against its target.

    python -m benchmarks.registry                             # everything, about 10 minutes
    python -m benchmarks.registry --only heartbeats vanish
    python -m benchmarks.registry --scale 0.01                # a hundredth of the instances

Prints one line a figure, with "pass" or "MISS" where something was promised; the exit code is 1 if
a promise was missed. The clients are this process, so they take their share of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.registry.lives import crash, quorum, stop
from benchmarks.registry.scale import heartbeats, subscribers, vanish
from benchmarks.registry.stage import Notes
from tests.support.servers import ROOT

_MEASUREMENTS = {
    "heartbeats": heartbeats,
    "vanish": vanish,
    "subscribers": subscribers,
    "crash": crash,
    "quorum": quorum,
    "stop": stop,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.registry",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=_MEASUREMENTS, default=list(_MEASUREMENTS))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the instances, rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument(
        "--directory", type=Path, default=ROOT / "build", help="whose disk is used (not a tmpfs)"
    )
    options = parser.parse_args()
    # A measurement that is cut off ends its servers, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options.directory.mkdir(parents=True, exist_ok=True)
    notes = Notes()
    for name in options.only:
        notes.tell(f"{name}: the machine's load before", round(os.getloadavg()[0], 1))
        with tempfile.TemporaryDirectory(dir=options.directory, prefix="registry-") as scratch:
            asyncio.run(_MEASUREMENTS[name](notes, Path(scratch), options.scale))
    if options.json:
        options.json.write_text(json.dumps(notes.figures, indent=1) + "\n")
    for name in notes.missed:
        print(f"missed: {name}", file=sys.stderr)
    return 1 if notes.missed else 0


if __name__ == "__main__":
    sys.exit(main())
