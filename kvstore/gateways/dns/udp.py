"""Questions that come over UDP: many in one turn of the loop, and none while the budget is used up.

The socket is read without asyncio's transports, which take one datagram a turn. While DNS has used
its share of time nothing is read: what comes waits in the kernel's queue, which drops what does not
fit and counts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from functools import partial
from time import perf_counter
from typing import Any

from kvstore.gateways.dns.budget import Budget
from kvstore.gateways.dns.counts import Counts
from kvstore.gateways.dns.limits import QUERY_BYTES_MAX, TURN_S
from kvstore.gateways.dns.responder import Later, Responder

__all__ = ("UdpEndpoint",)

_LOG = logging.getLogger(__name__)
_ANCILLARY_BYTES = 128
_IP_PKTINFO = 8  # of Linux; Python's socket has no name for it in 3.11
_ANYWHERE = ("0.0.0.0", "::")


class UdpEndpoint:
    """One bound socket, which it owns."""

    def __init__(
        self, bound: socket.socket, responder: Responder, budget: Budget, counts: Counts
    ) -> None:
        self.socket = bound
        self._responder = responder
        self._budget = budget
        self._counts = counts
        self._pause: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._everywhere = bound.getsockname()[0] in _ANYWHERE

    def start(self) -> None:
        """Begins to read."""
        self.socket.setblocking(False)
        if self._everywhere:
            _tell_destinations(self.socket)
        self._loop.add_reader(self.socket, self._readable)

    def stop(self) -> None:
        """Reads no more, and closes the socket."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self.socket)
        self.socket.close()

    def _readable(self) -> None:
        if self._pauses():
            return
        began = now = perf_counter()
        took = self._counts.took
        one = self._one_from_anywhere if self._everywhere else self._one
        while now - began < TURN_S:
            try:
                if not one():
                    break
            except Exception:
                self._counts.drops["error"] += 1
                _LOG.exception("a question could not be answered; please report it")
            then, now = now, perf_counter()
            took(now - then)
        self._budget.spend(perf_counter() - began)
        self._pauses()

    def _pauses(self) -> bool:
        """Stops to read, for a while, if the budget is used up; whether it does."""
        wait_s = self._budget.wait_s()
        if wait_s:
            self._loop.remove_reader(self.socket)
            self._pause = self._loop.call_later(wait_s, self._resume)
        return wait_s > 0

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self.socket, self._readable)

    def _one(self) -> bool:
        """Takes one question; False if there is none."""
        try:
            message, sender = self.socket.recvfrom(QUERY_BYTES_MAX)
        except OSError:
            return False
        answer = self._responder.respond(message, udp=True)
        if type(answer) is bytes:
            try:
                self.socket.sendto(answer, sender)
            except OSError:
                self._counts.drops["send"] += 1
        elif answer is not None:
            self._later(answer, message, [], sender)
        return True

    def _one_from_anywhere(self) -> bool:
        """The same on a socket of all addresses: an answer leaves from where the question went."""
        try:
            message, ancillary, _, sender = self.socket.recvmsg(QUERY_BYTES_MAX, _ANCILLARY_BYTES)
        except OSError:
            return False
        answer = self._responder.respond(message, udp=True)
        if type(answer) is bytes:
            self._send(answer, ancillary, sender)
        elif answer is not None:
            self._later(answer, message, ancillary, sender)
        return True

    def _send(self, answer: bytes, ancillary: list[Any], sender: Any) -> None:
        try:
            self.socket.sendmsg([answer], ancillary, 0, sender)
        except OSError:
            self._counts.drops["send"] += 1

    def _later(self, later: object, message: bytes, ancillary: list[Any], sender: Any) -> None:
        assert isinstance(later, Later)
        again = partial(self._again, message, ancillary, sender)
        self._responder.when_read(later, again)

    def _again(self, message: bytes, ancillary: list[Any], sender: Any) -> None:
        if self.socket.fileno() < 0:
            return
        answer = self._responder.respond(message, udp=True)
        if isinstance(answer, bytes):
            self._send(answer, ancillary, sender)
        elif answer is not None:
            self._later(answer, message, ancillary, sender)


def _tell_destinations(bound: socket.socket) -> None:
    """Has the kernel tell where a datagram was sent to, in the form that `sendmsg` takes."""
    with contextlib.suppress(OSError):
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
