"""`kvstore local` as people use it: the lines it prints, Ctrl-C, another start, taken ports."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.rpc import Rpc

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]
# Below the ports that outgoing connections take, apart from those of other tests.
BASE = 17_000 + os.getpid() % 500 * 4


def start(data: Path, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kvstore.cli.main", "local", f"--data={data}", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


class Running:
    """A local cluster that has said that it is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip())
            if "Ctrl-C" in line:
                break
        text = "\n".join(self.lines)
        found = re.search(r"endpoints\s+(\S+)", text)
        assert found, text
        self.endpoints = found.group(1).split(",")

    def members(self) -> list[int]:
        """Process ids of the members."""
        return children(self.process.pid)

    def stop(self, number: int = signal.SIGINT) -> str:
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=40)
        return output


@contextmanager
def local(data: Path, *flags: str) -> Iterator[Running]:
    process = start(data, *flags)
    try:
        yield Running(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def gone(pids: list[int], within_s: float = 0.0) -> bool:
    deadline = time.monotonic() + within_s
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_three_nodes_ctrl_c_and_again(tmp_path: Path) -> None:
    with local(tmp_path, f"--base-port={BASE}") as running:
        assert len(running.endpoints) == 3
        assert any("3 members are ready" in line for line in running.lines)
        pids = running.members()
        assert len(pids) == 3
        for number, endpoint in enumerate(running.endpoints):
            with Rpc(endpoint) as rpc:
                rpc.put(f"kept/{number}", str(number))
        output = running.stop()
        assert running.process.returncode == 0
        assert "all stopped" in output
        assert "Traceback" not in output
        assert gone(pids)
        first = running.endpoints
    with local(tmp_path) as running:
        assert running.endpoints == first
        pids = running.members()
        for endpoint in running.endpoints:
            with Rpc(endpoint) as rpc:
                assert rpc.range("kept/", "kept0", count_only=True).count == 3
        # One member's death is told, and the others go on.
        os.kill(pids[0], signal.SIGKILL)
        assert running.process.stdout is not None
        told = next(line for line in running.process.stdout if "has ended" in line)
        assert "SIGKILL" in told
        assert "2 of 3 go on" in told
        # A supervisor that is killed leaves nobody behind.
        running.process.kill()
        assert gone(pids, 20), "members outlive their supervisor"


def test_taken_ports_get_a_sentence(tmp_path: Path) -> None:
    base = BASE + 2
    with socket.create_server(("127.0.0.1", base + 1)):
        process = start(tmp_path / "a", f"--base-port={base}")
        output, _ = process.communicate(timeout=20)
    assert process.returncode not in (0, None)
    assert f"port {base + 1} is taken" in output
    assert "Traceback" not in output
    with local(tmp_path / "b", f"--base-port={base}", "--nodes=1") as running:
        for directory, flags, said in (
            ("b", [], r"the cluster in .* has 1 members, not 3"),
            ("b", ["--nodes=1"], r"port \d+ is taken, and the cluster in .* needs it"),
            ("c", [f"--base-port={base}", "--nodes=1"], r"port \d+ is taken"),
            ("d", ["--nodes=0"], r"--nodes is 0"),
            ("d", ["--base-port=70000"], r"base-port"),
        ):
            process = start(tmp_path / directory, *flags)
            output, _ = process.communicate(timeout=20)
            assert process.returncode not in (0, None), (directory, flags)
            assert re.search(said, output), output
            assert "Traceback" not in output
        with Rpc(running.endpoints[0]) as rpc:
            rpc.put("still", "alive")
        running.stop(signal.SIGTERM)
        assert running.process.returncode == 0


@pytest.mark.slow
def test_ctrl_c_before_it_is_ready(tmp_path: Path) -> None:
    for wait_s in (0.0, 0.3, 0.6):
        process = start(tmp_path, f"--base-port={BASE + 3}")
        while not children(process.pid) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(wait_s)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=40)
        assert "Traceback" not in output, (wait_s, output[-2000:])
    with local(tmp_path, "--nodes=3") as running:
        running.stop()
        assert running.process.returncode == 0
