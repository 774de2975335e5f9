"""A stream of answers, whose call ends with its reader and not when garbage is collected.

A call of grpcio takes a lock when it is finalized. At the end of the interpreter that lock may be
held by a thread which the interpreter has killed (grpcio's threads are daemons), and then the
process never ends. So no call may be left to the last garbage collection.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Self

import grpc

__all__ = ("Stream", "StreamEnded")


class StreamEnded(grpc.RpcError):  # type: ignore[misc]
    """How a stream ended; unlike grpcio's error it is not the call itself."""

    def __init__(self, code: Any, details: str | None) -> None:
        super().__init__(details)
        self._code = code
        self._details = details

    def code(self) -> Any:
        return self._code

    def details(self) -> str | None:
        return self._details


class Stream(Iterator[Any]):
    """The answers of a call that streams them; raises StreamEnded. Whoever reads it cancels it."""

    def __init__(self, call: Any) -> None:
        self._call: Any = call
        # While a call is under way grpcio itself refers to its callbacks, and so, by this one, to
        # the call: a reader that is never resumed does not finalize it.
        call.add_done_callback(_done)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        call = self._call
        if call is None:
            raise StopIteration
        try:
            return next(call)
        except grpc.RpcError as failure:
            ended = StreamEnded(failure.code(), failure.details())
            # It is the call, and by its traceback refers to itself: garbage for the collector.
            failure.__traceback__ = None
        self._call = call = None
        raise ended

    def cancel(self) -> None:
        """End it; from any thread, more than once."""
        call, self._call = self._call, None
        if call is not None and not sys.is_finalizing():
            call.cancel()


def _done(call: Any) -> None:
    """Nothing is to be done."""
