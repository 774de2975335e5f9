"""Times as people read them: RFC 3339 in UTC with milliseconds, from and to Unix time.

By arithmetic on the calendar, so that nothing here could ask for the present time.
"""

from __future__ import annotations

import re
from typing import Final

from kvstore.registry.names import Invalid

__all__ = ("milliseconds", "rfc3339")

_DAY_MS: Final = 86_400_000
_ERA_DAYS: Final = 146_097
"""Days of 400 years: then the calendar repeats."""
_TO_MARCH_0: Final = 719_468
"""Days from 1 March of year 0 to 1 January 1970. A year that begins in March ends with its leap
day, which is what makes the sums below short."""
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))"
)
_MONTH_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def rfc3339(unix_ms: int) -> str:
    """Such as 2026-03-01T12:00:00.000Z."""
    days, of_day = divmod(unix_ms, _DAY_MS)
    era, of_era = divmod(days + _TO_MARCH_0, _ERA_DAYS)
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    calendar_month = month + 3 if month < 10 else month - 9
    calendar_year = 400 * era + year + (calendar_month <= 2)
    seconds, ms = divmod(of_day, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    date = f"{calendar_year:04}-{calendar_month:02}-{day:02}"
    return f"{date}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"


def milliseconds(text: str) -> int:
    """Unix time of an RFC 3339 time; finer parts are cut off. Raises Invalid."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise Invalid(f"{text[:40]!r} is not a time such as 2026-03-01T12:00:00.000Z")
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    in_range = 1 <= month <= 12 and 1 <= day <= _MONTH_DAYS[month - 1]
    if not in_range or hour > 23 or minute > 59 or second > 59:
        raise Invalid(f"{text!r} is not a time of the calendar")
    shifted = year - (month <= 2)
    era, of_era = divmod(shifted, 400)
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    days = era * _ERA_DAYS + of_era * 365 + of_era // 4 - of_era // 100 + of_year - _TO_MARCH_0
    if rfc3339(days * _DAY_MS)[:10] != text[:10]:
        raise Invalid(f"{text!r} is not a time of the calendar")
    ms = int((found[7] or "").ljust(3, "0")[:3])
    unix_ms = days * _DAY_MS + ((hour * 60 + minute) * 60 + second) * 1000 + ms
    if found[8]:
        offset_ms = (int(found[9]) * 60 + int(found[10])) * 60_000
        unix_ms += -offset_ms if found[8] == "+" else offset_ms
    return unix_ms
