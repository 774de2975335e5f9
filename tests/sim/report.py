"""What the campaigns did, for people: one page of text and one of HTML, from the recorded counts.

`python -m tests.sim.report COUNTS [--html PAGE] [--title …]` reads the directory that a campaign
wrote (`KVSTORE_COUNTS`, see `counts`). Nothing is drawn that was not recorded; a table says what
was tried beside each zero. The page needs no other file: its plots are SVG in the text.

A campaign's numbers become a row of the summary. Three kinds of campaign become plots as well:
`faults.…` (faults fired, by kind), `points…` (passages of each fault point) and `mutants…`
(how many seeds it took to catch a planted bug).
"""

from __future__ import annotations

import argparse
import html
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.sim import counts

__all__ = ("Counts", "bars", "main", "page", "text")

Counts = Mapping[str, Mapping[str, float]]

_PLOTTED = {
    "faults": "Faults that fired, by kind",
    "points": "Fault points, by how often they were passed",
    "mutants": "Planted bugs, by the number of seeds until one caught it",
}
_ROW_PX = 18
_LABEL_PX = 230
_BAR_PX = 420


def _figure(value: float) -> str:
    """12345.0 → 12,345; 0.5 → 0.5."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _plotted(name: str) -> str | None:
    """Which plot a campaign belongs to, if any."""
    return next((kind for kind in _PLOTTED if name.split(".")[0] == kind), None)


def _merged(recorded: Counts, kind: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name in sorted(recorded):
        if _plotted(name) == kind:
            for label, value in recorded[name].items():
                sums[label] = sums.get(label, 0) + value
    return sums


def _tables(recorded: Counts) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    """(campaign, rows), then (plot's title, rows), in the order of both reports."""
    for name in sorted(recorded):
        if _plotted(name) is None:
            numbers = recorded[name]
            yield name, [(label, _figure(numbers[label])) for label in sorted(numbers)]
    for kind, title in _PLOTTED.items():
        sums = _merged(recorded, kind)
        if sums:
            yield title, [(label, _figure(sums[label])) for label in sorted(sums)]


def machine() -> list[str]:
    """Where and with what this was made."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return [
        f"commit {commit or 'unknown'}",
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}",
        f"{os.cpu_count()} processors",
    ]


def text(recorded: Counts, title: str) -> str:
    """The report for a terminal."""
    lines = [title, "=" * len(title), *machine(), ""]
    for name, rows in _tables(recorded):
        lines += [name, "-" * len(name)]
        width = max(len(label) for label, _ in rows)
        lines += [f"  {label.ljust(width)}  {value:>14}" for label, value in rows]
        lines.append("")
    return "\n".join(lines)


def bars(sums: Mapping[str, float]) -> str:
    """A bar chart as SVG, longest first; logarithmic, since rare things matter here."""
    rows = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    most = max((value for _, value in rows), default=0)
    scale = _BAR_PX / math.log10(most + 1) if most > 0 else 0.0
    parts = []
    for number, (label, value) in enumerate(rows):
        y = number * _ROW_PX
        length = scale * math.log10(value + 1)
        colour = "#3b6ea5" if value > 0 else "#b03a2e"
        parts.append(
            f'<text x="{_LABEL_PX - 6}" y="{y + 13}" text-anchor="end">{html.escape(label)}</text>'
            f'<rect x="{_LABEL_PX}" y="{y + 3}" width="{max(length, 1):.1f}" height="12" '
            f'fill="{colour}"/>'
            f'<text x="{_LABEL_PX + length + 6:.1f}" y="{y + 13}">{_figure(value)}</text>'
        )
    height = len(rows) * _ROW_PX + 4
    width = _LABEL_PX + _BAR_PX + 110
    return f'<svg viewBox="0 0 {width} {height}" width="{width}">{"".join(parts)}</svg>'


def page(recorded: Counts, title: str) -> str:
    """The report as one HTML page."""
    parts = [f"<h1>{html.escape(title)}</h1><p>{html.escape('; '.join(machine()))}</p>"]
    for kind, name in _PLOTTED.items():
        sums = _merged(recorded, kind)
        if sums:
            parts.append(f"<h2>{html.escape(name)}</h2>{bars(sums)}")
    for name, rows in _tables(recorded):
        if name in _PLOTTED.values():
            continue
        cells = "".join(
            f"<tr><td>{html.escape(label)}</td><td class=n>{value}</td></tr>"
            for label, value in rows
        )
        parts.append(f"<h2>{html.escape(name)}</h2><table>{cells}</table>")
    style = (
        "body{font:14px/1.5 sans-serif;max-width:60em;margin:2em auto;color:#222}"
        "svg text{font:12px sans-serif}td{padding:0 1.5em 0 0}td.n{text-align:right}"
    )
    head = f"<meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style>"
    return f"<!doctype html><html lang=en>{head}<body>{''.join(parts)}</body></html>\n"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Reports what the campaigns recorded.")
    parser.add_argument("counts", type=Path, help="the directory named by KVSTORE_COUNTS")
    parser.add_argument("--html", type=Path, help="also write this page")
    parser.add_argument("--title", default="What was tried")
    chosen = parser.parse_args(arguments)
    recorded = counts.read(chosen.counts)
    if not recorded:
        parser.error(f"there are no counts in {chosen.counts}")
    print(text(recorded, chosen.title))
    if chosen.html is not None:
        chosen.html.write_text(page(recorded, chosen.title), encoding="utf-8")
        print(f"The page with plots is {chosen.html}")


if __name__ == "__main__":
    main()
