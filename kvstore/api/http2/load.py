"""Bytes that one server keeps for its clients, over all connections, and who has too many."""

from __future__ import annotations

from kvstore.api.http2 import limits

__all__ = ("Load",)


class Load:
    """The sums of what connections queue and hold; each connection counts its own part, too.

    While a sum is within its bound, only a connection's own bound counts. Beyond it, those that
    have more than `SHARE_BYTES` get no more: the many who read what they are sent are served on.
    """

    __slots__ = ("held_bytes", "queued_bytes")

    def __init__(self) -> None:
        self.queued_bytes = 0
        """Responses that wait for windows or sockets."""
        self.held_bytes = 0
        """Requests that wait for the rest of their message or for a reader."""

    def queues_too_much(self, own_bytes: int) -> bool:
        """Whether a connection that queues this much may cause no more responses."""
        return own_bytes > limits.QUEUED_BYTES or (
            own_bytes > limits.SHARE_BYTES and self.queued_bytes > limits.SERVER_QUEUED_BYTES
        )

    def holds_too_much(self, own_bytes: int) -> bool:
        """Whether a connection that holds this much may send no more of unfinished requests."""
        return own_bytes > limits.HELD_BYTES or (
            own_bytes > limits.SHARE_BYTES and self.held_bytes > limits.SERVER_HELD_BYTES
        )
