"""Request bytes of one stream: counted against its window until somebody has read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.api.http2 import limits
from kvstore.api.http2.flow import ReceiveWindow
from kvstore.api.http2.messages import MessageReader
from kvstore.errors import TOO_MANY_REQUESTS

if TYPE_CHECKING:
    from kvstore.api.http2.connection import Connection

__all__ = ("Inbox",)


class Inbox:
    """Takes DATA in and gives messages out."""

    __slots__ = ("_connection", "_messages", "_stream_id", "_unread", "_window", "total")

    def __init__(self, connection: Connection, stream_id: int, max_message_bytes: int) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self._messages = MessageReader(max_message_bytes)
        self._window = ReceiveWindow(limits.STREAM_WINDOW_BYTES)
        self._unread = 0
        self.total = 0
        """Bytes of DATA so far, without padding."""

    def __len__(self) -> int:
        """Bytes that no message returned so far has taken."""
        return len(self._messages)

    def feed(self, payload: bytes, size: int) -> bool:
        """DATA that counts `size` in the window; False when the window did not allow it.

        Raises EtcdError when the connection's calls, or the server's, hold too much.
        """
        if not self._window.take(size):
            return False
        self._messages.feed(payload)
        self.total += len(payload)
        self._unread += size
        connection = self._connection
        connection.hold(len(payload))
        if connection.load.holds_too_much(connection.held_bytes):
            raise TOO_MANY_REQUESTS
        return True

    def next(self) -> bytes | None:
        """The next message, None until it is complete; raises EtcdError for one we refuse."""
        before = len(self._messages)
        message = self._messages.next()
        self._connection.hold(len(self._messages) - before)
        return message

    def check(self) -> None:
        """Raises EtcdError when the next message is one that we refuse, as soon as that shows."""
        self._messages.check()

    def give_back(self) -> None:
        """The client may send as much again as has arrived: it was read, or must be completed."""
        increment = self._window.give_back(self._unread)
        self._unread = 0
        if increment:
            self._connection.widen(self._stream_id, increment)

    def close(self) -> None:
        """Nobody will read any more."""
        self._connection.hold(-len(self._messages))
        self._messages.clear()
