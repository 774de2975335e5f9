"""Turns what people write (`5s`, `true`, `a,b`) into values, by Go's rules, as etcd reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = (
    "BadValueError",
    "format_duration",
    "parse_bool",
    "parse_duration",
    "parse_int",
    "parse_list",
)

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))

_UNIT_SECONDS: Mapping[str, float] = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


class BadValueError(ValueError):
    """The text is not a value of the wanted type; the message says what would be."""


def parse_bool(text: str) -> bool:
    """A truth value; the spellings are those of Go's flag package."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise BadValueError(f"{text!r} is neither true nor false")


def parse_int(text: str) -> int:
    """A whole decimal number, with a sign if need be."""
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise BadValueError(f"{text!r} is not a whole number")
    return int(text)


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `1h30m`, `1.5s`, `100ms` or `0`."""
    body = text[1:] if text.startswith(("+", "-")) else text
    sign = -1.0 if text.startswith("-") else 1.0
    if body == "0":
        return 0.0
    end = 0
    seconds = 0.0
    while end < len(body):
        part = _PART.match(body, end)
        if part is None:
            break
        seconds += float(part[1]) * _UNIT_SECONDS[part[2]]
        end = part.end()
    if not body or end != len(body):
        raise BadValueError(f"{text!r} is not a duration; write one like 100ms, 5s or 1h30m")
    return sign * seconds


def parse_list(text: str) -> tuple[str, ...]:
    """The parts between commas, stripped, empty ones left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def format_duration(seconds: float) -> str:
    """The shortest usual spelling of a duration: `100ms`, `5s`, `10m`, `2h`."""
    if seconds and seconds % 3600 == 0:
        return f"{seconds / 3600:g}h"
    if seconds and seconds % 60 == 0:
        return f"{seconds / 60:g}m"
    if seconds and abs(seconds) < 1:
        return f"{seconds * 1000:g}ms"
    return f"{seconds:g}s"
