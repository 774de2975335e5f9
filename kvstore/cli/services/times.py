"""Times on a command line and in tables: RFC 3339 in UTC, ages, whole seconds."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from kvstore.cli.exits import bad_args
from kvstore.serving.values import BadValueError, parse_duration

__all__ = ("age", "clock", "moment", "parse_moment", "whole_seconds")

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400


def age(then_ms: int, now_ms: int) -> str:
    """How long ago, in at most two units; clocks that differ a little do not give negative ages."""
    if not then_ms:
        return ""
    seconds = max(0, (now_ms - then_ms) // 1000)
    if seconds < _MINUTE_S:
        return f"{seconds}s"
    if seconds < _HOUR_S:
        return _two(seconds, _MINUTE_S, "m", 1, "s")
    if seconds < _DAY_S:
        return _two(seconds, _HOUR_S, "h", _MINUTE_S, "m")
    return _two(seconds, _DAY_S, "d", _HOUR_S, "h")


def _two(seconds: int, large_s: int, large: str, small_s: int, small: str) -> str:
    rest = seconds % large_s // small_s
    return f"{seconds // large_s}{large}" + (f"{rest}{small}" if rest else "")


def moment(unix_ms: int) -> str:
    """Such as 2026-03-01T12:00:00.000Z; empty for 0, which means that no time is known."""
    if not unix_ms:
        return ""
    seconds, ms = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03}Z"


def clock(unix_ms: int) -> str:
    """The time of day in UTC, such as 12:00:00."""
    return moment(unix_ms)[11:19]


def parse_moment(text: str, now_ms: int) -> int:
    """Unix time in ms of an RFC 3339 time (UTC without an offset), or of so long ago (5m)."""
    try:
        return now_ms - round(parse_duration(text.removeprefix("-")) * 1000)
    except BadValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise bad_args(
            f"{text[:60]!r} is not a time such as 2026-01-01T12:00:00Z, nor a time ago such as 5m"
        ) from None
    return math.floor((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def whole_seconds(what: str, seconds: float, *, least: int = 0) -> int:
    """A duration as the registry keeps it; raises CliError for parts of a second or too little."""
    if seconds != int(seconds):
        raise bad_args(f"--{what} is {seconds:g}s; whole seconds are kept")
    if seconds < least:
        raise bad_args(f"--{what} is {seconds:g}s; at least {least}s makes sense")
    return int(seconds)
