"""A whole terminal for a live view: lines are drawn over the last ones, keys are read singly."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from kvstore.cli.services.frame import Size
from kvstore.cli.services.sight import keys_of

__all__ = ("Terminal",)

_ENTER = "\x1b[?1049h\x1b[?25l"
"""The other screen, without a cursor."""
_LEAVE = "\x1b[?25h\x1b[?1049l"
_READ_BYTES = 1024


class Terminal:
    """Used in a `with`; leaves the terminal as it was, whatever happens."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._before: Any = None
        self._resize_before: Any = None

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._input)
        tty.setcbreak(self._input)
        self._resize_before = signal.signal(signal.SIGWINCH, lambda *_: self.wake())
        sys.stdout.write(_ENTER)
        sys.stdout.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)
        signal.signal(signal.SIGWINCH, self._resize_before)
        os.close(self._wake_read)
        os.close(self._wake_write)

    @property
    def size(self) -> Size:
        """As it is now."""
        found = shutil.get_terminal_size()
        return Size(found.columns, found.lines)

    def draw(self, lines: Sequence[str]) -> None:
        """Puts these lines on the screen, from its top."""
        text = "\x1b[H" + "\r\n".join(f"{line}\x1b[0m\x1b[K" for line in lines) + "\x1b[J"
        sys.stdout.write(text)
        sys.stdout.flush()

    def wake(self) -> None:
        """Ends `keys` early; from any thread, and from signal handlers."""
        try:
            os.write(self._wake_write, b"!")
        except (BlockingIOError, OSError):  # it is awake, or closed
            pass

    def keys(self, timeout_s: float) -> list[str] | None:
        """Keys that were pressed, once there are some, once woken, or after the time.

        None: the terminal is gone.
        """
        ready, _, _ = select.select([self._input, self._wake_read], [], [], max(timeout_s, 0))
        if self._wake_read in ready:
            os.read(self._wake_read, _READ_BYTES)
        if self._input not in ready:
            return []
        data = os.read(self._input, _READ_BYTES)
        return list(keys_of(data.decode("utf-8", "ignore"))) if data else None
