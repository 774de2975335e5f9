"""Agents as real processes, and small services for them to run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.servers import ROOT

__all__ = ("PYTHON_SERVICE", "SHELL_SERVICE", "Agent", "await_that", "is_alive")

PYTHON_SERVICE = """
import http.server, pathlib, signal, sys, time
port, notes, code = int(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
state = pathlib.Path(str(notes) + ".state")

def note(word):
    with notes.open("a") as file:
        file.write(f"{word} {time.time()}\\n")

def end(number, frame):
    note(signal.Signals(number).name)
    sys.exit(code)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = int(state.read_text()) if state.exists() else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"as the state says\\n")
    def log_message(self, *_):
        pass

signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGHUP, lambda *_: note("SIGHUP"))
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
note("started")
server.serve_forever()
"""
"""PORT NOTES CODE: answers 200, or what NOTES.state says; writes down its signals; exits CODE."""

SHELL_SERVICE = """
notes=$1
trap 'echo "SIGTERM $(date +%s.%N)" >> "$notes"; exit 7' TERM
echo "started $(date +%s.%N)" >> "$notes"
echo "hello from the shell"
while :; do sleep 0.05; done
"""


class Agent:
    """One `kvstore agent run`; its log and its program's output are in files."""

    def __init__(self, directory: Path, endpoints: str, *flags: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._log = directory / "agent.log"
        self._out = directory / "agent.out"
        command = [sys.executable, "-m", "kvstore.cli.main", "agent", "run"]
        with self._log.open("ab") as log, self._out.open("ab") as out:
            self.process = subprocess.Popen(
                [*command, f"--endpoints={endpoints}", "--command-timeout=2s", *flags],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def output(self) -> str:
        return self._out.read_text(errors="replace")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 20.0) -> int:
        """Asks it to stop; its exit code."""
        self.send(number)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 20.0) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the agent did not end:\n{self.log()}") from None

    def close(self) -> None:
        """Leaves nothing behind; its program ends with it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def await_that(holds: Callable[[], object], what: str, timeout_s: float = 15.0) -> None:
    """Returns once something is so; fails with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Not gone, and not merely waiting to be taken note of."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
