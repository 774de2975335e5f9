"""Each service command against a real member, as a person or a script would type it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvstore.client import Client
from kvstore.client.registry import Instance
from tests.support.servers import ROOT, make_cluster

pytestmark = pytest.mark.process

COMMAND = (sys.executable, "-m", "kvstore.cli.main")


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with make_cluster(tmp_path_factory.mktemp("server")) as cluster:
        yield f"--endpoints={cluster.endpoints}"


class Shell:
    def __init__(self, where: str) -> None:
        self._where = where
        self.endpoints = where.partition("=")[2]
        self.begun: list[subprocess.Popen[str]] = []

    def run(self, *argv: str, code: int = 0, given: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, self._where, "service", *argv],
            input=given,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=30,
            check=False,
        )
        assert done.returncode == code, done
        return done

    def json(self, *argv: str) -> Any:
        return json.loads(self.run(*argv, "-w", "json").stdout)

    def begin(self, *argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, self._where, "service", *argv],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.begun.append(process)
        return process

    def end(self) -> None:
        """Kills what a failed test has left."""
        for process in self.begun:
            process.kill()
            process.communicate()


@pytest.fixture
def shell(where: str) -> Iterator[Shell]:
    shell = Shell(where)
    yield shell
    shell.end()


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def stopped(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.read(), process.stderr.read()
    process.wait(timeout=15)
    return out, err


def test_a_service_from_its_registration_to_its_history(shell: Shell) -> None:
    shell.run("register", "pay", "--id=p-1", "--port=http=8080", "--port=grpc=9090", "--ttl=1h")
    (found,) = shell.json("get", "pay")
    wanted = {"id": "p-1", "address": "127.0.0.1", "port": 8080, "status": "UP", "routable": True}
    assert wanted.items() <= found.items()
    assert found["ports"] == {"http": 8080, "grpc": 9090}
    told = json.dumps(found)
    again = shell.run("register", "pay", "--json=-", "-w", "json", given=told).stdout
    assert json.loads(again) == found  # the same once more changes nothing

    shell.run("status", "pay", "p-1", "out_of_service", "--reason=bad disk")
    assert shell.json("get", "pay")[0]["reason"] == {"code": "overridden", "text": "bad disk"}
    assert shell.json("get", "pay", "--healthy") == []
    assert len(shell.json("get", "pay", "--healthy-or-else-all")) == 1
    why = shell.json("explain", "pay", "p-1")
    assert not why["routable"]
    assert any(each["rule"] == "override" and not each["passes"] for each in why["findings"])
    assert "✗ override" in shell.run("explain", "pay", "p-1").stdout
    shell.run("status", "pay", "p-1", "--release")

    assert shell.json("drain", "pay", "p-1")["instances"][0]["status"] == "DRAINING"
    shell.run("drain", "pay", "--all", "--undo")
    assert shell.json("list", "-n", "default")[0]["by_status"] == {"UP": 1}
    before = shell.json("get", "pay")[0]["revision"]
    assert shell.json("deregister", "pay", "p-1")["existed"]
    assert "there is no instance p-1" in shell.run("deregister", "pay", "p-1", code=1).stderr

    events = [each["event"] for each in shell.json("history", "pay")]
    assert events[0] == "registered"
    assert events[-1] == "deregistered"
    then = shell.json("history", "pay", f"--revision={before}")
    assert [each["id"] for each in then["instances"]] == ["p-1"]


def test_silence_is_seen_by_a_watch_with_its_reasons(shell: Shell) -> None:
    watch = shell.begin("watch", "quiet", "-w", "json")
    assert watch.stdout is not None
    shell.run("register", "quiet", "--id=q-1", "--port=1", "--ttl=1s", "--grace=1s")
    told = [json.loads(watch.stdout.readline()) for _ in range(3)]
    assert [each["event"] for each in told] == ["registered", "unhealthy", "expired"]
    assert [each["reason"]["code"] for each in told] == [
        "registered",
        "missed_heartbeat",
        "expired",
    ]
    revisions = [each["revision"] for each in told]
    assert revisions == sorted(set(revisions))
    assert told[1]["instance"]["status"] == "DOWN"
    assert stopped(watch) == ("", "")


def test_heartbeats_keep_it_and_the_end_of_the_command_ends_it(shell: Shell) -> None:
    running = shell.begin("register", "live", "--id=l-1", "--port=1", "--ttl=1s", "--heartbeat")
    assert running.stdout is not None
    assert "live/l-1" in running.stdout.readline()
    watch = shell.begin("watch", "live", "--subscriber=test", "-w", "json")
    assert watch.stdout is not None
    assert json.loads(watch.stdout.readline())["snapshot"]
    time.sleep(2.5)  # longer than its TTL
    assert shell.json("get", "live", "--healthy")[0]["id"] == "l-1"
    done = shell.run("deregister", "live", "l-1", "--wait=5s")
    assert "1 subscribers have acknowledged it" in done.stderr
    assert json.loads(watch.stdout.readline())["event"] == "deregistered"
    # It is alive: it registers itself again with its next heartbeat.
    assert json.loads(watch.stdout.readline())["event"] == "registered"
    _, err = stopped(running)
    assert "live/l-1 is deregistered" in err
    assert json.loads(watch.stdout.readline())["event"] == "deregistered"
    stopped(watch)


@pytest.mark.parametrize(
    ("argv", "given", "code", "said"),
    [
        (["bad", "--port=99999"], "", 1, "the port main is 99999; 1 to 65535 are allowed"),
        (["Bad_Name", "--port=1"], "", 1, "is not a DNS label"),
        (["bad", "--port=1", "-n", "nowhere"], "", 1, "kvstore service namespace create nowhere"),
        (["bad", "--port=1", "--id=a/b"], "", 1, "holds other characters than"),
        (
            ["bad", "--json=-"],
            json.dumps({"port": 1, "metadata": {"a": "x" * 1_000_000}}),
            1,
            "the metadata takes 1000001 bytes",
        ),
        (["bad"], "", 128, "the instance has no port"),
        (["bad", "--port=1", "--ttl=0s"], "", 128, "--ttl is 0s"),
        (["bad", "--json=-"], "{", 128, "cannot be read"),
    ],
)
def test_bad_input_is_told_in_a_sentence_and_nothing_is_stored(
    shell: Shell, argv: list[str], given: str, code: int, said: str
) -> None:
    assert said in shell.run("register", *argv, code=code, given=given).stderr
    with Client(shell.endpoints) as client:
        keys = [each.key for each in client.get_prefix("/kvstore/").kvs]
    assert not [key for key in keys if b"bad" in key.lower() or b"nowhere" in key]


def test_namespaces_and_settings(shell: Shell) -> None:
    assert shell.json("namespace", "create", "shop")["created"]
    assert shell.json("namespace", "list") == ["default", "shop"]
    shell.run("register", "cart", "-n", "shop", "--port=1", "--id=c-1")
    assert "cart" in shell.run("namespace", "delete", "shop", code=1).stderr
    assert shell.json("get", "cart", "-n", "shop")[0]["namespace"] == "shop"
    shell.run("deregister", "cart", "c-1", "-n", "shop")
    shell.run("settings", "set", "cart", "-n", "shop", "--percent=50", "--hold=5m")
    assert shell.json("settings", "get", "cart", "-n", "shop")["guard_percent"] == 50


def test_the_guard_is_seen_and_ended(shell: Shell) -> None:
    ports = {"main": 1}
    with Client(shell.endpoints) as client:
        for number in range(4):
            client.registry.register_instance(
                Instance(
                    service="many",
                    id=f"m-{number}",
                    address="127.0.0.1",
                    ports=ports,
                    ttl_s=2,
                    grace_s=1,
                )
            )
    until(lambda: shell.json("guard", "show", "many"))
    assert "the guard keeps their status" in shell.run("get", "many").stderr
    assert any(each["stale"] and each["status"] == "UP" for each in shell.json("get", "many"))
    text = shell.run("top", "--count=1").stdout
    assert "many" in text
    held = shell.json("guard", "confirm", "many")["held"]
    assert held >= 3
    until(lambda: len(shell.json("get", "many")) == 4 - held)
    assert shell.json("guard", "show", "many") == []


def test_top_on_a_terminal_draws_listens_and_leaves_it_as_it_was(shell: Shell) -> None:
    shell.run("register", "drawn", "--id=d-1", "--port=1")
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 90, 0, 0))
    before = termios.tcgetattr(theirs)
    running = subprocess.Popen(
        [*COMMAND, f"--endpoints={shell.endpoints}", "service", "top"],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    seen = b""

    def drawn(text: bytes) -> Callable[[], object]:
        def look() -> bool:
            nonlocal seen
            while select.select([ours], [], [], 0.05)[0]:
                seen += os.read(ours, 65_536)
            return text in seen.rpartition(b"\x1b[H")[2]

        return look

    try:
        until(drawn(b"drawn"))
        os.write(ours, b"/draw\r\r")
        until(drawn(b"drawn: 1 instances"))
        shell.run("deregister", "drawn", "d-1")
        until(drawn(b"drawn has no instance any more"))
        os.write(ours, b"q")
        assert running.wait(timeout=15) == 0, running.stderr
        drawn(b"")()
        assert seen.endswith(b"\x1b[?25h\x1b[?1049l")
        assert termios.tcgetattr(theirs) == before
    finally:
        running.kill()
        running.communicate()
        os.close(ours)
        os.close(theirs)


def test_top_counts_what_is_there(shell: Shell) -> None:
    shell.run("register", "seen", "--id=s-1", "--port=1")
    rows = {each["service"]: each for each in shell.json("top", "--count=1")}
    assert rows["seen"]["by_status"] == {"UP": 1}
