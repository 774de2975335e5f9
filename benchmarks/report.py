"""Results as lines for people: on the terminal while it runs, as Markdown, and into the docs.

    python -m benchmarks.report benchmarks/results/….json               # prints the Markdown
    python -m benchmarks.report benchmarks/results/….json --docs docs/performance.md

With --docs the text between the marks in that file is replaced, and the plots beside it are drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.plots import ratio_plot, scaling_plot
from benchmarks.rows import target_of
from benchmarks.running import Result
from benchmarks.stats import Interval, median_interval, ratios

__all__ = ("HEAD", "line", "main", "markdown", "ratio_of", "unit_of", "write_docs")

OURS, THEIRS = "kvstore", "etcd"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
HEAD = (
    f"{'load':44} {'kvstore':>12} {'etcd':>12}   ratio (interval)      "
    f"{'p99 ms':>15} {'CPU s/1000':>15}  target"
)


def unit_of(load: str) -> str:
    """Of the values of a row; rates have none."""
    units = {
        "watch-latency": "ms p99", "failover": "s", "restart": "s", "memory": "MB",
        "put-keys": "×", "snapshot-p99": "×", "snapshot-own-p99": "×", "leases": "lost",
    }  # fmt: skip
    return units.get(load, "/s")


def ratio_of(result: Result) -> Interval | None:
    """Ours to theirs, run by run; None when no pair counts, or there is nothing to divide by."""
    if not result.pairs or THEIRS not in result.row.sides or not all(result.values(THEIRS)):
        return None
    return median_interval(ratios(result.values(OURS), result.values(THEIRS)))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _cells(result: Result) -> list[str]:
    """Row, ours, theirs, ratio, p99s, CPU, target."""
    unit = unit_of(result.row.load)
    if not result.pairs:
        return [result.row.name, "void", "void", "", "", "", ""]
    ratio = ratio_of(result)

    def middle(side: str, *path: str) -> float | None:
        values: list[float] = []
        for pair in result.pairs:
            value: Any = pair.get(side, {})
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if isinstance(value, int | float):
                values.append(value)
        return median(values) if values else None

    def cpu(side: str) -> float | None:
        sums = [
            run["leader"] + sum(run["followers"])
            for pair in result.pairs
            if (run := pair.get(side, {}).get("cpu_s_per_1000"))
        ]
        return median(sums) if sums else None

    def both(one: float | None, other: float | None) -> str:
        return "" if one is None or other is None else f"{one:.3g} / {other:.3g}"

    ours = result.values(OURS)
    target = target_of(result.row)
    verdict = ""
    if target is not None and (target.own or ratio is not None):
        judged = median(ours) if target.own or ratio is None else ratio.median
        sign = "≤" if target.less else "≥"
        verdict = f"{target.verdict(judged)} ({sign} {target.must}, {target.goal})"
        if target.own:
            verdict += " of ours alone"
    return [
        result.row.name,
        f"{_number(median(ours))} {unit}",
        f"{_number(median(result.values(THEIRS)))} {unit}" if THEIRS in result.row.sides else "",
        f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "",
        both(middle(OURS, "latency_ms", "p99"), middle(THEIRS, "latency_ms", "p99")),
        both(cpu(OURS), cpu(THEIRS)),
        verdict,
    ]


def line(result: Result) -> str:
    """One row for the terminal, with the reasons of void runs below it."""
    name, ours, theirs, ratio, p99, cpu, target = _cells(result)
    text = f"{name:44} {ours:>12} {theirs:>12}   {ratio:21} {p99:>15} {cpu:>15}  {target}"
    return "\n".join((text.rstrip(), *(f"    void: {why}" for why in result.void)))


def markdown(document: dict[str, Any]) -> str:
    """The table with the machine and the command."""
    results = [Result.from_json(each) for each in document["results"]]
    machine, plan = document["machine"], document["plan"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    ratios = [ratio for each in results if (ratio := ratio_of(each))]
    coverage = min((each.coverage for each in ratios if each.count >= plan["pairs"]), default=0.0)
    out = [
        (
            f"{machine['date'][:10]}, commit {machine['commit']}; {machine['cores']} cores "
            f"({machine['cpu']}), {machine['memory_gb']} GB, Linux {machine['kernel']}, "
            f"fdatasync of 4 KiB {machine['fdatasync_ms']} ms, "
            f"load {machine['load_before']:.1f} before the run."
        ),
        (
            f"{machine['versions'][THEIRS]}; Python {machine['python']}, {packages}; "
            f"transport {plan['transport']}."
        ),
        "",
        f"`{plan['command']}`: medians of {plan['pairs']} paired runs of {plan['seconds']:g} s; "
        f"intervals hold the median ratio with {coverage:.0%}. Generator against an empty server: "
        + ", ".join(
            f"{rate:,.0f}/s with {inflight} in flight"
            for inflight, rate in document["ceilings"].items()
        )
        + ".",
        "",
        (
            "| load | kvstore | etcd | ratio (interval) | p99 ms | CPU s per 1,000, all members | "
            "target: must, goal |"
        ),
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    out += ["| " + " | ".join(_cells(each)) + " |" for each in results]
    void = [f"* {each.row.name}: {why}" for each in results for why in dict.fromkeys(each.void)]
    if void:
        out += ["", "Runs that were void and made again:", "", *void]
    return "\n".join(out) + "\n"


def write_docs(document: dict[str, Any], page: Path) -> None:
    """Replaces what is between the marks, and draws the plots beside the page."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page}: the marks {BEGIN} and {END} are missing")
    results = [Result.from_json(each) for each in document["results"]]
    plots = {
        "ratios": ratio_plot([(r.row.name, ratio) for r in results if (ratio := _faster(r))]),
        "scaling": scaling_plot(
            [
                (r.row.load, r.row.nodes, r.row.inflight, side, median(r.values(side)))
                for r in results
                if r.row.load in {"put", "range"} and r.pairs
                if (r.row.value_bytes, r.row.keys) == (100, 1000)
                for side in (OURS, THEIRS)
            ]
        ),
    }
    shown = []
    for name, drawing in plots.items():
        path = page.with_name(f"{page.stem}-{name}.svg")
        path.write_text(drawing)
        shown.append(f"![{name}]({path.name})\n")
    text = "\n".join((BEGIN, markdown(document), *shown, END))
    page.write_text(before + text + after)


def _faster(result: Result) -> Interval | None:
    """How many times better ours is: the ratio, turned over where less is better."""
    ratio = ratio_of(result)
    if ratio is None or unit_of(result.row.load) == "/s" or result.row.load == "put-keys":
        return ratio
    return Interval(1 / ratio.median, 1 / ratio.high, 1 / ratio.low, ratio.coverage, ratio.count)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--docs", type=Path, help="page whose marked part is to be replaced")
    options = parser.parse_args()
    document = json.loads(options.results.read_text())
    if options.docs:
        write_docs(document, options.docs)
    else:
        sys.stdout.write(markdown(document))


if __name__ == "__main__":
    main()
