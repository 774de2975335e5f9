"""Long work cut into slices: a generator that yields where others may have their turn.

Slices are counted in records, never timed, so the same job takes the same slices on every node
and in every test. A job is abandoned by closing it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

__all__ = ("Job", "run")

T = TypeVar("T")

Job: TypeAlias = Generator[None, None, T]
"""Yields None between slices of about 5 ms and returns its T; may raise EtcdError."""


def run(job: Job[T]) -> T:
    """Runs a job to its end without a pause and returns what it returns."""
    try:
        while True:
            next(job)
    except StopIteration as stop:
        result: T = stop.value
        return result
