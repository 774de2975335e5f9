"""Keys, stamps and records: their order is what every seek rests on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.machine.tables import (
    AFTER_ALL_STAMPS,
    Version,
    floor_of,
    key_of,
    ordered_key,
    prefix_end,
    range_bounds,
    revision_key,
    stamp_of,
    version_record,
)

keys = st.binary(min_size=1, max_size=8) | st.text("\0\1\xff", min_size=1, max_size=6).map(
    lambda text: text.encode("latin-1")
)
numbers = st.integers(0, 2**64 - 1)


@given(keys, keys)
def test_ordered_keys_sort_as_keys_and_never_begin_one_another(one: bytes, two: bytes) -> None:
    a, b = ordered_key(one), ordered_key(two)
    assert (a < b) == (one < two)
    assert (a == b) == (one == two)
    if one != two:
        assert not a.startswith(b)
        # Whatever stands behind the code, all of one key stays before the next.
        low, high = sorted((a, b))
        assert low + AFTER_ALL_STAMPS < high


@given(keys, numbers, numbers)
def test_record_key_gives_the_key_and_revision_back(key: bytes, main: int, sub: int) -> None:
    record_key = ordered_key(key) + stamp_of(revision_key(main, sub))
    assert key_of(record_key) == key
    version = Version.read(record_key, version_record(3, 2, -7))
    assert version == Version(main, sub, 3, 2, -7)
    assert version.key == revision_key(main, sub)
    assert Version.read(record_key, version_record(3, 2, 0)).lease == 0
    assert Version.read(record_key, b"").key == revision_key(main, sub) + b"t"


@given(st.tuples(numbers, numbers), st.tuples(numbers, numbers))
def test_stamps_sort_newest_first(one: tuple[int, int], two: tuple[int, int]) -> None:
    a, b = (stamp_of(revision_key(*at)) for at in (one, two))
    assert (a < b) == (one > two)
    assert (a >= floor_of(two[0])) == (one[0] <= two[0])


@pytest.mark.parametrize(
    ("key", "end", "inside", "outside"),
    [
        (b"a", b"", [b"a"], [b"a\0", b"b", b"A"]),
        (b"a", b"b", [b"a", b"a\0", b"az"], [b"b", b"A"]),
        (b"b", b"\0", [b"b", b"\xff"], [b"a", b"\0"]),
        (b"a", b"a\0", [b"a"], [b"a\0", b"a\0\0"]),
    ],
)
def test_range_bounds(key: bytes, end: bytes, inside: list[bytes], outside: list[bytes]) -> None:
    start, stop = range_bounds(key, end)
    stamp = stamp_of(revision_key(5, 0))
    for candidate in inside + outside:
        record_key = ordered_key(candidate) + stamp
        within = start <= record_key and (stop is None or record_key < stop)
        assert within == (candidate in inside), candidate


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_prefix_end_is_the_first_key_behind_the_prefix(prefix: bytes, other: bytes) -> None:
    end = prefix_end(prefix)
    assert (prefix <= other and (end is None or other < end)) == other.startswith(prefix)
