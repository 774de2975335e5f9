"""Turns what people write (`5s`, `true`, `a,b`) into values, by Go's rules, as etcd reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = (
    "DURATION_MAX_S",
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
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_INT_END = 2**63
_DIGITS_MAX = 40
"""With leading zeros; more would not be converted, and none of them are meant."""
DURATION_MAX_S = 9.2e9
"""Go counts nanoseconds in 64 bits."""


class BadValueError(ValueError):
    """The text is not a value of the wanted type; the message says what would be."""


def parse_bool(text: str) -> bool:
    """A truth value; the spellings are those of Go's flag package."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise BadValueError(f"{text!r:.100} is neither true nor false")


def parse_int(text: str) -> int:
    """A whole decimal number of 64 bits, with a sign if need be."""
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise BadValueError(f"{text!r:.100} is not a whole number")
    if len(text) > _DIGITS_MAX or not -_INT_END <= (number := int(text)) < _INT_END:
        raise BadValueError(f"{text!r:.100} is not a number of 64 bits")
    return number


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
        raise BadValueError(f"{text!r:.100} is not a duration; write one like 100ms, 5s or 1h30m")
    if seconds > DURATION_MAX_S:
        raise BadValueError(f"{text!r:.100} is longer than a duration may be (292 years)")
    return sign * seconds


def parse_list(text: str) -> tuple[str, ...]:
    """The parts between commas, stripped, empty ones left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def format_duration(seconds: float) -> str:
    """The shortest usual spelling of a duration: `100ms`, `5s`, `10m`, `2h`."""
    if seconds and seconds % 3600 == 0:
        return f"{seconds / 3600:.0f}h"
    if seconds and seconds % 60 == 0:
        return f"{seconds / 60:.0f}m"
    number, unit = (seconds * 1000, "ms") if seconds and abs(seconds) < 1 else (seconds, "s")
    return f"{number:.6f}".rstrip("0").rstrip(".") + unit
