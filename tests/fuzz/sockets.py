"""A connection without a network: bytes go in by hand, what is written stays in a buffer."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ("FakeSocket", "settle")


class FakeSocket(asyncio.Transport):
    """What a protocol sees as its transport."""

    def __init__(self, protocol: Any) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.protocol = protocol
        self.written = bytearray()
        self.aborted = False
        self.closed = False
        self._lost = False
        protocol.connection_made(self)

    def feed(self, data: bytes) -> None:
        """Bytes have come, unless the connection is over."""
        if not self.is_closing() and not self._lost and data:
            self.protocol.data_received(data)

    def lose(self) -> None:
        """The connection ends."""
        if not self._lost:
            self._lost = True
            self.protocol.connection_lost(None)

    # What the protocol calls

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, pieces: Any) -> None:
        for piece in pieces:
            self.write(piece)

    def write_eof(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return True

    def abort(self) -> None:
        # Behind a `close` it says nothing: how much is still looked at depends on the pieces.
        self.aborted = self.aborted or not self.closed
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


async def settle(turns: int = 4) -> None:
    """Lets the loop do what is ready."""
    for _ in range(turns):
        await asyncio.sleep(0)
