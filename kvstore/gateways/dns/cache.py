"""Finished answers by question, bounded by their number and their bytes; the oldest go first."""

from __future__ import annotations

from kvstore.gateways.dns.limits import CACHE_BYTES_MAX, CACHE_NAMES_MAX
from kvstore.gateways.dns.wire import Finished
from kvstore.registry.names import ServiceName

__all__ = ("Cache", "Kept")

OVERHEAD_BYTES = 1_000
"""What an answer takes beside its bytes, about."""


class Kept:
    """An answer, and what it is valid for."""

    __slots__ = ("basis", "finished", "revision")

    def __init__(self, finished: Finished, basis: ServiceName | None, revision: int) -> None:
        self.finished = finished
        self.basis = basis
        """The service whose answer it depends on; None: on the store's revision."""
        self.revision = revision


class Cache:
    """Answers by what identifies their question. Whether one still holds is the reader's matter."""

    def __init__(self, names_max: int = CACHE_NAMES_MAX, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._names_max = names_max
        self._bytes_max = bytes_max
        self._kept: dict[bytes, Kept] = {}
        self.bytes = 0
        self.get = self._kept.get
        """One answer, or None."""

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: bytes, kept: Kept) -> None:
        """Keeps an answer instead of what was there."""
        self.drop(key)
        self._kept[key] = kept
        self.bytes += _size(kept)
        while len(self._kept) > self._names_max or self.bytes > self._bytes_max:
            self.drop(next(iter(self._kept)))

    def drop(self, key: bytes) -> None:
        """Forgets an answer, if it is there."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.bytes -= _size(kept)


def _size(kept: Kept) -> int:
    return OVERHEAD_BYTES + 2 * kept.finished.bytes
