"""What can go wrong in a call to an instance before it is made."""

from __future__ import annotations

from kvstore.client.errors import UnavailableError

__all__ = ("CircuitOpenError", "NoInstanceError")


class NoInstanceError(UnavailableError):
    """There is no instance to call: none is healthy, or none is known yet."""


class CircuitOpenError(UnavailableError):
    """A circuit breaker refuses the call; it will try again in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
