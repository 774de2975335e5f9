"""Stretches of the newest state in memory, as a range's answer wants them: in key order, encoded.

Reading a pair from the store costs two searches and two checksums; joining what is kept here
costs a twentieth of that. A *block* is everything between two places of `keys`, as it is now:
each committed change is carried out on the block that it falls into, so a block never goes out of
date. `since` says from which revision on it is right; readings of older ones go to the store.

Only what is read is kept, at most RANGE_CACHE_BYTES of it. A block that is written much and not
read is let go, so that writes pay for readers only while there are any.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kvstore.machine.limits import (
    RANGE_CACHE_BLOCKS,
    RANGE_CACHE_BYTES,
    RANGE_CACHE_ENTRY_BYTES,
    RANGE_CACHE_KEYS,
    RANGE_CACHE_PAIR_MAX,
)
from kvstore.machine.results import PUT, Change
from kvstore.machine.tables import AFTER_ALL_STAMPS, ordered_key
from kvstore.machine.wire import varint

__all__ = ("RangeCache", "Stretch", "kvs_fields")

_KVS = b"\x12"
_CHEAPER = 16
"""So many pairs from memory take as long as one from the store."""
_FIELD_HEADS = tuple(_KVS + varint(size) for size in range(RANGE_CACHE_PAIR_MAX))
"""What stands before a pair in a RangeResponse, by the pair's length."""


class Stretch(NamedTuple):
    """Pairs side by side, and where the next ones start (None: the range is done)."""

    fields: Sequence[bytes]
    """The `kvs` fields of a RangeResponse."""
    last: bytes
    """Ordered key of the last pair; empty when there is none."""
    resume: bytes | None
    cost: int
    """What it cost, in pairs read from the store."""


def kvs_fields(pairs: Sequence[bytes]) -> list[bytes]:
    """The `kvs` fields of a RangeResponse, one for each encoded pair."""
    heads = _FIELD_HEADS
    try:
        return [heads[len(pair)] + pair for pair in pairs]
    except IndexError:
        return [b"".join((_KVS, varint(len(pair)), pair)) for pair in pairs]


class _Block:
    """All that is live in [start, stop) of `keys`; stop None: to the table's end."""

    __slots__ = ("cost", "fields", "keys", "since", "start", "stop", "unread", "used")

    def __init__(
        self, start: bytes, stop: bytes | None, keys: list[bytes], fields: list[bytes], since: int
    ) -> None:
        self.start = start
        self.stop = stop
        self.keys = keys
        self.fields = fields
        self.since = since
        self.cost = sum(map(len, keys)) + sum(map(len, fields))
        self.cost += RANGE_CACHE_ENTRY_BYTES * (len(keys) + 1)
        self.used = False
        """Read since room was last looked for."""
        self.unread = 0
        """Changes since it was last read."""

    def change(self, key: bytes, change: Change) -> int:
        """Carries out a change; returns by how much that made the block larger."""
        keys, fields = self.keys, self.fields
        at = bisect_left(keys, key)
        exists = at < len(keys) and keys[at] == key
        self.since = change.revision
        self.unread += 1
        before = len(fields[at]) if exists else 0
        if change.kind == PUT:
            field = b"".join((_KVS, varint(len(change.kv)), change.kv))
            if exists:
                fields[at] = field
                return len(field) - before
            keys.insert(at, key)
            fields.insert(at, field)
            return len(key) + len(field) + RANGE_CACHE_ENTRY_BYTES
        if not exists:
            return 0
        del keys[at], fields[at]
        return -(len(key) + before + RANGE_CACHE_ENTRY_BYTES)


class RangeCache:
    """Disjoint blocks of the state at `revision`.

    The machine tells it of each commit in the moment in which that becomes its state; so to a
    reader whose revision is an older one, and to one who has an older state before him, blocks
    that changed since are as if they were not there.
    """

    def __init__(self, revision: int, max_bytes: int = RANGE_CACHE_BYTES) -> None:
        self.revision = revision
        """The newest revision whose changes are carried out."""
        self._max_bytes = max_bytes
        self._cost = 0
        self._starts: list[bytes] = []
        self._blocks: dict[bytes, _Block] = {}
        """By their start; in the order in which they are looked at when room is needed."""

    def committed(self, changes: Iterable[Change] | None, revision: int) -> None:
        """Carries out what was committed; None: too much to be listed."""
        self.revision = revision
        if changes is None:
            self._starts.clear()
            self._blocks.clear()
            self._cost = 0
        elif self._starts:
            for change in changes:
                self._change(change)

    def take(
        self, position: bytes, stop: bytes | None, revision: int, want: int | None
    ) -> Stretch | None:
        """Up to `want` pairs from `position` on, as far as one block reaches; None: ask the store.

        `position` and `stop` are places in `keys`, `want` is above 0.
        """
        block = self._at(position)
        if block is None or block.since > revision:
            return None
        block.used = True
        block.unread = 0
        keys = block.keys
        first = bisect_left(keys, position)
        after = len(keys)
        resume = block.stop
        if resume is None or (stop is not None and stop <= resume):
            resume = None
            if stop is not None:
                after = bisect_left(keys, stop)
        if want is not None and after - first > want:
            after = first + want
            resume = keys[after - 1] + AFTER_ALL_STAMPS
        last = keys[after - 1] if after > first else b""
        cost = 1 + (after - first) // _CHEAPER
        return Stretch(block.fields[first:after], last, resume, cost)

    def room(self, position: bytes, stop: bytes | None) -> bytes | None:
        """`stop`, or where the next block behind `position` starts if that comes before."""
        at = bisect_right(self._starts, position)
        if at < len(self._starts) and (stop is None or self._starts[at] < stop):
            return self._starts[at]
        return stop

    def keep(
        self, span: tuple[bytes, bytes | None], keys: list[bytes], fields: list[bytes]
    ) -> None:
        """Keeps all that is live at `revision` in a span that no block reaches into.

        What is small is read from the store just as well, and large values gain nothing.
        """
        if len(keys) < RANGE_CACHE_KEYS or max(map(len, fields)) > RANGE_CACHE_PAIR_MAX:
            return
        block = _Block(*span, keys, fields, self.revision)
        insort(self._starts, block.start)
        self._blocks[block.start] = block
        self._cost += block.cost
        while self._cost > self._max_bytes or len(self._blocks) > RANGE_CACHE_BLOCKS:
            self._make_room()

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return self._cost

    def _at(self, place: bytes) -> _Block | None:
        at = bisect_right(self._starts, place)
        if not at:
            return None
        block = self._blocks[self._starts[at - 1]]
        return block if block.stop is None or place < block.stop else None

    def _change(self, change: Change) -> None:
        key = ordered_key(change.key)
        block = self._at(key)
        if block is None:
            return
        more = block.change(key, change)
        block.cost += more
        self._cost += more
        if (
            block.unread > len(block.keys)
            or len(change.kv) > RANGE_CACHE_PAIR_MAX
            or self._cost > self._max_bytes
        ):
            self._drop(block)

    def _make_room(self) -> None:
        """Lets go of the block that was looked at longest ago, or gives it another round."""
        block = next(iter(self._blocks.values()))
        if block.used:
            block.used = False
            del self._blocks[block.start]
            self._blocks[block.start] = block
        else:
            self._drop(block)

    def _drop(self, block: _Block) -> None:
        del self._blocks[block.start]
        del self._starts[bisect_left(self._starts, block.start)]
        self._cost -= block.cost
