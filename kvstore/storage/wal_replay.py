"""The log as its records make it: later entries replace earlier ones, most stay undecoded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgpack

from kvstore.storage.errors import WalCorrupt
from kvstore.storage.limits import SIZE_MARK_BYTES
from kvstore.storage.wal_format import RECORD_OVERHEAD_BYTES, SegmentHeader
from raft.types import Entry, HardState

__all__ = ("Replay", "Span")


class Span(NamedTuple):
    """Entries first..last of one record; undecoded, and perhaps replaced from `last` on."""

    first: int
    last: int
    data: bytes
    start: int
    end: int


class Replay:
    """The log as the records read so far make it."""

    def __init__(self, keep_after: int, header: SegmentHeader) -> None:
        self.keep_after = keep_after
        self.hard_state = header.hard_state
        self.floor = (header.first_index - 1, header.previous_term)
        self.last_index = header.first_index - 1
        self.spans: list[Span] = []
        self.batches = 0
        self.record_bytes = 0
        self.marks: list[tuple[int, int]] = []

    def entries(self, span: Span) -> str | None:
        """Takes a record of entries; what is wrong with it, if anything."""
        first, last = span.first, span.last
        if not 0 < first <= last:
            return f"a record claims to hold the entries {first} to {last}"
        if first > self.last_index + 1:
            return f"entry {first} follows entry {self.last_index}: entries are missing between"
        spans = self.spans
        if first <= self.last_index:
            while spans and spans[-1].first >= first:
                spans.pop()
            if spans and spans[-1].last >= first:
                spans[-1] = spans[-1]._replace(last=first - 1)
        elif spans and spans[-1].last < self.keep_after:
            # Not needed any more, not even for the term of the entry at keep_after.
            spans.clear()
        spans.append(span)
        self.last_index = last
        if not self.marks or self.record_bytes - self.marks[-1][1] >= SIZE_MARK_BYTES:
            self.marks.append((first, self.record_bytes))
        self.record_bytes += span.end - span.start + RECORD_OVERHEAD_BYTES
        return None

    def state(self, payload: bytes) -> str | None:
        """Takes a record of the hard state; what is wrong with it, if anything."""
        try:
            state = HardState(*msgpack.unpackb(payload))
        except (ValueError, TypeError) as error:
            return f"a record of the hard state cannot be read: {error}"
        if any(type(number) is not int for number in state):
            return "a record of the hard state holds something else than numbers"
        self.hard_state = state
        self.record_bytes += len(payload) + RECORD_OVERHEAD_BYTES
        return None

    def finish(self, path: Path) -> tuple[list[Entry], tuple[int, int], tuple[int, int]]:
        """(entries behind the base, base, last entry's index and term)."""
        base = self.floor
        entries: list[Entry] = []
        for span in self.spans:
            decoded = _decode_entries(path, span)
            # A record may reach back over the floor, into segments released since.
            behind = max(self.keep_after, self.floor[0])
            skipped = min(max(behind - span.first + 1, 0), len(decoded))
            if skipped:
                base = (decoded[skipped - 1].index, decoded[skipped - 1].term)
            entries += decoded[skipped:]
        last = (entries[-1].index, entries[-1].term) if entries else base
        return entries, base, last


def _decode_entries(path: Path, span: Span) -> list[Entry]:
    try:
        rows = msgpack.unpackb(span.data[span.start : span.end], use_list=False)
        entries = [Entry._make(row) for row in rows]
    except (ValueError, TypeError) as error:
        raise WalCorrupt(path, span.start, f"a record of entries cannot be read: {error}") from None
    wanted = span.last - span.first + 1  # fewer than there are if a later record replaced some
    if len(entries) < wanted or [entry.index for entry in entries] != list(
        range(span.first, span.first + len(entries))
    ):
        raise WalCorrupt(path, span.start, "a record holds other entries than it says")
    return entries[:wanted]
