"""How many bytes of log were written since an entry: the measure of when a snapshot is due."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from kvstore.storage.limits import SIZE_MARK_BYTES

__all__ = ("SizeMarks",)

_MARKS_MAX: Final = 4096


class SizeMarks:
    """Remembers, every SIZE_MARK_BYTES, which entry came next; bounded to _MARKS_MAX marks."""

    def __init__(self, marks: Sequence[tuple[int, int]] = (), total_bytes: int = 0) -> None:
        self._indexes = [index for index, _ in marks]
        self._offsets = [offset for _, offset in marks]
        self._total_bytes = total_bytes

    def add(self, first_index: int, size_bytes: int) -> None:
        """Counts a record that begins with entry `first_index` (0: holds no entries)."""
        if first_index:
            while self._indexes and self._indexes[-1] > first_index:
                self._indexes.pop()
                self._offsets.pop()
            if not self._offsets or self._total_bytes - self._offsets[-1] >= SIZE_MARK_BYTES:
                self._indexes.append(first_index)
                self._offsets.append(self._total_bytes)
            if len(self._indexes) > _MARKS_MAX:
                del self._indexes[: _MARKS_MAX // 2]
                del self._offsets[: _MARKS_MAX // 2]
        self._total_bytes += size_bytes

    def since(self, index: int) -> int:
        """Bytes of records behind entry `index`, too many by SIZE_MARK_BYTES at most.

        For an entry before the oldest mark: those behind that mark.
        """
        if not self._indexes:
            return 0
        at = max(bisect_right(self._indexes, index + 1) - 1, 0)
        return self._total_bytes - self._offsets[at]
