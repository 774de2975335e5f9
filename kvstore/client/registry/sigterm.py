"""Defers SIGTERM until the instances of this process are deregistered.

The first SIGTERM starts the leaving; when that is done, or at a second SIGTERM, the handler that
was there before gets the signal (its default ends the process).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ("Sigterm",)


class Sigterm:
    """The handler of one client."""

    def __init__(self, leave: Callable[[], None]) -> None:
        """`leave` begins to deregister and returns at once; whoever is done calls `left`."""
        self._leave = leave
        self._previous: Any = None
        self._installed = False
        self._leaving = False

    def install(self) -> None:
        """Take the signal; twice is fine. Raises ValueError outside the main thread."""
        if self._installed:
            return
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("handle_sigterm=True: only the main thread can handle signals")
        self._previous = signal.signal(signal.SIGTERM, self._received)
        self._installed = True

    def remove(self) -> None:
        """Give the signal back, if this is possible from here and nobody has taken it since."""
        if (
            self._installed
            and not self._leaving
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) == self._received
        ):
            signal.signal(signal.SIGTERM, self._previous)
            self._installed = False

    def left(self) -> None:
        """Everything is deregistered: the signal goes on. From any thread."""
        main = threading.main_thread().ident
        if main is not None:
            # To the main thread itself: another one would not wake it from a system call.
            signal.pthread_kill(main, signal.SIGTERM)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if not self._leaving:
            self._leaving = True
            self._leave()
            return
        previous = self._previous
        signal.signal(signal.SIGTERM, previous if previous is not None else signal.SIG_DFL)
        self._installed = False
        if callable(previous):
            previous(number, frame)
        elif previous is not signal.SIG_IGN:
            os.kill(os.getpid(), number)
