"""Bidirectional streams: a session's requests as they arrive, its messages as there is room."""

from __future__ import annotations

import logging

from kvstore.api import limits as api_limits
from kvstore.api.call import BidiMethod, Session, crashed, detach
from kvstore.api.http2 import limits
from kvstore.api.http2.calls import DEADLINE_EXCEEDED, Context
from kvstore.api.http2.connection import Connection
from kvstore.api.http2.deadlines import Bucket
from kvstore.api.http2.errors import ErrorCode
from kvstore.api.http2.inbox import Inbox
from kvstore.api.http2.requests import Request
from kvstore.api.http2.responses import OK_TRAILERS, refusal, trailers
from kvstore.api.http2.sender import Sender, Verdict
from kvstore.errors import STOPPED, Code, EtcdError

__all__ = ("BidiCall",)

log = logging.getLogger(__name__)

_OK = refusal(Code.OK, "")
_TORN = EtcdError(Code.INTERNAL, "grpc: the stream ended within a message")


class BidiCall:
    """One stream and its session; it is the session's outlet."""

    __slots__ = (
        "_bucket",
        "_connection",
        "_context",
        "_ended",
        "_error",
        "_half_closed",
        "_inbox",
        "_method",
        "_over",
        "_request",
        "_sender",
        "_session",
        "_stream_id",
        "_unread",
        "metadata",
        "open",
        "peer",
    )

    def __init__(
        self,
        context: Context,
        connection: Connection,
        stream_id: int,
        request: Request,
        timeout_s: float | None,
    ) -> None:
        assert isinstance(request.method, BidiMethod)
        self._context = context
        self._connection = connection
        self._stream_id = stream_id
        self._request = request
        self._method = request.method
        self.metadata = request.metadata
        self.peer = connection.peer
        self.open = True
        self._inbox = Inbox(connection, stream_id, context.max_message_bytes)
        self._sender = Sender(connection, stream_id)
        self._ended = False
        self._error: EtcdError | None = None
        self._half_closed = False
        self._unread = False
        self._over = False
        self._bucket: Bucket | None = None
        self._session: Session | None = None
        connection.streams[stream_id] = self
        self._method.started += 1
        if timeout_s is not None:
            self._bucket = context.deadlines.add(self, timeout_s)
        try:
            self._session = self._method.handler(self)
        except Exception as error:
            self._failed(error)
            self._end()

    # The session's side

    def wake(self) -> None:
        if not self._over:
            self._connection.want(self._stream_id, self)

    def finish(self, error: EtcdError | None) -> None:
        if not self._ended:
            if error is not None:
                detach(error)
            self._ended, self._error = True, error
            self.wake()

    # The stream's side

    @property
    def delta(self) -> int:
        return self._sender.delta

    def widen(self, increment: int) -> bool:
        return self._sender.widen(increment)

    def data(self, payload: bytes, size: int, end: bool) -> None:
        if self._ended:
            return
        try:
            if not self._inbox.feed(payload, size):
                self._connection.reset(self._stream_id, ErrorCode.FLOW_CONTROL_ERROR)
                return
        except EtcdError as error:
            self.finish(error)
        if end and not self._is_as_long_as_announced():
            self._connection.reset(self._stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        self._unread = True
        self._deliver()

    def ended(self) -> None:
        self.data(b"", 0, True)

    def _is_as_long_as_announced(self) -> bool:
        return self._request.content_length in (-1, self._inbox.total)

    def _deliver(self) -> None:
        """Gives the session what it accepts of the messages that have arrived."""
        session, method, table = self._session, self._method, self._context.table
        if session is None:
            return
        try:
            while not self._ended and session.accepting:
                payload = self._inbox.next()
                if payload is None:
                    self._all_read(session)
                    return
                method.received += 1
                table.received_bytes += len(payload)
                session.received(payload)
        except Exception as error:
            self._failed(error)

    def _all_read(self, session: Session) -> None:
        self._unread = False
        if self.open:
            self._inbox.give_back()
        elif not self._half_closed:
            self._half_closed = True
            if len(self._inbox):
                raise _TORN
            session.half_closed()

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, EtcdError):
            log.error("%s failed", self._method.path, exc_info=error)
            error = crashed(self._method, error)
        self.finish(error)

    def drain(self) -> Verdict:
        if self._over:
            return Verdict.IDLE
        sender = self._sender
        if sender.queued:
            verdict = sender.drain()
            if sender.queued:
                return verdict
        if self._unread:
            self._deliver()
        budget = limits.DRAIN_BYTES
        while budget > 0:
            room = sender.room()
            if room <= 0 and not self._ended:
                return sender.verdict()
            messages = self._take(room if room > 0 else 1)
            if not messages:
                if self._ended:
                    self._end()
                return Verdict.IDLE
            size = sender.send(messages)
            self._method.sent += len(messages)
            self._context.table.sent_bytes += size
            if sender.queued:
                return sender.verdict()
            if self._unread:
                self._deliver()
            budget -= size
        return Verdict.MORE

    def _take(self, max_bytes: int) -> list[bytes]:
        session = self._session
        if session is None:
            return []
        try:
            return session.take(api_limits.TAKE_MESSAGES, max_bytes)
        except Exception as error:
            self._failed(error)
            return []

    # Ends

    def _end(self) -> None:
        """All that the session had to say is out."""
        error = self._error
        if error is None:
            self._sender.finish(OK_TRAILERS, _OK)
            self._close(Code.OK)
        else:
            code, text = error.code, error.message
            self._sender.finish(trailers(code, text), refusal(code, text))
            self._close(code)

    def lost(self) -> None:
        self._sender.discard()
        self._close(Code.CANCELLED)

    def stop(self) -> None:
        self._abort(STOPPED)

    def expire(self) -> None:
        self._abort(DEADLINE_EXCEEDED)

    def _abort(self, error: EtcdError) -> None:
        code, text = error.code, error.message
        self._sender.abort(trailers(code, text), refusal(code, text))
        self._close(code)

    def _close(self, code: Code) -> None:
        if self._over:
            return
        self._over = self._ended = True
        self._method.handled[code] += 1
        if self._bucket is not None:
            self._context.deadlines.remove(self, self._bucket)
        self._inbox.close()
        if self._session is not None:
            try:
                self._session.closed()
            except Exception:
                log.exception("%s failed when it was closed", self._method.path)
