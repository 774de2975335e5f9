"""Work in bulk rests as long as it has worked. Nothing is decided by this clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("rest_after",)


@contextmanager
def rest_after() -> Iterator[None]:
    """Sleeps behind what is done inside for as long as that took; not after an error."""
    began = time.monotonic()
    yield
    time.sleep(time.monotonic() - began)
