"""What an exception of a call to an instance says about the call. Pure.

Knows what Python's own clients and gRPC raise, and those HTTP libraries that keep the system's
error as cause; others need a function of their own (`judge=` of a resolver).
"""

from __future__ import annotations

import errno
import http.client
import socket
from collections.abc import Iterator
from enum import Enum
from typing import Any

import grpc

from kvstore.client.errors import ConnectError, UnavailableError, from_status
from kvstore.client.registry.errors import CircuitOpenError, NoInstanceError
from kvstore.errors import Code

__all__ = ("Failure", "judge")


class Failure(Enum):
    """Whose failure it is, and what is known of the request."""

    NOT_SENT = "not sent"
    """There was no connection: repeating the call is safe, whatever it does."""

    INSTANCE = "instance"
    """The instance failed, and may have executed the request: to repeat it, it must be idempotent
    (once or twice makes no difference)."""

    CALLER = "caller"
    """An answer that says no, or a bug: another instance would say the same."""


_NO_CONNECTION = frozenset(
    {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
)
_INSTANCE_CODES = frozenset(
    {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS}
)
_CHAIN_MAX = 8


def judge(error: BaseException) -> Failure:
    """What this exception says."""
    if isinstance(error, grpc.RpcError) and hasattr(error, "code"):
        return _of_grpc(error)
    status = _http_status(error)
    if status is not None:
        return Failure.INSTANCE if status >= 500 else Failure.CALLER
    found = Failure.CALLER
    for each in _chain(error):
        if isinstance(each, (NoInstanceError, CircuitOpenError, ConnectError, socket.gaierror)):
            return Failure.NOT_SENT
        if isinstance(each, OSError) and each.errno in _NO_CONNECTION:
            return Failure.NOT_SENT
        if isinstance(each, (ConnectionError, TimeoutError, http.client.HTTPException, EOFError)):
            found = Failure.INSTANCE
        if isinstance(each, UnavailableError):
            found = Failure.INSTANCE
    return found


def _of_grpc(error: Any) -> Failure:
    code = error.code()
    if code is None:
        return Failure.CALLER
    number = code.value[0]
    known = from_status(number, error.details() or "", write=True)
    if isinstance(known, ConnectError):
        return Failure.NOT_SENT
    return Failure.INSTANCE if Code(number) in _INSTANCE_CODES else Failure.CALLER


def _http_status(error: BaseException) -> int | None:
    """The status of an answer that a library raised as an exception."""
    for holder, name in (
        (error, "code"),  # urllib
        (error, "status"),  # aiohttp
        (getattr(error, "response", None), "status_code"),  # requests, httpx
    ):
        status = getattr(holder, name, None)
        if isinstance(status, int) and 100 <= status < 600:
            return status
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those it was made of."""
    left: list[Any] = [error]
    for _ in range(_CHAIN_MAX):
        if not left:
            return
        each = left.pop()
        if isinstance(each, BaseException):
            yield each
            inner = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
            left += [inner, getattr(each, "reason", None), *each.args[:1]]
            left = [one for one in left if isinstance(one, BaseException)]
