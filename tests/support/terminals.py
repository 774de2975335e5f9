"""Terminals in which the commands of documents are typed, at a cluster with ports of its own."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import random
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kvstore.serving.ports import LayoutError, MemberPorts, choose_layout
from tests.support.pages import Command, Pairs
from tests.support.servers import ROOT

__all__ = ("Running", "Screen", "Terminals", "until")

WAIT_S = 30.0
"""How long anything may take; a machine that is busy with other things needs its time."""
FOREIGN = ("dig", "etcdctl", "jq")
"""Tools that not every machine has."""


def until(done: Callable[[], object]) -> None:
    """Waits until it holds, or fails."""
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


class Terminals:
    """A directory whose shell has this tree's `kvstore`, and what was begun in it.

    The documents show the usual ports; here they are read as those of a cluster beside others.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.members = _free_members(directory)
        usual = choose_layout(directory, len(self.members), None, lambda _: True).members
        self._ports = {
            str(there): str(here)
            for one, other in zip(usual, self.members, strict=True)
            for there, here in zip((*one.all, one.dns), (*other.all, other.dns), strict=True)
        }
        self._pairs = Pairs()
        self._begun: list[Running] = []
        self._numbers = itertools.count()
        self.missing: set[str] = set()
        """Foreign tools whose commands were left out."""
        tools = directory / "bin"
        tools.mkdir()
        python = shlex.quote(sys.executable)
        (tools / "kvstore").write_text(f'#!/bin/sh\nexec {python} -m kvstore.cli.main "$@"\n')
        (tools / "kvstore").chmod(0o755)
        own = ("KVSTORE_", "ETCDCTL_")
        self.environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith(own)},
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "KVSTORE_ENDPOINTS": self.endpoint,
            "KVSTORE_DIAL_TIMEOUT": f"{WAIT_S:.0f}s",
            "KVSTORE_COMMAND_TIMEOUT": f"{WAIT_S:.0f}s",
        }

    @property
    def endpoint(self) -> str:
        """Of the first member, whom one asks who says nothing else."""
        return f"127.0.0.1:{self.members[0].client}"

    @property
    def endpoints(self) -> str:
        return ",".join(f"127.0.0.1:{each.client}" for each in self.members)

    def here(self, text: str) -> str:
        """A text of a document with the ports that are meant here."""
        return re.sub(r"\b\d+\b", lambda found: self._ports.get(found[0], found[0]), text)

    def play(self, command: Command, given: str = "") -> str:
        """Runs a command to its end, or begins it, and compares; what it has printed so far.

        A watch of keys says nothing before they change: `finish` compares it.
        """
        if not command.goes_on:
            return self.run(command, given)
        running = self.begin(command)
        return running.text() if running.silent else running.says().text()

    def run(self, command: Command, given: str = "") -> str:
        """To its end: it must print what is shown, no more and no less, and fail only as shown."""
        if missing := {each for each in _tools(command) if shutil.which(each) is None}:
            self.missing |= missing
            return ""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", self._typed(command)],
            env=self.environment,
            cwd=self.directory,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        refused = any(line.startswith("Error: ") for line in command.said or ())
        self.compare(command, command.said, _lines(done.stdout), done.stdout)
        if (done.returncode != 0) is not refused:
            self.fail(command, f"it ended with {done.returncode}", done.stdout)
        return done.stdout

    def begin(self, command: Command) -> Running:
        """Begins what runs until it is ended; returns when a watch is at work."""
        before = self._watchers() if self._begun else 0
        running = Running(self, command, next(self._numbers))
        self._begun.append(running)
        if running.silent:
            until(lambda: self._watchers() > before)
        return running

    def compare(
        self, command: Command, shown: Sequence[str] | None, printed: Sequence[str], text: str
    ) -> None:
        """Fails with the differences; what comes in no order may come in any."""
        if shown is None:
            return
        wanted = [self.here(line) for line in shown]
        if command.typed.startswith("dig "):
            wanted, printed = sorted(wanted), sorted(printed)
        if differences := self._pairs.differences(wanted, printed):
            self.fail(command, f"it prints otherwise:\n{differences}", text)

    @staticmethod
    def fail(command: Command, why: str, text: str) -> None:
        pytest.fail(f"{command.place}: {why}\n\nall that it printed:\n{text}", pytrace=False)

    @property
    def cluster(self) -> Running:
        """What was begun first."""
        return self._begun[0]

    def member(self, name: str) -> int:
        """The process id of a member."""
        parent = self.cluster.process.pid
        for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            if f"--name={name}\0" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
        raise AssertionError(f"{name} does not run")

    def _typed(self, command: Command) -> str:
        """As it is typed here; etcdctl minds a variable beside a flag, so it gets a flag."""
        flag = f"etcdctl --endpoints={self.endpoint} "
        return re.sub(r"\betcdctl (?!--endpoints)", flag, self.here(command.typed))

    def _watchers(self) -> int:
        """How many watch through the first member."""
        url = f"http://127.0.0.1:{self.members[0].http}/metrics"
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            found = re.search(rb"\netcd_debugging_mvcc_watcher_total (\d+)", answer.read())
        assert found
        return int(found[1])

    def finish(self) -> None:
        """Ends all but the cluster, and compares; all must have run until now."""
        for running in self._begun[1:]:
            running.interrupt()
        for running in self._begun[1:]:
            running.finish()

    def end(self) -> None:
        """Ends all but the cluster, whatever has happened."""
        _end(self._begun[1:])
        del self._begun[1:]

    def close(self) -> None:
        """Ends all; the cluster last."""
        self.end()
        _end(self._begun)


def _end(begun: Sequence[Running]) -> None:
    for running in begun:
        running.process.send_signal(signal.SIGINT)
    for running in begun:
        running.wait()


def _free_members(directory: Path) -> tuple[MemberPorts, ...]:
    """All below the ports that outgoing connections take, wherever the third member's are."""
    while True:
        try:
            return choose_layout(directory, 3, random.randrange(1_100, 2_300, 4)).members
        except LayoutError:
            continue


def _tools(command: Command) -> set[str]:
    return {tool for tool in FOREIGN if re.search(rf"(?:^|\| ){tool} ", command.typed)}


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.split("\n") if line.strip()]


class Running:
    """A command that runs until it is ended, and what it has printed so far."""

    def __init__(self, terminals: Terminals, command: Command, number: int) -> None:
        self.command = command
        self._told_to_end = False
        self._terminals = terminals
        self._log = terminals.directory / f"terminal-{number}.log"
        typed = terminals.here(command.typed).removesuffix("&")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {typed}"],
                env=terminals.environment,
                cwd=terminals.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def silent(self) -> bool:
        """Watches keys: says nothing before one changes."""
        return self.command.typed.startswith("kvstore watch")

    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def says(self, upto: int | None = None) -> Running:
        """Waits for what is shown of it (so many lines, or all), or for any word, and compares."""
        said = (self.command.said or ())[:upto]
        wanted = len(said) or 1
        deadline = time.monotonic() + WAIT_S
        while len(printed := self._printed()) < wanted and time.monotonic() < deadline:
            if self.process.poll() is not None:
                self._terminals.fail(self.command, "it ended by itself", self.text())
            time.sleep(0.05)
        if not said and len(printed) < wanted:
            self._terminals.fail(self.command, "it says nothing", self.text())
        self._terminals.compare(self.command, said or None, printed[:wanted], self.text())
        return self

    def _printed(self) -> list[str]:
        """Its lines; of a cluster, those behind the members' while they started."""
        text = self.text()
        if self.command.typed.startswith("kvstore local"):
            text = text.partition("\n\n")[2]
        return _lines(text)

    def kill(self) -> None:
        """kill -9."""
        self._told_to_end = True
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> None:
        """Ctrl-C, once; until then it must have run."""
        if self._told_to_end:
            return
        if self.process.poll() is not None:
            self._terminals.fail(self.command, "it ended by itself", self.text())
        self._told_to_end = True
        self.process.send_signal(signal.SIGINT)

    def finish(self) -> None:
        """Ctrl-C; a watch must have said what is shown, and no more."""
        self.interrupt()
        self.wait()
        if "Traceback" in self.text():
            self._terminals.fail(self.command, "it ended badly", self.text())
        if " watch " in self.command.typed and self.command.said:
            self._terminals.compare(
                self.command, self.command.said, _lines(self.text()), self.text()
            )

    def wait(self) -> None:
        """For its end; kills what does not come to one."""
        try:
            self.process.wait(timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()


class Screen:
    """A terminal that a command draws on; ends with it."""

    def __init__(self, terminals: Terminals, command: Command, *, width: int, height: int) -> None:
        self._terminals = terminals
        self._command = command
        self._seen = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self._process = subprocess.Popen(
            command.typed.split(),
            env={**terminals.environment, "TERM": "xterm", "NO_COLOR": "1"},
            cwd=terminals.directory,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def picture(self) -> list[str]:
        """The lines of the newest picture that is complete, without empty ones."""
        while select.select([self._ours], [], [], 0.05)[0]:
            self._seen += os.read(self._ours, 65_536)
        drawn = self._seen.rpartition(b"\x1b[J")[0].rpartition(b"\x1b[H")[2].decode()
        return _lines(re.sub(r"\x1b\[[\d?]*[a-zA-Z]", "", drawn).replace("\r", ""))

    def shows(self) -> None:
        """Waits until there is as much to see as the document shows, and compares."""
        said = self._command.said or ()
        deadline = time.monotonic() + WAIT_S
        while len(picture := self.picture()) < len(said) and time.monotonic() < deadline:
            pass
        self._terminals.compare(self._command, said, picture, "\n".join(picture))

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def ends(self) -> None:
        assert self._process.wait(timeout=WAIT_S) == 0
