"""Messages out of DATA: length-prefixed, however the frames cut them."""

from __future__ import annotations

from kvstore.api.http2.responses import PREFIX
from kvstore.errors import Code, EtcdError

__all__ = ("MessageReader", "too_large")

_PREFIX_BYTES = PREFIX.size


def too_large(size: int, limit: int) -> EtcdError:
    """As grpc-go words it; clients and people look for this text."""
    return EtcdError(
        Code.RESOURCE_EXHAUSTED,
        f"grpc: received message larger than max ({size} vs. {limit})",
    )


class MessageReader:
    """One stream's bytes. A message that is too large is refused when its prefix has arrived."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def __len__(self) -> int:
        """Bytes that no message returned so far has taken."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """More bytes of the stream."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next message, None until it is complete; raises EtcdError for one we refuse."""
        buffer = self._buffer
        end = self.check()
        if end is None or len(buffer) < end:
            return None
        message = bytes(memoryview(buffer)[_PREFIX_BYTES:end])
        del buffer[:end]
        return message

    def check(self) -> int | None:
        """Where the next message ends, None until its prefix is complete; raises as `next`."""
        buffer = self._buffer
        if len(buffer) < _PREFIX_BYTES:
            return None
        compressed: int
        length: int
        compressed, length = PREFIX.unpack_from(buffer)
        if compressed:
            text = "grpc: compressed flag set with identity or empty encoding"
            if compressed != 1:
                text = f"grpc: received unexpected payload format {compressed}"
            raise EtcdError(Code.INTERNAL, text)
        if length > self._limit:
            raise too_large(length, self._limit)
        return _PREFIX_BYTES + length

    def clear(self) -> None:
        """Forgets everything."""
        self._buffer.clear()
