"""Flow control windows: what the client may send us, and what we may send it."""

from __future__ import annotations

__all__ = ("DEFAULT_WINDOW", "MAX_WINDOW", "ReceiveWindow")

DEFAULT_WINDOW = 65_535
"""Bytes that either side may send before any SETTINGS or WINDOW_UPDATE."""
MAX_WINDOW = 2**31 - 1


class ReceiveWindow:
    """Counts what the client sends, and gives it back in few, large steps."""

    __slots__ = ("_low", "_owed", "left")

    def __init__(self, size: int) -> None:
        self.left = size
        """Bytes that the client may still send."""
        self._owed = 0
        self._low = size // 2

    def take(self, count: int) -> bool:
        """Bytes have arrived; False: the client was not allowed to send them."""
        self.left -= count
        return self.left >= 0

    def give_back(self, count: int) -> int:
        """Bytes are done with. Returns the increment to announce now; 0: not yet worth a frame."""
        self._owed += count
        if self._owed < self._low:
            return 0
        increment, self._owed = self._owed, 0
        self.left += increment
        return increment
