"""The seam between API methods and transports: what a call is, and the table of methods.

A method is a function of bytes. Transports (grpcio, native, an HTTP/2 stream server) serve a
`MethodTable`; services fill it; neither knows the other. Three kinds of method:

*Unary*: `handler(call)` answers with bytes at once, or returns a coroutine (run as a task that
is cancelled when the client leaves), or returns None and later calls `call.reply(bytes)` or
`call.fail(error)`, which costs neither task nor future: the hot path.

*Server stream*: `handler(call)` is an asynchronous iterator of encoded messages; the transport
draws from it as fast as the client reads.

*Bidirectional stream*: `handler(outlet)` opens a `Session`. The transport pushes requests in
and, when told by `outlet.wake()`, takes encoded messages out: as many as the client's window
has room for, so a pushing transport writes them together and a slow client holds up only itself.

Everything here runs on the event loop. Failing means raising or passing an `EtcdError`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import Any, Protocol

from kvstore.errors import Code, EtcdError, detach

__all__ = (
    "BidiMethod",
    "Call",
    "Method",
    "MethodTable",
    "Outlet",
    "Session",
    "SessionHandler",
    "StreamHandler",
    "StreamMethod",
    "UnaryAnswer",
    "UnaryHandler",
    "UnaryMethod",
    "crashed",
    "detach",
)

UnaryAnswer = bytes | Coroutine[Any, Any, bytes] | None
UnaryHandler = Callable[["Call"], UnaryAnswer]
StreamHandler = Callable[["Call"], AsyncIterator[bytes]]
SessionHandler = Callable[["Outlet"], "Session"]

_CODES = len(Code)


class Call(ABC):
    """One unary or server-streaming call. A transport subclasses it and supplies `_send`."""

    __slots__ = ("_callbacks", "_metadata", "cancelled", "deadline", "finished", "payload", "peer")

    def __init__(
        self,
        payload: bytes,
        metadata: Mapping[str, str | bytes] | tuple[tuple[str, str | bytes], ...],
        peer: str,
        deadline: float | None,
    ) -> None:
        self.payload = payload
        self._metadata = metadata
        self.peer = peer
        self.deadline = deadline
        """Seconds that the client gave, counted from the call's arrival; None without limit."""
        self.cancelled = False
        """The client has left or its deadline has passed; an answer would reach nobody."""
        self.finished = False
        """An answer was given (or the call cancelled); later ones are ignored."""
        self._callbacks: list[Callable[[], None]] | None = None

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """Request metadata; of a repeated key the last value."""
        metadata = self._metadata
        if type(metadata) is tuple:
            metadata = self._metadata = dict(metadata)
        return metadata  # type: ignore[return-value]

    @property
    def congested(self) -> bool:
        """The client reads so little of its answers that a read of large ones is to be refused."""
        return False

    def reply(self, body: bytes) -> None:
        """Ends a unary call with its response."""
        if not self.finished:
            self.finished = True
            self._send(body, None)

    def fail(self, error: EtcdError) -> None:
        """Ends a unary call with an error status."""
        detach(error)
        if not self.finished:
            self.finished = True
            self._send(b"", error)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Asks to be told (once) when the client leaves before the answer."""
        if self.cancelled:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def cancel(self) -> None:
        """Called by the transport when the client has left."""
        if self.finished:
            return
        self.cancelled = self.finished = True
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    @abstractmethod
    def _send(self, body: bytes, error: EtcdError | None) -> None:
        """Hands the one answer to the transport: a body, or an error."""


class Outlet(Protocol):
    """The transport's side of a bidirectional stream, as its session sees it."""

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """Request metadata; of a repeated key the last value."""

    @property
    def peer(self) -> str:
        """The client's address as gRPC writes it, or that of a proxy in between."""

    def wake(self) -> None:
        """`Session.take` has something, or `Session.accepting` changed. Cheap to repeat."""

    def finish(self, error: EtcdError | None) -> None:
        """Ends the stream once everything that `take` still yields was sent. None: status OK."""


class Session(Protocol):
    """A service's side of a bidirectional stream. The transport calls it on the loop only."""

    @property
    def accepting(self) -> bool:
        """False: the transport stops reading requests until it has taken output again."""

    def received(self, payload: bytes) -> None:
        """One request message. Raises EtcdError to end the stream with it."""

    def half_closed(self) -> None:
        """The client will send no more, but still reads."""

    def take(self, max_messages: int, max_bytes: int) -> list[bytes]:
        """Encoded messages to send next, in order; empty when there is nothing now.

        At least one message is returned when there is any, whatever its size.
        """

    def closed(self) -> None:
        """The stream is over, whoever ended it: release everything. Called exactly once."""


class Method:
    """One method of the table and its counts; plain integers, since every call touches them."""

    __slots__ = ("handled", "name", "path", "received", "sent", "service", "started")
    kind = ""

    def __init__(self, path: str) -> None:
        self.path = path
        self.service, self.name = path[1:].split("/")
        self.started = 0
        self.received = 0
        self.sent = 0
        self.handled = [0] * _CODES
        """Calls completed, by status code."""


class UnaryMethod(Method):
    """One request, one response."""

    __slots__ = ("handler",)
    kind = "unary"

    def __init__(self, path: str, handler: UnaryHandler) -> None:
        super().__init__(path)
        self.handler = handler


class StreamMethod(Method):
    """One request, many responses."""

    __slots__ = ("handler",)
    kind = "server_stream"

    def __init__(self, path: str, handler: StreamHandler) -> None:
        super().__init__(path)
        self.handler = handler


class BidiMethod(Method):
    """Many requests, many responses, each at its own pace."""

    __slots__ = ("handler",)
    kind = "bidi_stream"

    def __init__(self, path: str, handler: SessionHandler) -> None:
        super().__init__(path)
        self.handler = handler


class MethodTable:
    """Path → method: what a server serves, shared by all its transports."""

    def __init__(self) -> None:
        self._methods: dict[str, Method] = {}
        self.received_bytes = 0
        """Request message bytes, all methods."""
        self.sent_bytes = 0
        """Response message bytes, all methods."""

    def unary(self, path: str, handler: UnaryHandler) -> None:
        """Adds a unary method; `path` is the literal HTTP/2 `:path`."""
        self._add(UnaryMethod(path, handler))

    def stream(self, path: str, handler: StreamHandler) -> None:
        """Adds a server-streaming method."""
        self._add(StreamMethod(path, handler))

    def session(self, path: str, handler: SessionHandler) -> None:
        """Adds a bidirectional method."""
        self._add(BidiMethod(path, handler))

    def _add(self, method: Method) -> None:
        if method.path in self._methods:
            raise ValueError(f"{method.path} is in the table already")
        self._methods[method.path] = method

    def get(self, path: str) -> Method | None:
        """The method served under this path, or None."""
        return self._methods.get(path)

    def __iter__(self) -> Iterator[Method]:
        return iter(self._methods.values())

    def __len__(self) -> int:
        return len(self._methods)


def crashed(method: Method, error: BaseException) -> EtcdError:
    """What a client is told when a handler raised something that is not an EtcdError."""
    return EtcdError(
        Code.INTERNAL,
        f"internal error in {method.path}: {type(error).__name__}",
        outcome_known=False,
    )
