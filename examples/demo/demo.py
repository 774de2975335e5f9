"""Three programs in three languages offer one service; one is killed, and its callers go on.

    make setup && examples/demo/run

Starts a cluster of three members on loopback (or uses --endpoints), an agent for each program,
and a caller. Prints what happens, and ends everything that it started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import dns.message
import dns.query
from call import Traffic

from kvstore.client import Client
from kvstore.client.registry import Health, Selection

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SERVICE = "greeting"
TTL_S, GRACE_S = 2, 3
WAIT_S = 30.0


def say(text: str = "") -> None:
    print(text, flush=True)


def title(text: str) -> None:
    say(f"\n── {text}")


def fail(text: str) -> NoReturn:
    raise SystemExit(f"the demo cannot go on: {text}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(what: str, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > deadline:
            fail(f"{what} did not happen in {WAIT_S:g} s")
        time.sleep(0.1)


class Demo:
    """The processes of the demo, and the commands that a person would type."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory = directory
        self.endpoints = ""
        self.dns: tuple[str, int] | None = None
        self._stack = stack
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.agents: dict[str, subprocess.Popen[bytes]] = {}

    def spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Starts `kvstore …`; its output goes to a file; it ends with the demo."""
        log = self._stack.enter_context((self.directory / f"{name}.log").open("ab"))
        process = subprocess.Popen(
            [sys.executable, "-m", "kvstore.cli.main", *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=self.directory,
            env=self._environment,
            # Ctrl-C is for us: we end them in order.
            start_new_session=True,
        )
        self._stack.callback(end, process)
        return process

    def kvstore(self, *words: str) -> str:
        """Types a command, and shows what it prints."""
        say(f"$ kvstore {shlex.join(words)}")
        done = subprocess.run(
            [sys.executable, "-m", "kvstore.cli.main", f"--endpoints={self.endpoints}", *words],
            capture_output=True,
            text=True,
            env=self._environment,
            check=False,
        )
        for line in (done.stdout + done.stderr).splitlines():
            say(f"  {line}")
        return done.stdout

    def start_cluster(self, base_port: int | None) -> None:
        """Three members, each with DNS."""
        more = [] if base_port is None else [f"--base-port={base_port}"]
        data = self.directory / "data"
        process = self.spawn("cluster", "local", "--nodes=3", "--dns", f"--data={data}", *more)
        log = self.directory / "cluster.log"

        def ready() -> bool:
            if process.poll() is not None:
                fail(f"the cluster did not start:\n{log.read_text()}")
            return "Ctrl-C stops" in log.read_text()

        wait_until("the start of the cluster", ready)
        text = log.read_text()
        endpoints = re.search(r"endpoints +(\S+)", text)
        dns_at = re.search(r"dns +([\d.]+):(\d+)", text)
        assert endpoints is not None, text
        assert dns_at is not None, text
        self.endpoints = endpoints[1]
        self.dns = (dns_at[1], int(dns_at[2]))

    def start_agent(self, name: str, *program: str) -> None:
        """`kvstore agent run` around a program that listens on the port it is told."""
        port = str(free_port())
        flags = [
            *("--service", SERVICE, "--id", name, "--port", port, "--check", "/"),
            *("--check-interval", "1s", "--ttl", f"{TTL_S}s", "--grace", f"{GRACE_S}s"),
            *("--drain", "2s"),
        ]
        command = [each.replace("PORT", port) for each in program]
        shown = [each.replace(str(HERE) + "/", "") for each in command]
        say(f"$ kvstore agent run {shlex.join(flags)} -- {shlex.join(shown)} &")
        self.agents[name] = self.spawn(
            name, "agent", "run", f"--endpoints={self.endpoints}", *flags, "--", *command
        )

    def look_up(self) -> list[str]:
        """The addresses of the service, by DNS."""
        if self.dns is None:
            return []
        host, port = self.dns
        name = f"{SERVICE}.default.svc.kv.local"
        say(f"$ dig +short @{host} -p {port} {name} SRV")
        question = dns.message.make_query(name, "SRV")
        answer, _ = dns.query.udp_with_fallback(question, host, timeout=5, port=port)
        found = [str(each) for rrset in answer.answer for each in rrset]
        for line in found or ["(nobody)"]:
            say(f"  {line}")
        return found


def end(process: subprocess.Popen[bytes]) -> None:
    """Asks a process to stop; kills it if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def tell(demo: Demo) -> None:
    """The demo itself."""
    title("Three programs, each started and registered by an agent")
    python = ("python", sys.executable, str(HERE / "greet.py"), "PORT")
    demo.start_agent(*python)
    demo.start_agent("perl", "perl", str(HERE / "greet.pl"), "PORT")
    demo.start_agent("shell", "perl", str(HERE / "inetd.pl"), "PORT", "sh", str(HERE / "greet.sh"))
    with Client(demo.endpoints) as client, client.registry.resolver(SERVICE) as resolver:

        def present() -> set[str]:
            return {each.id for each in client.registry.get_instances(SERVICE)}

        wait_until("the registration of three programs", lambda: len(present()) == 3)
        demo.kvstore("service", "get", SERVICE)
        title("Found by name: DNS")
        demo.look_up()

        title("Called by name: a Python program with the SDK, 20 calls a second")
        resolver.wait_ready(WAIT_S)
        traffic = Traffic(resolver)
        traffic.start()
        watch_traffic(traffic, 2)

        title("kill -9 of the Python program's agent, and the program with it")
        demo.agents["python"].kill()
        demo.agents["python"].wait()
        watch_traffic(traffic, TTL_S + 1)
        wait_until("noticing it", lambda: "python" not in present())
        demo.kvstore("service", "get", SERVICE)
        demo.look_up()
        wait_until("its removal", lambda: "python" not in every_id(client))

        title("It is started again")
        demo.start_agent(*python)
        wait_until("its return", lambda: "python" in present())
        watch_traffic(traffic, 2)

        title("SIGTERM to the Perl program's agent: it deregisters first, and stops then")
        demo.agents["perl"].terminate()
        watch_traffic(traffic, 2)
        demo.look_up()
        traffic.stop()

    title("What happened")
    demo.kvstore("service", "history", SERVICE)
    say(f"\n{traffic.calls} calls, {traffic.failed} failed")


def every_id(client: Client) -> set[str]:
    """Ids of all instances, those that are DOWN too."""
    everyone = Selection(health=Health.ALL)
    return {each.id for each in client.registry.get_instances(SERVICE, selection=everyone)}


def watch_traffic(traffic: Traffic, seconds: int) -> None:
    """Who answered, second by second."""
    traffic.report()  # what was before is not of interest
    for _ in range(seconds):
        time.sleep(1)
        say(f"  {time.strftime('%H:%M:%S')}  {traffic.report()}")


@contextlib.contextmanager
def somewhere(given: Path | None) -> Iterator[Path]:
    """A directory for data and logs: the given one, or one that is gone afterwards."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    directory = Path(tempfile.mkdtemp(prefix="kvstore-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--endpoints", help="use this cluster instead of starting one")
    parser.add_argument("--dns", metavar="HOST:PORT", help="with --endpoints: where it answers DNS")
    parser.add_argument("--base-port", type=int, help="first port of the cluster")
    parser.add_argument("--directory", type=Path, help="keep data and logs there")
    wanted = parser.parse_args()
    if shutil.which("perl") is None:
        sys.exit("the demo needs perl")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with somewhere(wanted.directory) as directory:
        try:
            with contextlib.ExitStack() as stack:
                run(Demo(directory.resolve(), stack), wanted)
        except KeyboardInterrupt:
            say("interrupted")
        say("everything that was started is ended")


def run(demo: Demo, wanted: argparse.Namespace) -> None:
    """The cluster, then the story."""
    title("A cluster of three members on this machine")
    if wanted.endpoints:
        demo.endpoints = wanted.endpoints
        if wanted.dns:
            host, _, port = wanted.dns.rpartition(":")
            demo.dns = (host, int(port))
    else:
        demo.start_cluster(wanted.base_port)
    say(f"endpoints {demo.endpoints}")
    tell(demo)


if __name__ == "__main__":
    main()
