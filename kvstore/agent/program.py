"""A program that the agent has started: in a process group of its own, stdio passed through."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvstore.agent import launch, limits
from kvstore.agent.exits import StartError

__all__ = ("Program", "exit_code_of")

_LOG = logging.getLogger(__name__)


def exit_code_of(returncode: int) -> int:
    """As a shell tells it: 128 + n for signal n."""
    return returncode if returncode >= 0 else 128 - returncode


def _in_words(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"was ended by signal {-returncode}"


class Program:
    """One run of one program."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], *, stop_with_agent: bool
    ) -> None:
        """`environment`: variables beside the agent's own."""
        self._argv = tuple(argv)
        self._environment = environment
        self._stop_with_agent = stop_with_agent
        self._process: asyncio.subprocess.Process | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return Path(self._argv[0]).name

    @property
    def running(self) -> bool:
        """It was started, and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def exit_code(self) -> int:
        """Of a program that has ended; 0 if it never ran."""
        if self._process is None or self._process.returncode is None:
            return 0
        return exit_code_of(self._process.returncode)

    @property
    def end(self) -> str:
        """How it ended, as the end of a sentence."""
        assert self._process is not None
        assert self._process.returncode is not None
        return _in_words(self._process.returncode)

    async def start(self) -> None:
        """Starts it. Raises StartError with an exit code and a sentence."""
        self._look_for_it()
        command = self._argv
        if self._stop_with_agent and sys.platform == "linux":
            python = (sys.executable, "-I", "-S", str(launch.__file__))
            command = (*python, str(int(signal.SIGTERM)), str(os.getpid()), *command)
        # A program of another process group must not read the terminal: it would be stopped.
        stdin = asyncio.subprocess.DEVNULL if _stdin_is_terminal() else None
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=stdin,
                env={**os.environ, **self._environment},
                process_group=0,
            )
        except (OSError, ValueError) as error:
            raise StartError(launch.NOT_EXECUTABLE, f"cannot start {self.name}: {error}") from None
        _LOG.info("started %s", self.name, extra={"pid": self._process.pid})

    def _look_for_it(self) -> None:
        """Says before anything is started what the start would fail of."""
        given = self._argv[0]
        if shutil.which(given) is not None:
            return
        path = Path(given)
        if "/" in given and path.exists():
            problem = "is a directory" if path.is_dir() else "is not executable"
            raise StartError(launch.NOT_EXECUTABLE, f"cannot start {given}: it {problem}")
        where = "there is no such file" if "/" in given else "it is in no directory of PATH"
        raise StartError(launch.NOT_FOUND, f"cannot start {given}: {where}")

    def signal(self, number: int) -> None:
        """Sends a signal to it and to what it has started (its process group)."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def wait(self) -> int:
        """Waits for its end; the exit code as a shell tells it."""
        assert self._process is not None
        return exit_code_of(await self._process.wait())

    async def stop(self, number: int, timeout_s: float, hurry: asyncio.Event) -> int:
        """Passes a signal on and waits for the end; SIGKILL after `timeout_s`, or on `hurry`."""
        if not self.running:
            return self.exit_code
        self.signal(number)
        ending = asyncio.ensure_future(self.wait())
        hurried = asyncio.ensure_future(hurry.wait())
        await asyncio.wait(
            (ending, hurried), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        hurried.cancel()
        if not ending.done():
            _LOG.warning(
                "%s has not ended %s; killing it",
                self.name,
                "and a stop at once is wanted" if hurry.is_set() else f"within {timeout_s:g} s",
            )
            self.signal(signal.SIGKILL)
        async with asyncio.timeout(limits.KILL_WAIT_S):
            return await ending


def _stdin_is_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False
