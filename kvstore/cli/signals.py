"""Being told to stop while something is held that is to be given back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("termination_interrupts",)


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """SIGTERM inside is like Ctrl-C, so that a service manager's stop gives back what is held."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
