"""Runs a whole cluster on this machine: one process per member, all under one supervisor.

Members run in process groups of their own, so that Ctrl-C reaches the supervisor alone, which then
stops them in order. Each holds the reading end of a pipe from the supervisor as its standard input
and stops when that ends: even a supervisor that is killed leaves nobody behind. A member that
crashes is not started again: in a trial cluster that is what one wants to see.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from kvstore.serving.logview import NODE_COLOURS, Palette, render_line
from kvstore.serving.ports import Layout, MemberPorts

__all__ = ("LocalCluster", "serve_command")

READY_TEXT = b"ready to serve client requests"
STOP_WAIT_S = 25.0
"""How long members may take to stop before they are killed; a little over their own limit."""
MAX_LINE_BYTES = 256 * 1024
"""Longer log lines are cut."""


def serve_command(
    member: MemberPorts, layout: Layout, directory: Path, *, dns: bool = False
) -> list[str]:
    """The command line of one member."""
    cluster = ",".join(f"{each.name}=http://127.0.0.1:{each.peer}" for each in layout.members)
    return [
        sys.executable,
        "-m",
        "kvstore.cli.main",
        "serve",
        f"--name={member.name}",
        f"--data-dir={directory / member.name}",
        f"--listen-client-urls=http://127.0.0.1:{member.client}",
        f"--advertise-client-urls=http://127.0.0.1:{member.client}",
        f"--listen-client-http-urls=http://127.0.0.1:{member.http}",
        f"--listen-peer-urls=http://127.0.0.1:{member.peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{member.peer}",
        f"--initial-cluster={cluster}",
        f"--initial-cluster-token=local-{layout.members[0].peer}",
        "--stop-on-stdin-eof",
        *([f"--listen-dns=127.0.0.1:{member.dns}"] if dns else []),
    ]


class _Member:
    """One member's process and what is known of it."""

    def __init__(self, ports: MemberPorts, process: asyncio.subprocess.Process) -> None:
        self.ports = ports
        self.process = process
        self.ready = False


class LocalCluster:
    """The supervisor. `run` returns the exit code of the command."""

    def __init__(
        self,
        layout: Layout,
        directory: Path,
        *,
        write: Callable[[str], None],
        colour: bool,
        once: bool = False,
        dns: bool = False,
        command: Callable[[MemberPorts, Layout, Path], Sequence[str]] | None = None,
    ) -> None:
        self._layout = layout
        self._directory = directory
        self._write = write
        self._palette = Palette(colour)
        self._once = once
        self._dns = dns
        self._command = partial(serve_command, dns=dns) if command is None else command
        self._members: list[_Member] = []
        self._asked = asyncio.Event()
        self._stopping = False
        self._width = max(len(ports.name) for ports in layout.members)

    async def run(self) -> int:
        """Starts all members, follows them to their end, and stops them when asked.

        0 when it was asked to stop (or `once` and all were ready); 1 when the last one ended by
        itself.
        """
        self._listen_for_signals()
        tasks: list[asyncio.Task[None]] = []
        try:
            for number, ports in enumerate(self._layout.members):
                member = _Member(ports, await self._spawn(ports))
                self._members.append(member)
                tasks.append(asyncio.create_task(self._follow(member, number)))
            asking = asyncio.create_task(self._asked.wait())
            ending = asyncio.create_task(asyncio.wait(tasks))
            await asyncio.wait((asking, ending), return_when=asyncio.FIRST_COMPLETED)
            asking.cancel()
            asked = self._asked.is_set()
            if not asked:
                self._say("no member is left")
            return 0 if asked else 1
        finally:
            await self._stop()
            if tasks:
                await asyncio.wait(tasks)

    async def _spawn(self, ports: MemberPorts) -> asyncio.subprocess.Process:
        # A new session instead of preexec_fn: forking with code in between is unsafe here.
        return await asyncio.create_subprocess_exec(
            *self._command(ports, self._layout, self._directory),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=MAX_LINE_BYTES,
            start_new_session=True,
            env=self._environment(),
        )

    @staticmethod
    def _environment() -> dict[str, str]:
        """Ours, with our code, without settings of `serve` that would hit all members alike."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("KVSTORE_")
        }
        own = str(Path(__file__).parents[2])
        path = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{own}{os.pathsep}{path}" if path else own
        return environment

    async def _follow(self, member: _Member, number: int) -> None:
        """Shows a member's log until it ends, and says how it ended."""
        assert member.process.stdout is not None
        prefix = member.ports.name.ljust(self._width)
        colour = NODE_COLOURS[number % len(NODE_COLOURS)]
        while True:
            try:
                line = await member.process.stdout.readline()
            except ValueError:  # longer than MAX_LINE_BYTES; what was read of it is gone
                continue
            if not line:
                break
            self._write(render_line(line, prefix, colour, self._palette))
            if READY_TEXT in line and not member.ready:
                member.ready = True
                self._greet_when_ready()
        code = await member.process.wait()
        if not self._stopping:
            self._say(f"{member.ports.name} has ended ({_ending(code)}); {self._outlook()}")

    def _outlook(self) -> str:
        alive = sum(each.process.returncode is None for each in self._members)
        total = len(self._members)
        if alive > total // 2:
            return f"{alive} of {total} go on, which is enough"
        return f"{alive} of {total} go on, which is too few for writes"

    def _greet_when_ready(self) -> None:
        if len(self._members) < len(self._layout.members) or not all(
            each.ready for each in self._members
        ):
            return
        endpoints = ",".join(f"127.0.0.1:{ports.client}" for ports in self._layout.members)
        first = self._layout.members[0]
        dns = (f"  dns        127.0.0.1:{first.dns}  (zone kv.local)",) if self._dns else ()
        for line in (
            "",
            f"{len(self._members)} members are ready; data in {_typed(self._directory)}",
            f"  endpoints  {endpoints}",
            *dns,
            "Try (etcd's own etcdctl does as well):",
            f"  kvstore --endpoints={endpoints} put greeting hello",
            f"  kvstore --endpoints={endpoints} get greeting",
            f"  kvstore --endpoints={endpoints} service register hello --port 80",
            f"  kvstore --endpoints={endpoints} service top",
            f"  curl http://127.0.0.1:{first.http}/health",
            "Ctrl-C stops them all.",
            "",
        ):
            self._write(line)
        if self._once:
            self._asked.set()

    def _listen_for_signals(self) -> None:
        def received() -> None:
            if self._asked.is_set():
                self._kill()
            else:
                self._asked.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, received)

    async def _stop(self) -> None:
        """Asks every member to stop, waits for them, and kills who does not."""
        self._stopping = True
        alive = [each for each in self._members if each.process.returncode is None]
        if not alive:
            return
        self._say("stopping all members (once more kills them)")
        for member in alive:
            with contextlib.suppress(ProcessLookupError):
                member.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_WAIT_S):
                await asyncio.gather(*(each.process.wait() for each in alive))
        except TimeoutError:
            self._say(f"some did not stop within {STOP_WAIT_S:g} s and are killed")
            self._kill()
        failed = [each for each in alive if await each.process.wait() != 0]
        for member in failed:
            self._say(f"{member.ports.name} {_ending(member.process.returncode or 0)}")
        self._say("all stopped")

    def _kill(self) -> None:
        for member in self._members:
            if member.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(member.process.pid, signal.SIGKILL)

    def _say(self, text: str) -> None:
        self._write(f"{self._palette.paint('local'.ljust(self._width), '1')}  {text}")


def _ending(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _typed(directory: Path) -> str:
    """The directory so that it is seen to be one: `./data`, where the path keeps only `data`."""
    named = directory.parts[:1] not in ((), ("..",))
    return os.path.join(".", directory) if named else str(directory)
