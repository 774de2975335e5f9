"""What a request would write: the values by which it is known in the history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.linear.history import Put, Txn

__all__ = ("values_written",)


def values_written(request: Any) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of every put that a request could make."""
    if isinstance(request, Put):
        yield request.key, request.value
    elif isinstance(request, Txn):
        for part in (*request.success, *request.failure):
            yield from values_written(part)
