"""One unary call as a value: method, request, and how to read the answer.

An operation (see `operations`) is a plain function from arguments to a `Unary`. The two clients
turn operations into methods that block or that are awaited; everything else is shared.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeVar

__all__ = ("Effect", "Method", "Unary")

T = TypeVar("T")


class Effect(Enum):
    """What repeating a request can do, hence when the client repeats it by itself."""

    READ = "read"
    """Changes nothing: repeated whenever another try may help."""

    REPEATABLE = "repeatable"
    """Changes state, but twice is harmless (a lease more, which expires): repeated like a read."""

    WRITE = "write"
    """Repeated only if it surely was not executed."""


class Method(NamedTuple):
    """A gRPC method by its path; the request brings its own serializer."""

    path: str
    response: Any
    """Message class of the answer."""


class Unary(NamedTuple, Generic[T]):
    """A call ready to be sent."""

    method: Method
    request: Any
    effect: Effect
    convert: Callable[[Any], T]
    timeout_s: float | None = None
    """None: the client's default; math.inf: no deadline."""
    endpoint: str = ""
    """Asks this endpoint and no other, once."""
    default_timeout_s: float = 0.0
    """Used instead of the client's default where that is shorter (calls known to be slow)."""
