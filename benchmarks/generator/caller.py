"""One call at a time on a connection of its own: what the harness asks between runs."""

from __future__ import annotations

import select
import time

from benchmarks.generator.connection import Connection, LostError
from benchmarks.generator.requests import framed, request

__all__ = ("CallError", "Caller")


class CallError(Exception):
    """The call failed, or there was no answer in time."""


class Caller:
    """Unary calls; a context manager."""

    def __init__(self, port: int) -> None:
        self._chunks: list[bytes] = []
        self._connection = Connection(port, lambda _, payload: self._chunks.append(payload))

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def __call__(self, path: str, message: bytes, timeout_s: float = 30.0) -> bytes:
        """The answer's message; raises CallError."""
        self._chunks.clear()
        connection = self._connection
        deadline = time.monotonic() + timeout_s
        connection.submit(1, lambda: request(path, framed(message)))
        try:
            done = 0
            while not done:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise CallError(f"{path}: no answer in {timeout_s} s")
                writable = [connection] if connection.blocked else []
                ready, can_write, _ = select.select([connection], writable, [], left)
                if can_write:
                    connection.flush()
                if ready:
                    done = connection.receive()
        except LostError as error:
            raise CallError(f"{path}: {error}") from error
        if connection.failures:
            reason = ", ".join(connection.failures)
            connection.failures.clear()
            raise CallError(f"{path}: {reason}")
        return b"".join(self._chunks)[5:]
