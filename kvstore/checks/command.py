"""Runs a command of a check: in a process group of its own, which ends with the check."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from kvstore.checks import limits

__all__ = ("run_command",)


class _Watcher(asyncio.SubprocessProtocol):
    """Keeps the beginning of the output, and notes what ends when.

    All of the output is taken, so that a program never blocks for the sake of who reads it.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.output = bytearray()
        self.silent: asyncio.Future[None] = loop.create_future()
        """Its output has ended."""
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.output += data[: limits.OUTPUT_BYTES_MAX - len(self.output)]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        _done(self.silent)

    def process_exited(self) -> None:
        _done(self.exited)

    def connection_lost(self, exc: Exception | None) -> None:
        _done(self.closed)


def _done(event: asyncio.Future[None]) -> None:
    if not event.done():
        event.set_result(None)


async def run_command(argv: Sequence[str]) -> tuple[int, bytes]:
    """The exit code (negative: the signal that ended it) and the beginning of its output.

    When it has ended, or the caller is cancelled, everything that it has started in its group is
    killed. Raises OSError if there is no such program.
    """
    loop = asyncio.get_running_loop()
    transport, watcher = await loop.subprocess_exec(
        _Watcher,
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        process_group=0,
    )
    try:
        await asyncio.shield(watcher.exited)
        # The rest of its output is in the pipe already; but something in the background may
        # hold that open for as long as it lives.
        await asyncio.wait((watcher.silent,), timeout=limits.PIPE_GRACE_S)
        code = transport.get_returncode()
        assert code is not None
        return code, bytes(watcher.output)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        await asyncio.wait((watcher.exited,), timeout=limits.REAP_S)
        transport.close()
        await asyncio.wait((watcher.closed,), timeout=limits.REAP_S)
