"""Two plots as SVG text: ratios with their intervals, and rates over calls in flight."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log2, log10

from benchmarks.stats import Interval

__all__ = ("ratio_plot", "scaling_plot")

_COLOURS = {"kvstore": "#1f6fb2", "etcd": "#c2571a"}
_FONT = 'font-family="sans-serif" font-size="12" fill="#222"'
_PAPER = '<rect width="100%" height="100%" fill="#fff"/>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" {_FONT}>\n{_PAPER}\n{body}\n</svg>\n'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def ratio_plot(rows: Sequence[tuple[str, Interval]]) -> str:
    """How many times as good as etcd, on a doubling scale: right of 1 is better."""
    left, right, step, top = 300.0, 40.0, 18.0, 40.0
    wide = 420.0
    edges = [value for _, each in rows for value in (each.low, each.high) if value > 0]
    low = floor(min((log2(value) for value in edges), default=-1))
    high = ceil(max((log2(value) for value in edges), default=1))
    low, high = min(low, -1), max(high, 1)

    def x(value: float) -> float:
        return left + (log2(value) - low) / (high - low) * wide

    bottom = top + step * len(rows)
    parts = [_text(left, 16, "times as good as etcd 3.4: median and interval")]
    for power in range(low, high + 1):
        at = x(2.0**power)
        parts.append(_line(at, top - 6, at, bottom, "#222" if power == 0 else "#ddd"))
        parts.append(_text(at, top - 10, f"{2.0**power:g}", "middle"))
    for number, (name, each) in enumerate(rows):
        y = top + step * (number + 0.5)
        colour = _COLOURS["kvstore" if each.median >= 1 else "etcd"]
        parts.append(_text(left - 8, y + 4, name, "end"))
        parts.append(_line(x(each.low), y, x(each.high), y, colour, 2))
        parts.append(f'<circle cx="{x(each.median):.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
    return _svg(left + wide + right, bottom + 10, parts)


def scaling_plot(points: Sequence[tuple[str, int, int, str, float]]) -> str:
    """One panel for each (load, nodes): calls per second over calls in flight, both logarithmic.

    Points are (load, nodes, in flight, side, rate).
    """
    panels = list(dict.fromkeys((load, nodes) for load, nodes, *_ in points))
    wide, tall, gap, top, left = 240.0, 160.0, 70.0, 40.0, 60.0
    most = max((inflight for _, _, inflight, _, _ in points), default=1)
    rates = [rate for *_, rate in points if rate > 0]
    low, high = floor(log10(min(rates, default=1))), ceil(log10(max(rates, default=10)))
    high = max(high, low + 1)
    parts: list[str] = []
    for place, (load, nodes) in enumerate(panels):
        column, row = place % 2, place // 2
        x0, y0 = left + column * (wide + gap), top + row * (tall + gap)
        parts.append(_text(x0, y0 - 8, f"{load}, {nodes} node{'s' if nodes > 1 else ''}, calls/s"))
        for power in range(low, high + 1):
            y = y0 + tall - (power - low) / (high - low) * tall
            parts += [
                _line(x0, y, x0 + wide, y, "#ddd"),
                _text(x0 - 6, y + 4, f"{10**power:,}", "end"),
            ]
        for side, colour in _COLOURS.items():
            curve = sorted(
                (inflight, rate)
                for one, count, inflight, who, rate in points
                if (one, count, who) == (load, nodes, side) and rate > 0
            )
            spots = [
                (
                    x0 + (log2(inflight) / log2(most) if most > 1 else 0.5) * wide,
                    y0 + tall - (log10(rate) - low) / (high - low) * tall,
                )
                for inflight, rate in curve
            ]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
            for (inflight, _), (x, y) in zip(curve, spots, strict=True):
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
                parts.append(_text(x, y0 + tall + 16, f"{inflight:,}", "middle"))
            if spots:
                legend = y0 + tall + (32 if side == "kvstore" else 46)
                parts.append(f'<circle cx="{x0:.1f}" cy="{legend - 4:.1f}" r="4" fill="{colour}"/>')
                parts.append(_text(x0 + 10, legend, side))
    rows = -(-len(panels) // 2)
    return _svg(left + 2 * (wide + gap), top + rows * (tall + gap), parts)
