"""`make bench`: ours and Debian's etcd in turn under the same load, as ratios with their spread."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks import report
from benchmarks.loads import Timing
from benchmarks.machine import describe
from benchmarks.rows import LOADS, SPECIALS, Row, Selection, select, target_of
from benchmarks.running import Plan, Result, ceilings, measure
from benchmarks.sides import FLAGS, StoreError, kinds
from tests.support.servers import ROOT

T = TypeVar("T")


def _list_of(one: Callable[[str], T]) -> Callable[[str], list[T]]:
    def read(text: str) -> list[T]:
        return [one(part) for part in text.split(",")]

    read.__name__ = "comma-separated list"
    return read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"Loads: {', '.join((*LOADS, *SPECIALS))}.",
    )
    numbers = _list_of(int)
    parser.add_argument("--only", type=_list_of(str), default=[], metavar="LOAD,…")
    parser.add_argument("--nodes", type=numbers, default=[], metavar="1,3")
    parser.add_argument("--inflight", type=numbers, default=[], metavar="1,8,128,1024")
    parser.add_argument("--value", type=numbers, default=[], metavar="BYTES,…")
    parser.add_argument("--keys", type=numbers, default=[], metavar="1000,100000,1000000")
    parser.add_argument("--pairs", type=int, default=5, help="paired runs of each row")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of a run")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before it")
    parser.add_argument(
        "--lease-ttl", type=int, default=300, metavar="SECONDS",
        help="of `leases`, which lasts a tenth longer: 300",
    )  # fmt: skip
    parser.add_argument(
        "--transport", default="auto", choices=("auto", "http2", "native", "grpcio")
    )
    parser.add_argument(
        "--fresh", action="store_true",
        help="end and start the servers at every turn; without, the one whose turn it is not is "
        "stopped (SIGSTOP)",
    )  # fmt: skip
    parser.add_argument(
        "--directory", type=Path, default=ROOT / "build", help="whose disk is used (not a tmpfs)"
    )
    parser.add_argument(
        "--targets", action="store_true", help="of these rows only those with a target"
    )
    parser.add_argument("--list", action="store_true", help="prints the rows and ends")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<time>.json")
    return parser


def main() -> int:
    options = _parser().parse_args()
    try:
        rows = select(
            Selection(options.only, options.nodes, options.inflight, options.value, options.keys)
        )
        if options.targets:
            rows = [row for row in rows if target_of(row) is not None]
        if options.list:
            print("\n".join(row.name for row in rows))
            return 0
        return _run(options, rows)
    except (StoreError, ValueError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, rows: list[Row]) -> int:
    both = kinds(options.transport)
    timing = Timing(options.seconds, options.warmup, options.lease_ttl)
    options.directory.mkdir(parents=True, exist_ok=True)
    path = options.json or ROOT / time.strftime("benchmarks/results/%Y%m%d-%H%M%S.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    plan = Plan(both, options.pairs, timing, options.directory, options.fresh)
    machine = describe(both, options.directory)
    empty = ceilings(rows, Timing(1.0, 0.3))
    for inflight, rate in empty.items():
        print(f"generator, {inflight:,} in flight, against an empty server: {rate:,.0f}/s")
    print(report.HEAD, flush=True)
    results: list[Result] = []

    def told(result: Result) -> None:
        print(report.line(result), flush=True)
        results.append(result)
        document = {
            "machine": machine,
            "plan": {
                "command": f'make bench BENCH="{shlex.join(sys.argv[1:])}"',
                "pairs": options.pairs,
                "seconds": options.seconds,
                "warmup_s": options.warmup,
                "lease_ttl_s": options.lease_ttl,
                "transport": options.transport,
                "flags": FLAGS,
                "turns": "fresh" if options.fresh else "stopped",
            },
            "ceilings": empty,
            "results": [each.to_json() for each in results],
        }
        # After every row: what a long run has found is kept, however it ends.
        path.write_text(json.dumps(document, indent=1) + "\n")

    measure(rows, plan, told)
    print(f"written to {path}")
    return 0 if all(each.pairs for each in results) else 2


if __name__ == "__main__":
    sys.exit(main())
