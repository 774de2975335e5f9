"""From a request's headers to the call that serves it."""

from __future__ import annotations

from kvstore.api.call import BidiMethod, MethodTable, UnaryMethod
from kvstore.api.http2.calls import Context, StreamCall, UnaryCall
from kvstore.api.http2.connection import Connection
from kvstore.api.http2.deadlines import Deadlines
from kvstore.api.http2.output import Stream
from kvstore.api.http2.requests import Request, RequestReader
from kvstore.api.http2.sessions import BidiCall

__all__ = ("Dispatcher",)


class Dispatcher:
    """Opens the streams of all connections of a server over one table."""

    def __init__(self, table: MethodTable, max_message_bytes: int, deadlines: Deadlines) -> None:
        self._context = Context(table, max_message_bytes, deadlines)
        services = {method.service for method in table}
        self.read_request = RequestReader(table.get, services.__contains__).read

    def open(
        self, connection: Connection, stream_id: int, request: Request, timeout_s: float | None
    ) -> Stream:
        """Begins a call."""
        kind = type(request.method)
        if kind is UnaryMethod:
            return UnaryCall(self._context, connection, stream_id, request, timeout_s)
        if kind is BidiMethod:
            return BidiCall(self._context, connection, stream_id, request, timeout_s)
        return StreamCall(self._context, connection, stream_id, request, timeout_s)
