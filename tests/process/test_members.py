"""Members as processes that are killed without warning."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


class Process:
    def __init__(self, directory: Path, name: str, cluster: dict[str, str]) -> None:
        arguments = [f"{member}={url}" for member, url in cluster.items()]
        self.name = name
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.process.member_process",
                str(directory / name),
                name,
                *arguments,
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> str:
        """Waits for the process to serve."""
        return self._line()

    def _line(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def ask(self, command: str) -> str:
        assert self._child.stdin is not None
        self._child.stdin.write(command + "\n")
        self._child.stdin.flush()
        return self._line()

    def ask_until(self, command: str, wanted: str = "ok", patience_s: float = 20) -> str:
        deadline = time.monotonic() + patience_s
        while not (line := self.ask(command)).startswith(wanted):
            assert time.monotonic() < deadline, line
            time.sleep(0.05)
        return line

    def kill(self) -> None:
        self._child.kill()
        self._child.wait(10)

    def stop(self) -> None:
        if self._child.poll() is None:
            assert self.ask("stop") == "stopped"
            assert self._child.wait(10) == 0

    def end(self) -> None:
        if self._child.poll() is None:
            self.kill()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()


class Processes:
    def __init__(self, directory: Path, *names: str) -> None:
        self.directory = directory
        self.cluster = {name: f"http://127.0.0.1:{_free_port()}" for name in names}
        self.running: dict[str, Process] = {}
        self._all: list[Process] = []

    def start(self, name: str) -> Process:
        process = Process(self.directory, name, self.cluster)
        self.running[name] = process
        self._all.append(process)
        return process

    def start_all(self) -> None:
        for name in self.cluster:
            self.start(name)
        for process in self.running.values():
            assert process.ready() == "ready"

    def leader(self) -> Process:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for process in self.running.values():
                _, leader, own = process.ask("leader").split()
                if leader == own:
                    return process
            time.sleep(0.05)
        raise AssertionError("nobody leads")

    def end(self) -> None:
        for process in self._all:
            process.end()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_one_member_killed_again_and_again_keeps_what_it_answered(tmp_path: Path) -> None:
    members = Processes(tmp_path, "a")
    try:
        written = 0
        for _ in range(4):
            process = members.start("a")
            assert process.ready() == "ready"
            assert process.ask_until("count") == f"ok {written}"
            for _ in range(30):
                assert process.ask(f"put k{written}").startswith("ok")
                written += 1
            process.kill()
        process = members.start("a")
        assert process.ready() == "ready"
        assert process.ask_until("count") == f"ok {written}"
        process.stop()
    finally:
        members.end()


def test_three_members_whose_leaders_are_killed_in_turn(tmp_path: Path) -> None:
    members = Processes(tmp_path, "a", "b", "c")
    try:
        members.start_all()
        written = 0
        for _ in range(3):
            leader = members.leader()
            for _ in range(20):
                leader.ask_until(f"put k{written}")
                written += 1
            leader.kill()
            del members.running[leader.name]
            survivor = members.leader()
            assert survivor.ask_until("count") == f"ok {written}"
            back = members.start(leader.name)
            assert back.ready() == "ready"
            assert back.ask_until("count") == f"ok {written}"
        for process in list(members.running.values()):
            process.stop()
    finally:
        members.end()
