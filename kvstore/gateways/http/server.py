"""Serves an application on sockets that are already bound, and on connections from elsewhere."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

__all__ = ("HttpServer",)

STOP_GRACE_S = 1.0
"""How long requests under way may take to finish when the server stops."""
IDLE_S = 75.0
"""After so long without a request a kept-alive connection is closed."""
BACKLOG = 128


def _is_our_fault(record: logging.LogRecord) -> bool:
    """What is no HTTP is answered with 400; anybody could fill the log with it otherwise."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_LOG = logging.getLogger(__name__)
_LOG.addFilter(_is_our_fault)


class HttpServer:
    """One application on its listening sockets, which it owns from the start on.

    `prepare`, `start`, `stop`.
    """

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_LOG,
            keepalive_timeout=IDLE_S,
            shutdown_timeout=STOP_GRACE_S,
        )

    async def prepare(self) -> Callable[[], asyncio.Protocol]:
        """Makes the application ready; returns what makes protocols for single connections."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # the runner has it from its setup to its cleanup
        return server

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serves on these sockets too."""
        for listener in sockets:
            await web.SockSite(self._runner, listener, backlog=BACKLOG).start()

    async def stop(self) -> None:
        """Closes the listeners, then waits for answers under way, for a second at most."""
        await self._runner.cleanup()
