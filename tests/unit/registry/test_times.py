"""RFC 3339, against the standard library's calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.registry.names import Invalid
from kvstore.registry.times import milliseconds, rfc3339

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_times_are_written_and_read_as_the_calendar_has_them(unix_ms: int) -> None:
    text = rfc3339(unix_ms)
    expected = EPOCH + timedelta(milliseconds=unix_ms)
    assert text == expected.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert milliseconds(text) == unix_ms


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        ("2024-02-29T23:59:59.9999z", "2024-02-29T23:59:59.999Z"),
        ("2026-03-01T01:00:00+02:30", "2026-02-28T22:30:00.000Z"),
        ("2026-03-01t01:00:00.5-01:00", "2026-03-01T02:00:00.500Z"),
    ],
)
def test_other_spellings(text: str, same: str) -> None:
    assert rfc3339(milliseconds(text)) == same


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-01",
        "2026-13-01T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2026-01-00T00:00:00Z",
    ]
    + [
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:00",
        "2026-04-31T00:00:00Z",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(Invalid):
        milliseconds(text)
