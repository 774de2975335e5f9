"""Runs a command of a check: in a process group of its own, which ends with the check."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from kvstore.checks import limits

__all__ = ("run_command",)


async def run_command(argv: Sequence[str]) -> tuple[int, bytes]:
    """The exit code (negative: the signal that ended it) and the beginning of its output.

    When the caller is cancelled, or its time is over, everything that the command has started in
    its group is killed. Raises OSError if there is no such program.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        process_group=0,
    )
    try:
        output = await _read(process)
        return await process.wait(), output
    finally:
        # Also after a normal end: what the command left behind in its group is not wanted.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.REAP_S):
                    await asyncio.shield(process.wait())


async def _read(process: asyncio.subprocess.Process) -> bytes:
    """All of its output is taken, so that it never blocks; the beginning of it is kept.

    Ends with the command itself, even when something in the background still holds the pipe.
    """
    assert process.stdout is not None
    kept = bytearray()

    async def take(stream: asyncio.StreamReader) -> None:
        while more := await stream.read(limits.OUTPUT_BYTES_MAX):
            kept.extend(more[: limits.OUTPUT_BYTES_MAX - len(kept)])

    taking = asyncio.create_task(take(process.stdout))
    ending = asyncio.create_task(process.wait())
    try:
        await asyncio.wait((taking, ending), return_when=asyncio.FIRST_COMPLETED)
        if not taking.done():
            # What was written before the end is there already: one more turn reads it.
            await asyncio.wait((taking,), timeout=limits.PIPE_GRACE_S)
    finally:
        for task in (taking, ending):
            task.cancel()
        await asyncio.gather(taking, ending, return_exceptions=True)
    return bytes(kept)
